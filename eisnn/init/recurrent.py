"""E-I Init of cortical circuits: any time step, balance of what the layer's own spikes evoke, stability.

The layer below is balanced as in E-I Init, here row by row. With J the mean excitation from there and r the mean rate
of the E cells, spikes a step, recurrent excitation is `R = rho / (1 - rho) J`: the rows of `R_EE` sum to `R / r`, and
those onto interneurons so that these take away as much. With `feedback_inhibition` the layer's own spikes evoke another
share of the inhibition than of the excitation, and the layer below the rest, so that the sums still balance.

The scale is that at which E cells fire as E-I Init makes them fire, in Hz, whatever the time step: as often for each
time constant of the membrane as an LIF neuron of tau = 2 steps under white currents of mean 0 and standard deviation 1.
The standard deviation itself would not do: at shorter steps crossings of the threshold are seen that long ones miss,
and where E and PV cells excite and inhibit one another, cells fluctuate together, the more the shorter the step.

Sequences begin at 0, so that inhibition lags in the first steps and E cells fire in a burst, the larger the shorter the
step. What is measured is therefore measured after `onset`, where sequences are long enough to settle.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, distributed

from eisnn import functional as EF
from eisnn import ops
from eisnn.cortex import CorticalLayer, OperatingPoint, largest_eigenvalue
from eisnn.functional import cortex as FC
from eisnn.init.from_data import adjust_, exponential_weights, fill_
from eisnn.init.statistics import (
    InputStatistics,
    inhibitory_gain,
    mean_over,
    scale_for_rate,
    sum_over,
    weight_scale,
)

WITHIN = 0.03  # of the rate, when the search ends
FAR = 0.25  # of the rate: then there is no scale that gives it
SETTLING = 5  # time constants of the membrane, until the burst at the onset is over
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
    totals = dict.fromkeys(RECURRENT, 1.0) | {
        "weight_ee": d * scale,
        "weight_pe": d * scale * o.inhibition[0] / (1 - o.sst_pv),
    }
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
    """Set recurrence for the rate that is aimed at, and scale the division until E cells fire at it.

    Raises: ValueError if there is no such scale, or if the linearised network is unstable.
    """
    o, name, steps = layer.options, type(layer).__name__, time_steps or len(x)
    currents = layer.feedforward(x, layer.weights())
    of_e = currents[:, :, : layer.sizes["E"]]
    excitation = mean_over(of_e, group)
    recurrent, fed_back = excitation * o.recurrence / (1 - o.recurrence), excitation * o.inhibition[1]
    aim, first = rate_aim(layer.neuron.constants), onset(layer.neuron.constants, steps)

    def rate(scale: float, currents: Tensor = currents) -> float:
        layer.scale_division_(1 / scale)
        spikes, _ = ops.cortical_circuit(currents, layer.weights(), layer.constants, None, steps)
        layer.scale_division_(scale)
        return mean_over(spikes[first:], group)

    def watch(currents: Tensor = currents) -> list[FC.CorticalStep]:
        seen: list[FC.CorticalStep] = []
        FC.cortical_circuit(currents, layer.weights(), layer.constants, None, steps, see=seen.append)
        return seen[first:]

    # Without recurrence first, whose operating point says whether the loop may be closed. As far as the layer's own
    # spikes evoke more inhibition than excitation, it is then constant.
    cut = currents.clone()
    cut[:, :, layer.sizes["E"] :] += (fed_back - recurrent) / (1 - o.sst_pv)
    _set_recurrence(layer, excitation, recurrent, fed_back, None)
    layer.scale_division_(1 / scale_for_rate(partial(rate, currents=cut), aim, WITHIN))
    if o.recurrence:
        seen = watch(cut)
        _set_recurrence(layer, excitation, recurrent, fed_back, aim)
        _require_stability(layer, currents, seen, group)
        layer.scale_division_(1 / scale_for_rate(rate, aim, WITHIN))
    found, chances = rate(1.0), of_e.new_tensor(of_e[0].numel() * (steps - first), dtype=torch.float64)
    sum_over(chances, group)
    if abs(found - aim) > FAR * aim + 2 / float(chances):
        raise ValueError(
            f"E-I Init: {name} fires {found:.3g} spikes a step at the scale where it should fire {aim:.3g}: give a "
            f"first batch that is longer or whose inputs differ, or less recurrence than {o.recurrence}"
        )
    if o.recurrence:
        _require_stability(layer, currents, watch(), group)


def rate_aim(constants: EF.LIFConstants, cells: int = 4096, steps: int = 200) -> float:
    """Spikes a step of the E neurons that E-I Init aims at: for each time constant, what the same neuron of tau = 2
    fires under white currents of mean 0 and standard deviation 1."""
    white = torch.randn(steps, cells, generator=torch.Generator().manual_seed(0))
    return float(EF.lif(white, replace(constants, tau=2.0))[0].mean()) * 2 / constants.tau


def onset(constants: EF.LIFConstants, steps: int) -> int:
    """Steps that are left out of measurements: `SETTLING` time constants of the membrane, or none of a sequence that
    would not be at least twice as long, and is learned as it begins."""
    settling = round(SETTLING * constants.tau)
    return settling if steps >= 2 * settling else 0


def _require_stability(layer: CorticalLayer, currents: Tensor, seen: list[FC.CorticalStep], group: Any) -> None:
    """Raise ValueError, naming the largest eigenvalue, if the network linearised around `seen` is unstable."""
    i_e, i_div = (torch.stack([getattr(step, name) for step in seen]) for name in ("i_e", "i_div"))
    point = operating_point(layer, i_e, i_div, group)
    largest = largest_eigenvalue(currents, layer.weights(), layer.constants, point)
    if largest >= 1:
        raise ValueError(
            f"E-I Init: with recurrence {layer.options.recurrence} the linearised network of {type(layer).__name__} is "
            f"unstable: its largest eigenvalue has the modulus {largest:.3f}, and must be below 1; give less "
            f"recurrence, a shorter dt than {layer.options.dt:g} ms, or faster inhibition"
        )


def _set_recurrence(
    layer: CorticalLayer, excitation: float, recurrent: float, fed_back: float, rate: float | None
) -> None:
    """Scale what E cells of the layer excite for their mean `rate` (None: to nothing yet), and what SST cells take.

    Args:
        excitation: mean excitation of E cells from the layer below; `recurrent` that from the layer itself.
        fed_back: mean inhibition that E cells of the layer evoke.
    """
    o = layer.options
    excited, inhibited = (0.0 if rate is None else mean / rate for mean in (recurrent, fed_back))
    sst = o.sst * inhibited / (1 - o.vip)
    totals = (excited, (1 - o.sst) * inhibited / (1 - o.sst_pv), sst, sst * o.vip / (1 - o.vip))
    for name, total in zip(RECURRENT, totals, strict=True):
        if (weight := getattr(layer, name)) is not None:
            # An all-zero row keeps no shape to scale: the smallest stands for nothing.
            weight.mul_(max(total, 1e-12) / weight.flatten(1).sum(1).mean())
    from_below = excitation * o.inhibition[0]
    if layer.weight_ps is not None:
        driven = from_below + (1 - o.sst) * fed_back
        taken = o.sst_pv / (1 - o.sst_pv) * driven / (o.sst * fed_back)
        layer.weight_ps.fill_(taken / layer.weight_ps.shape[1])
    if o.spiking:
        p = o.interneuron_rate * o.dt / 1000
        sst_output = o.sst * fed_back
        means = {
            "PV": (from_below + (1 - o.sst) * (0 if rate is None else fed_back)) / (1 + o.pv_pv),
            "SST": sst_output,
            "VIP": sst_output * o.vip / (1 - o.vip),
        }
        for kind, mean in means.items():
            getattr(layer, f"quantum_{kind}").fill_(mean / p if mean else 1)


def operating_point(layer: CorticalLayer, i_e: Tensor, i_div: Tensor, group: Any = None) -> OperatingPoint:
    """Where `layer` is linearised that had these currents, `[T, B, n_E, ...]`."""
    return OperatingPoint(_current_gain(layer, i_div, group), _rate_gain(i_e, layer.neuron.constants, group))


def _current_gain(layer: CorticalLayer, i_div: Tensor, group: Any) -> Tensor:
    """`g_E` over the mean divisive current of each E cell (channel)."""
    divisor = i_div.double().transpose(0, 2).flatten(1)
    sums = torch.cat([divisor.sum(1), divisor.new_tensor([divisor.shape[1]])])
    sum_over(sums, group)
    mean = sums[:-1] / sums[-1]
    return layer.gain_e.double() / mean.clamp_min(1e-3 * float(mean.mean()))


def _rate_gain(i_e: Tensor, lif: EF.LIFConstants, group: Any, step: float = 0.02) -> float:
    """Change of the mean rate by a small lasting change of the current that was measured."""
    up, down = (mean_over(EF.lif(i_e + sign * step, lif)[0], group) for sign in (1, -1))
    return (up - down) / (2 * step)
