"""Cortical circuits: recurrence, time constants and cell types (PV, SST, VIP) around the paper's E-I circuit."""

from eisnn.cortex.layer import CorticalConv2d, CorticalLayer, CorticalLinear
from eisnn.cortex.options import LIMIT, CorticalOptions
from eisnn.cortex.stability import OperatingPoint, largest_eigenvalue
from eisnn.cortex.stimulation import disc, stimulate
from eisnn.functional.cortex import CorticalState, Stimulus

__all__ = [
    "LIMIT",
    "CorticalConv2d",
    "CorticalLayer",
    "CorticalLinear",
    "CorticalOptions",
    "CorticalState",
    "OperatingPoint",
    "Stimulus",
    "disc",
    "largest_eigenvalue",
    "stimulate",
]
