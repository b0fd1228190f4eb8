"""The mathematics of `eisnn.functional`, fast: the same functions by compiled routines, Triton or fewer operations.

What of torch works with them: reverse-mode derivatives, once (`backward`, `torch.autograd.grad`), `torch.compile`,
`torch.func.functional_call`. What does not raises: second derivatives (take `eisnn.functional.lif`), forward mode
(`jvp`, `jacfwd`), and `torch.func.grad`, `jacrev` and `vmap` of a whole layer.
"""

# Back ends, which enter themselves when they are imported; see backends.py.
import eisnn.ops.cortex.cpu
import eisnn.ops.cortex.gpu
import eisnn.ops.cortex.maps
import eisnn.ops.lif.cpu
import eisnn.ops.lif.gpu
import eisnn.ops.population.cpu
import eisnn.ops.population.gpu
import eisnn.ops.weights.cpu
import eisnn.ops.weights.gpu  # noqa: F401
from eisnn.ops.backends import exporting
from eisnn.ops.circuit import StackedCurrents, ei_circuit, ei_readout, folded_currents, stacked_currents
from eisnn.ops.connection import Connection, Conv, Dense
from eisnn.ops.conv2d.op import conv2d
from eisnn.ops.cortex.op import cortical_circuit, scans
from eisnn.ops.lif.op import lif
from eisnn.ops.pool.op import average_pool
from eisnn.ops.population.op import population
from eisnn.ops.population.torch import split_currents
from eisnn.ops.weights.conserved import ConservedKernel
from eisnn.ops.weights.op import Kernel, project
from eisnn.ops.weights.stacked import StackedKernel, fold

__all__ = [
    "Connection",
    "ConservedKernel",
    "Conv",
    "Dense",
    "Kernel",
    "StackedCurrents",
    "StackedKernel",
    "average_pool",
    "conv2d",
    "cortical_circuit",
    "ei_circuit",
    "ei_readout",
    "exporting",
    "fold",
    "folded_currents",
    "lif",
    "population",
    "project",
    "scans",
    "split_currents",
    "stacked_currents",
]
