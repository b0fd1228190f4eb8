"""What trained networks cost, and networks on other arithmetic than they were trained in."""

from eisnn.deploy.cost import PathwayCost, count_operations
from eisnn.deploy.int8 import quantize

__all__ = ["PathwayCost", "count_operations", "quantize"]
