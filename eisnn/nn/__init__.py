"""Layers: parameters and shapes; each forward calls into `eisnn.functional`."""

from eisnn.nn.ablations import ABLATIONS, Ablation
from eisnn.nn.baselines import BNConv2d, BNLinear, LinearReadout
from eisnn.nn.circuit import EICircuit, EIConv2d, EILayer, EILinear, EIReadout
from eisnn.nn.dale import constrained_parameters, dale_violations, enforce_dale, project_
from eisnn.nn.dann import DANNConv2d, DANNLayer, DANNLinear, DANNReadout
from eisnn.nn.factory import CIRCUITS, RATE_CIRCUITS, Layers, default_neuron, make_layers
from eisnn.nn.folded import fold
from eisnn.nn.lif import LIF
from eisnn.nn.neunorm import NeuNorm
from eisnn.nn.normalization import BNTT, TAB, TDBN, TEBN, SequenceNorm
from eisnn.nn.normalized import NormalizedLayer
from eisnn.nn.options import PAPER, PLUS, CircuitOptions
from eisnn.nn.plif import PLIF

__all__ = [
    "ABLATIONS",
    "BNTT",
    "CIRCUITS",
    "LIF",
    "PAPER",
    "PLIF",
    "PLUS",
    "RATE_CIRCUITS",
    "TAB",
    "TDBN",
    "TEBN",
    "Ablation",
    "BNConv2d",
    "BNLinear",
    "CircuitOptions",
    "DANNConv2d",
    "DANNLayer",
    "DANNLinear",
    "DANNReadout",
    "EICircuit",
    "EIConv2d",
    "EILayer",
    "EILinear",
    "EIReadout",
    "Layers",
    "LinearReadout",
    "NeuNorm",
    "NormalizedLayer",
    "SequenceNorm",
    "constrained_parameters",
    "dale_violations",
    "default_neuron",
    "enforce_dale",
    "fold",
    "make_layers",
    "project_",
]
