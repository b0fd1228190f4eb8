"""The network of a cortical layer, linearised at an operating point: does it return to it?"""

from typing import NamedTuple

import torch
from torch import Tensor

from eisnn.functional import cortex as FC
from eisnn.functional.connection import per_neuron

SETTLING, AVERAGED = 100, 100  # steps of the linear network before and while its growth is measured


class OperatingPoint(NamedTuple):
    """Where a layer is linearised.

    current_gain  [n_E]   change of `I_E` by a change of `N`: `g_E` over the mean divisive current
    rate_gain             change of the rate of E cells, spikes a step, by a lasting change of `I_E`; a mean over cells
    """

    current_gain: Tensor
    rate_gain: float


def linear_step(
    state: FC.CorticalState, w: FC.CorticalWeights, c: FC.CorticalConstants, point: OperatingPoint
) -> FC.CorticalState:
    """One step of small deviations from the operating point; `v` is that of the rate of E cells, which follows its
    current with the time constant of the membrane. The divisor is held: around balance, `N = 0`, it changes nothing."""

    def follow(population: str, current: Tensor, before: FC.Interneurons) -> FC.Interneurons:
        u = c.decay[population] * before.u + (1 - c.decay[population]) * current
        return FC.Interneurons(u, c.inhibitory * before.trace + (1 - c.inhibitory) * u)

    onto, e = FC.onto, state.history[:, 0]
    pv_in = (
        onto(e, w.recurrent_pe, c.recurrent) - onto(state.pv.trace, w.weight_pp) - onto(state.sst.trace, w.weight_ps)
    )
    pv = follow("PV", pv_in, state.pv)
    sst = follow("SST", onto(e, w.recurrent_se, c.surround) - onto(state.vip.trace, w.weight_sv), state.sst)
    vip = follow("VIP", onto(e, w.recurrent_ve, c.recurrent) - onto(state.sst.trace, w.weight_vs), state.vip)
    balanced = onto(e, w.recurrent_ee, c.recurrent) - onto(pv.trace, w.weight_ep) - onto(state.sst.trace, w.weight_es)
    drive = point.rate_gain * per_neuron(point.current_gain, state.v[None]) * balanced
    v = c.lif.decay * state.v + (1 - c.lif.decay) * drive
    passed_on = c.excitatory * state.history[:, -1] + (1 - c.excitatory) * v
    return FC.CorticalState(
        v, torch.cat([state.history[:, 1:], passed_on[:, None]], 1), state.feedforward, pv, sst, vip
    )


@torch.no_grad()
def largest_eigenvalue(
    currents: Tensor, weights: FC.CorticalWeights, constants: FC.CorticalConstants, point: OperatingPoint
) -> float:
    """Modulus of the largest eigenvalue of the linearised network, in one step: below 1 deviations die out. By power
    iteration, so without a matrix.

    Args:
        currents: `[T, B, n_E + n_PV, ...]`, for the size of the maps.
        weights, constants: of the layer. Without recurrence from E cells the answer is 0: nothing returns to them.
    """
    if weights.recurrent_ee is None:
        return 0.0
    state = FC.start_state(currents[:1, :1].double(), weights, constants)
    double = FC.CorticalWeights(*(None if w is None else w.double() for w in weights))  # type: ignore[arg-type]
    point = OperatingPoint(point.current_gain.double(), point.rate_gain)
    # A cell more than its neighbours, so that all modes take part.
    start = 1 + torch.linspace(-0.5, 0.5, state.v.numel(), device=state.v.device, dtype=torch.float64)
    state = state._replace(v=start.view_as(state.v))
    growth = 0.0
    for step in range(SETTLING + AVERAGED):
        state = linear_step(state, double, constants, point)
        size = float(sum(part.square().sum() for part in _parts(state)) ** 0.5)
        if size == 0:
            return 0.0
        state = FC.CorticalState(
            state.v / size, state.history / size, state.feedforward,
            *(FC.Interneurons(u / size, trace / size) for u, trace in state[3:]),
        )  # fmt: skip
        growth += torch.log(torch.tensor(size)).item() if step >= SETTLING else 0.0
    return float(torch.tensor(growth / AVERAGED).exp())


def _parts(state: FC.CorticalState) -> list[Tensor]:
    return [state.v, state.history, *(part for neurons in state[3:] for part in neurons)]
