"""From the currents of a population to its spikes: divisive inhibition, stabilisation, division, gain, bias and LIF."""

from torch import Tensor

from eisnn.functional.circuit import integrate
from eisnn.functional.folded import split_currents
from eisnn.functional.lif import LIFConstants, lif


def population(
    currents: Tensor,
    weight: Tensor,
    gain_e: Tensor,
    bias: Tensor,
    constants: LIFConstants,
    v: Tensor | None = None,
    time_steps: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Spikes of an E population over all time steps, eqs. (13)-(15) as written, which `eisnn.ops.population` does fast.

    Args:
        currents: `I_EE - I_sub` and `I_IE` stacked, `[T, B, n_E + n_I, ...]`; or `[1, B, n_E + n_I, ...]` with
            `time_steps=T` for a static input.
        weight: `M = W_EI diag(g_I)` `[n_E, n_I]`, >= 0.
        gain_e, bias: `[n_E]`.
        constants: of the LIF neuron.
        v: potential before the first step, `[B, n_E, ...]`; None is 0.
        time_steps: T, where `currents` holds a single step.
    Returns: spikes `[T, B, n_E, ...]` and the potential after the last step `[B, n_E, ...]`.
    """
    return lif(integrate(*split_currents(currents, weight), gain_e, bias), constants, v, time_steps)
