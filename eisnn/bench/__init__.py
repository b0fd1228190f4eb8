"""`eisnn bench`: what an E-I network costs beside its batch-norm twin, and that twin beside stock operators.

All networks run in turn, step by step, so that a machine whose speed drifts treats them alike; each is reported in its
own faster memory format.

ei, bn         the E-I network and its batch-norm twin
stock          Conv2d, BatchNorm2d and an LIF written as a loop over T in plain autograd: is the twin a slow baseline?
spikingjelly   Conv2d, BatchNorm2d and SpikingJelly's multi-step LIF neuron, where that package is installed
ei_floor, ...  the bare convolutions of a network, as the network computes them, and by a stock operator the lateral 1x1
               one of circuits: what is left is the cost of all the rest
"""

from eisnn.bench.command import bench
from eisnn.bench.floor import Floor
from eisnn.bench.memory import ResidentMemory, peak_memory
from eisnn.bench.subjects import FORMATS, Subject, saved_bytes

__all__ = ["FORMATS", "Floor", "ResidentMemory", "Subject", "bench", "peak_memory", "saved_bytes"]
