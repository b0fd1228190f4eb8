"""A cortical circuit over all steps: `eisnn.functional.cortex.cortical_circuit` by the back end that serves it."""

from torch import Tensor

from eisnn.functional import cortex as FC
from eisnn.functional.checks import check_steps
from eisnn.ops.backends import exporting
from eisnn.ops.cortex.torch import CIRCUITS


def scans(currents: Tensor, weights: FC.CorticalWeights, constants: FC.CorticalConstants) -> bool:
    """Whether `cortical_circuit` takes all steps in one compiled call."""
    return not exporting() and CIRCUITS.name(currents, weights, constants) == "compiled"


def cortical_circuit(
    currents: Tensor,
    weights: FC.CorticalWeights,
    constants: FC.CorticalConstants,
    state: FC.CorticalState | None = None,
    time_steps: int | None = None,
    top_down: Tensor | None = None,
) -> tuple[Tensor, FC.CorticalState]:
    """As `eisnn.functional.cortex.cortical_circuit`, whose arguments it takes but for `stimuli` and `see`."""
    steps = check_steps("cortical_circuit", currents.shape, time_steps)
    state = FC.start_state(currents, weights, constants) if state is None else state
    serve = CIRCUITS.made["torch"] if exporting() else CIRCUITS(currents, weights, constants)
    return serve(currents, weights, constants, state, steps, top_down)
