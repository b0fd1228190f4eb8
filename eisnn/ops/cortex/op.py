"""A cortical circuit over all steps: `eisnn.functional.cortex.cortical_circuit` by the back end that serves it."""

from typing import Any

from torch import Tensor

from eisnn.functional import cortex as FC
from eisnn.functional.checks import check_steps
from eisnn.ops.backends import exporting
from eisnn.ops.cortex.torch import CIRCUITS

# The axes of each weight: cells of E, PV, SST and VIP by their letter.
CELLS = {
    **{f"recurrent_{letter}e": f"{letter}e" for letter in "epsv"},
    **{f"weight_{pair}": pair for pair in ("ep", "pp", "ps", "es", "sv", "vs")},
    **{"gain_p": "p", "gain_e": "e", "bias": "e", "sigma": "e"},
}


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
    """As `eisnn.functional.cortex.cortical_circuit`, whose arguments it takes but for `stimuli` and `see`.

    Raises: ValueError for a number of steps, a shape or a device that does not fit.
    """
    steps = check_steps("cortical_circuit", currents.shape, time_steps)
    start = FC.start_state(currents, weights, constants)
    state = start if state is None else state
    _check(currents, weights, state, start, top_down)
    serve = CIRCUITS.made["torch"] if exporting() else CIRCUITS(currents, weights, constants)
    return serve(currents, weights, constants, state, steps, top_down)


def _check(
    currents: Tensor, weights: FC.CorticalWeights, state: FC.CorticalState, start: FC.CorticalState, top_down: Any
) -> None:
    """Raise ValueError unless all fit one another: a compiled routine would read and write beyond its arrays."""

    def require(what: str, given: Any, wanted: Any) -> None:
        if given != wanted:
            raise ValueError(f"cortical_circuit: {what} must be {wanted}, got {given}")

    n = {"e": len(weights.weight_ee), "p": len(weights.weight_pe)}
    n |= {"s": start.sst.u.shape[1], "v": start.vip.u.shape[1]}
    require("the shape of currents [T, B, n_E + n_PV, ...] at its third axis", currents.shape[2], n["e"] + n["p"])
    for name, cells in CELLS.items():
        if (weight := getattr(weights, name)) is not None:
            axes = len(cells) if name.startswith("recurrent") else weight.ndim
            require(f"the shape of {name}", list(weight.shape[:axes]), [n[letter] for letter in cells])
            require(f"the device of {name}", weight.device, currents.device)
    reached = [letter for letter in "epsv" if getattr(weights, f"recurrent_{letter}e") is not None]
    if reached or n["s"]:
        require("the kinds of cells that recurrent weights reach", reached, [letter for letter in "epsv" if n[letter]])
    if top_down is not None and not n["v"]:
        raise ValueError("cortical_circuit: top_down is current onto VIP cells, of which there are none")
    for part, like in zip(_tensors(state), _tensors(start), strict=True):
        require("the shape of each part of the state", list(part.shape), list(like.shape))
        require("the device of the state", part.device, like.device)


def _tensors(state: FC.CorticalState) -> list[Tensor]:
    return [*state[:3], *(part for cells in state[3:] for part in cells)]
