"""E-I Init of cortical circuits: any time step, balance of what the layer's own spikes evoke, stability.

The layer below is balanced as in E-I Init, here row by row. With J the mean excitation from there and r the mean rate
of the E cells, spikes a step, recurrent excitation is `R = rho / (1 - rho) J`: the rows of `R_EE` sum to `R / r`, and
those onto interneurons so that these take away as much.

The scale is that of the membrane without threshold, for which E-I Init's `std(I_E) = 1` and tau = 2 stand: white
current of variance `(1 - a^2) / 0.75`, a = 1 - 1/tau, gives it the same fluctuation for any tau. The same rate needs
less: short steps see crossings of the threshold that long ones miss, as if it were lower by
`0.5826 std(V) sqrt(2 / tau)` (after Broadie, Glasserman and Kou 1997), which the aim corrects. The division is scaled
until the membrane has it.
"""

from math import sqrt
from typing import Any

import torch
from torch import Tensor, distributed

from eisnn import functional as EF
from eisnn.cortex import CorticalLayer, OperatingPoint, largest_eigenvalue
from eisnn.functional import cortex as FC
from eisnn.init.from_data import adjust_, exponential_weights, fill_
from eisnn.init.statistics import InputStatistics, inhibitory_gain, standard_deviation, sum_over, weight_scale

WITHIN = 0.05  # of rates and scale, when the search ends
ROUNDS = 30
LEAST_RATE = 1.0  # Hz
TWO_STEPS = 0.75  # 1 - a^2 of tau = 2
BARRIER = 0.5826  # -zeta(1/2) / sqrt(2 pi)
RECURRENT = ("recurrent_ee", "recurrent_pe", "recurrent_se", "recurrent_ve")


@fill_.register
@torch.no_grad()
def _(
    layer: CorticalLayer, statistics: InputStatistics, generator: torch.Generator | None = None, group: Any = None
) -> None:
    """Exponential weights whose rows have the same sums, gains as in E-I Init; recurrent rows sum to 1 until
    `adjust_` has measured rates."""
    d, o = layer.fan_in, layer.options
    scale = weight_scale(statistics, d)
    totals = dict.fromkeys(RECURRENT, 1.0) | {"weight_ee": d * scale, "weight_pe": d * scale / (1 - o.sst_pv)}
    for name, total in totals.items():
        weight = getattr(layer, name)
        if weight is None:
            continue
        drawn = exponential_weights(weight.shape, scale, generator)
        weight.copy_(EF.conserve(drawn, torch.tensor(total)))
        if group is not None:
            distributed.broadcast(weight, group=group, group_src=0)
    mutual = o.vip / (1 - o.vip)
    rows = {"weight_ep": 1 + o.pv_pv, "weight_pp": o.pv_pv, "weight_es": 1.0, "weight_sv": 1.0, "weight_vs": mutual**2}
    for name, total in rows.items():
        if (weight := getattr(layer, name)) is not None:
            weight.fill_(total / weight.shape[1])
    gain = inhibitory_gain(statistics, d)
    layer.gain_p.fill_(gain * (1 - o.semisaturation))
    layer.gain_e.fill_(1)
    layer.bias.fill_(0)
    if layer.sigma is not None:
        layer.sigma.fill_(1)
    layer.sigma_unit.fill_(o.semisaturation * gain * d * scale * statistics.mean)
    layer.initialized = True


@adjust_.register
@torch.no_grad()
def _(layer: CorticalLayer, x: Tensor, group: Any = None, time_steps: int | None = None) -> None:
    """Measure the rates and the membrane, set recurrence and division, and again until both have settled.

    A layer that hardly fires gets the recurrence of one that fires at `LEAST_RATE`.

    Raises: ValueError if the search does not settle, or if the linearised network is unstable.
    """
    o, name, steps = layer.options, type(layer).__name__, time_steps or len(x)
    currents = layer.feedforward(x, layer.weights())
    n_e = layer.sizes["E"]
    excitation = _mean(currents[:, :, :n_e], group)
    recurrent = excitation * o.recurrence / (1 - o.recurrence)
    a = layer.neuron.constants.decay
    aim = membrane_aim(layer.neuron.constants.tau, steps)
    _set_recurrence(layer, excitation, recurrent, None)
    # Without recurrence first, whose operating point says whether the loop may be closed; then by half of each
    # correction, as the layer answers all of them.
    used, least = None, LEAST_RATE * o.dt / 1000
    for _ in range(ROUNDS):
        seen: list[FC.CorticalStep] = []
        spikes, _ = FC.cortical_circuit(currents, layer.weights(), layer.constants, None, steps, see=seen.append)
        i_e = torch.stack([step.i_e for step in seen])
        factor, rate = standard_deviation(_free_membrane(i_e, a), group) / aim, max(_mean(spikes, group), least)
        scaled = abs(factor - 1) < WITHIN
        if not scaled:
            layer.scale_division_(factor if used is None else sqrt(factor))
        if scaled and not o.recurrence:
            return
        if used is None and scaled:
            used = rate
            _set_recurrence(layer, excitation, recurrent, used)
            _require_stability(layer, currents, seen, group)
        elif used is not None:
            if scaled and abs(rate / used - 1) < WITHIN:
                _require_stability(layer, currents, seen, group)
                return
            used = sqrt(rate * used)
            _set_recurrence(layer, excitation, recurrent, used)
    raise ValueError(
        f"E-I Init: rates and membrane of {name} did not settle within {ROUNDS} rounds (the last rate was {rate:.3g} "
        f"spikes a step, the membrane {factor:.3g} times its aim): give a longer first batch or less recurrence than "
        f"{o.recurrence}"
    )


def _require_stability(layer: CorticalLayer, currents: Tensor, seen: list[FC.CorticalStep], group: Any) -> None:
    """Raise ValueError, naming the largest eigenvalue, if the network linearised around `seen` is unstable."""
    i_e = torch.stack([step.i_e for step in seen])
    point = OperatingPoint(_current_gain(layer, seen, group), _rate_gain(i_e, layer.neuron.constants, group))
    largest = largest_eigenvalue(currents, layer.weights(), layer.constants, point)
    if largest >= 1:
        raise ValueError(
            f"E-I Init: with recurrence {layer.options.recurrence} the linearised network of {type(layer).__name__} is "
            f"unstable: its largest eigenvalue has the modulus {largest:.3f}, and must be below 1; give less "
            f"recurrence, a shorter dt than {layer.options.dt:g} ms, or faster inhibition"
        )


def membrane_aim(tau: float, steps: int) -> float:
    """Standard deviation of the membrane without threshold over the first `steps` steps from 0, at which the rate in Hz
    is that of tau = 2 and `std(I_E) = 1`."""
    settled = 1 / (sqrt(TWO_STEPS) + BARRIER * (1 - sqrt(2 / tau)))
    a = 1 - 1 / tau
    return settled * sqrt(sum(1 - a ** (2 * t) for t in range(1, steps + 1)) / steps)


def _set_recurrence(layer: CorticalLayer, excitation: float, recurrent: float, rate: float | None) -> None:
    """Scale what E cells of the layer excite for their mean `rate` (None: to nothing yet), and what SST cells take."""
    o = layer.options
    evoked = 0.0 if rate is None else recurrent / rate
    sst = o.sst * evoked / (1 - o.vip)
    totals = (evoked, (1 - o.sst) * evoked / (1 - o.sst_pv), sst, sst * o.vip / (1 - o.vip))
    for name, total in zip(RECURRENT, totals, strict=True):
        if (weight := getattr(layer, name)) is not None:
            # An all-zero row keeps no shape to scale: the smallest stands for nothing.
            weight.mul_(max(total, 1e-12) / weight.flatten(1).sum(1).mean())
    if layer.weight_ps is not None:
        driven = excitation + (1 - o.sst) * recurrent
        taken = o.sst_pv / (1 - o.sst_pv) * driven / (o.sst * recurrent)
        layer.weight_ps.fill_(taken / layer.weight_ps.shape[1])
    if o.spiking:
        p = o.interneuron_rate * o.dt / 1000
        sst_output = o.sst * recurrent
        means = {
            "PV": (excitation + (1 - o.sst) * (0 if rate is None else recurrent)) / (1 + o.pv_pv),
            "SST": sst_output,
            "VIP": sst_output * o.vip / (1 - o.vip),
        }
        for kind, mean in means.items():
            getattr(layer, f"quantum_{kind}").fill_(mean / p if mean else 1)


def _free_membrane(i_e: Tensor, a: float) -> Tensor:
    """Potential that never meets a threshold, `[T, B, n_E, ...]`, less its mean at each step: what all cells share, as
    when inhibition comes later than excitation at the start of a stimulus, drives none of them rather than another."""
    v = FC.leaky(i_e, a, torch.zeros_like(i_e[0])) / (1 - a) if a < 1 else i_e.cumsum(0)
    return v - v.flatten(1).mean(1).view(-1, *(1,) * (v.ndim - 1))


def _mean(values: Tensor, group: Any) -> float:
    sums = torch.stack([values.double().sum(), values.new_tensor(values.numel(), dtype=torch.float64)])
    sum_over(sums, group)
    return float(sums[0] / sums[1])


def _current_gain(layer: CorticalLayer, seen: list[FC.CorticalStep], group: Any) -> Tensor:
    """`g_E` over the mean divisive current of each E cell (channel)."""
    divisor = torch.stack([step.i_div for step in seen]).double().transpose(0, 2).flatten(1).mean(1)
    if group is not None:
        distributed.all_reduce(divisor, group=group)
        divisor /= distributed.get_world_size(group)
    return layer.gain_e.double() / divisor.clamp_min(1e-3 * float(divisor.mean()))


def _rate_gain(i_e: Tensor, lif: EF.LIFConstants, group: Any, step: float = 0.02) -> float:
    """Change of the mean rate by a small lasting change of the current that was measured."""
    up, down = (_mean(EF.lif(i_e + sign * step, lif)[0], group) for sign in (1, -1))
    return (up - down) / (2 * step)
