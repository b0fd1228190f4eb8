"""What trained networks cost, and how they run without this package: graphs of standard operators, integers and C, NIR,
and divisions that cheap hardware can do. docs/how-to/deploy.md leads through all of it."""

from eisnn.deploy.c import write_c
from eisnn.deploy.cost import Cost, LayerCost, PathwayCost, cost
from eisnn.deploy.division import divide, hold
from eisnn.deploy.formats import CALIBRATION, EXPORTS
from eisnn.deploy.graph import exported, write_aoti, write_onnx, write_torch
from eisnn.deploy.integer import IntegerNetwork, integer
from eisnn.deploy.nir_graph import nir_graph, write_nir
from eisnn.functional import Division

__all__ = [
    "CALIBRATION",
    "EXPORTS",
    "Cost",
    "Division",
    "IntegerNetwork",
    "LayerCost",
    "PathwayCost",
    "cost",
    "divide",
    "exported",
    "hold",
    "integer",
    "nir_graph",
    "write_aoti",
    "write_c",
    "write_nir",
    "write_onnx",
    "write_torch",
]
