"""Layers: parameters and shapes; each calls into `eisnn.ops`."""

from eisnn.nn.attention import SelfAttention, TokenAttention
from eisnn.nn.circuit import EICircuit, EIConv2d, EILayer, EILinear, EIReadout
from eisnn.nn.dale import NonFiniteGradient, constrained_parameters, dale_violations, enforce_dale, project_
from eisnn.nn.inference import fold
from eisnn.nn.layer import NonFiniteActivity, Pathway, SpikingLayer, layers_of, uninitialized
from eisnn.nn.maps import AveragePool2d, Shortcut
from eisnn.nn.neurons import LIF, PLIF
from eisnn.nn.options import PAPER, PLUS, CircuitOptions
from eisnn.nn.projection import LinearReadout, ProjectionLayer

__all__ = [
    "LIF",
    "PAPER",
    "PLIF",
    "PLUS",
    "AveragePool2d",
    "CircuitOptions",
    "EICircuit",
    "EIConv2d",
    "EILayer",
    "EILinear",
    "EIReadout",
    "LinearReadout",
    "NonFiniteActivity",
    "NonFiniteGradient",
    "Pathway",
    "ProjectionLayer",
    "SelfAttention",
    "Shortcut",
    "SpikingLayer",
    "TokenAttention",
    "constrained_parameters",
    "dale_violations",
    "enforce_dale",
    "fold",
    "layers_of",
    "project_",
    "uninitialized",
]
