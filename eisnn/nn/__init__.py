"""Layers: parameters and shapes; each forward calls into `eisnn.functional`."""

from eisnn.nn.baselines import BNConv2d, BNLinear, LinearReadout
from eisnn.nn.circuit import EICircuit, EIConv2d, EILayer, EILinear, EIReadout
from eisnn.nn.dale import constrained_parameters, dale_violations, enforce_dale, project_
from eisnn.nn.factory import CIRCUITS, Layers, make_layers
from eisnn.nn.folded import fold
from eisnn.nn.lif import LIF
from eisnn.nn.options import PAPER, PLUS, CircuitOptions
from eisnn.nn.plif import PLIF

__all__ = [
    "CIRCUITS",
    "LIF",
    "PAPER",
    "PLIF",
    "PLUS",
    "BNConv2d",
    "BNLinear",
    "CircuitOptions",
    "EICircuit",
    "EIConv2d",
    "EILayer",
    "EILinear",
    "EIReadout",
    "Layers",
    "LinearReadout",
    "constrained_parameters",
    "dale_violations",
    "enforce_dale",
    "fold",
    "make_layers",
    "project_",
]
