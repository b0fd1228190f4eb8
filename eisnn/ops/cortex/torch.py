"""The cortical circuit in torch operations, step by step: what serves where no back end does."""

from collections.abc import Callable
from typing import Any

from eisnn.functional import cortex as FC
from eisnn.ops.backends import Implementations

# By back end a function of (currents, weights, constants, state, steps, top_down), with the results of the first.
CIRCUITS: Implementations[Callable[..., Any]] = Implementations(FC.cortical_circuit)
