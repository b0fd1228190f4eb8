"""The cortical circuit on a GPU, step by step: division, gain, bias and membrane of the E cells are the population
operation's, a Triton kernel each way; the rest is torch's.

Not measured on a GPU. On a CPU it gains nothing over the steps as written.
"""

import torch
from torch import Tensor

from eisnn.functional import cortex as FC
from eisnn.ops.backends import in_triton
from eisnn.ops.cortex.torch import CIRCUITS
from eisnn.ops.population.op import population


@CIRCUITS.register("triton", lambda currents, *_: in_triton(currents))
def by_steps(
    currents: Tensor,
    weights: FC.CorticalWeights,
    constants: FC.CorticalConstants,
    state: FC.CorticalState,
    steps: int,
    top_down: Tensor | None,
) -> tuple[Tensor, FC.CorticalState]:
    """`cortical_circuit` with the population operation for the E cells of each step."""
    currents = FC.leaky(currents.expand(steps, *currents.shape[1:]), constants.excitatory, state.feedforward)
    divisive = FC.onto_e(weights) * weights.gain_p
    tonic = weights.sigma is not None
    if tonic:
        divisive = torch.cat([divisive, weights.sigma[:, None]], 1)  # type: ignore[index]
    spikes = []
    for t, feedforward in enumerate(currents):
        given = None if top_down is None else top_down[min(t, len(top_down) - 1)]
        driven = FC.drive(feedforward, state, weights, constants, given)
        stacked = [driven.balanced, driven.pv.trace]
        if tonic:
            stacked.append(torch.ones_like(driven.pv.trace[:, :1]))
        fired, v = population(
            torch.cat(stacked, 1)[None], divisive, weights.gain_e, weights.bias, constants.lif, state.v, 1, tonic=tonic
        )
        state = FC.after(state, feedforward, driven, fired[0], v, constants)
        spikes.append(fired)
    return torch.cat(spikes), state
