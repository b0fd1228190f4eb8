"""The circuits by name: the paper's, its ablations, and the methods it is compared with, one file each."""

from eisnn.methods import backei, bn, bntt, cortex, dann, ei, neunorm, plain, tab, tdbn, tebn  # each registers itself
from eisnn.methods.ablations import ABLATIONS, Ablation
from eisnn.nn.registry import CIRCUITS, Layers, make_layers, register

__all__ = [
    "ABLATIONS",
    "CIRCUITS",
    "Ablation",
    "Layers",
    "backei",
    "bn",
    "bntt",
    "cortex",
    "dann",
    "ei",
    "make_layers",
    "neunorm",
    "plain",
    "register",
    "tab",
    "tdbn",
    "tebn",
]
