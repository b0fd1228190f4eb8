"""What theory says of recurrent circuits with cell types, on `eisnn.cortex` layers: each phenomenon with a number
beside its prediction, and a figure.

Layers are drawn and filled by E-I Init, once for each seed; inputs are Poisson spikes of 20 Hz. Predictions are of the
linearised circuit, whose coefficients are measured open loop: the loop is cut where spikes of E cells return to the
layer, and other spikes return instead. Nothing is fitted to what is predicted.

    python experiments/cortical_phenomena.py --output experiments/results/cortical_phenomena
"""

import argparse
import copy
import json
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import eisnn
from eisnn import functional as EF
from eisnn import ops
from eisnn.analysis import cross_correlation, peak_frequency, power_spectrum, spike_count_correlation, spike_counts
from eisnn.analysis.figures import BLUE, GREEN, GREY, ORANGE, PINK, SKY, bare
from eisnn.cortex import CorticalConv2d, CorticalLayer, CorticalLinear, CorticalOptions, Stimulus
from eisnn.functional import cortex as FC
from eisnn.init.recurrent import rate_aim
from eisnn.init.statistics import scale_for_rate
from eisnn.provenance import provenance, write_result

RATE = 20.0  # of inputs, Hz
ONSET = 200.0  # ms at the start of each sequence that are left out
INPUTS, CELLS = 200, 100
Run = dict[
    str, Any
]  # `told`: by row the number that was measured and the one that theory gives, None without; `curves`


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def poisson(dt: float, ms: float, batch: int, seed: int, inputs: tuple[int, ...] = (INPUTS,)) -> Tensor:
    """Spikes of `RATE`, `[T, B, *inputs]`."""
    return (torch.rand(round(ms / dt), batch, *inputs, generator=rng(seed)) < RATE * dt / 1000).float()


def drawn(seed: int, **options: Any) -> CorticalLinear:
    layer = CorticalLinear(INPUTS, CELLS, options=CorticalOptions(**options))
    eisnn.ei_init_(layer, poisson(layer.options.dt, 600, 8, seed), generator=rng(100 + seed))
    return layer.requires_grad_(False)


def watch(
    layer: CorticalLayer,
    currents: Tensor,
    names: Sequence[str] = ("s_e",),
    weights: FC.CorticalWeights | None = None,
    top_down: Tensor | None = None,
    **stimuli: Stimulus,
) -> dict[str, Tensor]:
    """What happens after the onset, `[T, B, n, ...]`, by its name in `CorticalStep`."""
    seen: list[dict[str, Tensor]] = []
    FC.cortical_circuit(
        currents,
        layer.weights() if weights is None else weights,
        layer.constants,
        top_down=top_down,
        stimuli=stimuli,
        see=lambda step: seen.append({name: getattr(step, name) for name in names}),
    )
    return {name: torch.stack([step[name] for step in seen[late(layer)]]) for name in names}


def late(layer: CorticalLayer) -> slice:
    return slice(round(ONSET / layer.options.dt), None)


def feedforward(layer: CorticalLayer, x: Tensor) -> Tensor:
    return layer.feedforward(x, layer.weights())


def total(weight: Tensor | None) -> float:
    """Sum of a row; rows have the same."""
    return 0.0 if weight is None else float(weight.flatten(1).sum(1).mean())


# What is predicted -------------------------------------------------------------------------------------------------


class Gains(NamedTuple):
    """Change of the rate of E cells, spikes a step, by lasting small changes: of all `N`; and of the output of PV
    cells, which subtract and divide, its negative."""

    by_excitation: float
    by_pv: float


def gains(layer: CorticalLayer, seen: dict[str, Tensor], change: float = 0.02) -> Gains:
    """Open loop: E cells alone, driven by the currents that were recorded, a little changed."""
    w, i_e, i_div = layer.weights(), seen["i_e"], seen["i_div"]
    gain, bias = (EF.per_neuron(each, i_e) for each in (w.gain_e, w.bias))
    balanced, small = (i_e - bias) * i_div / gain, change * float(seen["i_sub"].mean())

    def rate(more: float, divided: float = 0.0) -> float:
        return float(EF.lif(gain * (balanced + more) / (i_div + divided) + bias, layer.neuron.constants)[0].mean())

    sub, div = small * total(w.weight_ep), small * total(w.weight_ep * w.gain_p)
    by_pv = (rate(sub, -div) - rate(-sub, div)) / (2 * small)
    return Gains((rate(small) - rate(-small)) / (2 * small), by_pv)


def response(layer: CorticalLayer, of: Gains, pv: float = 0.0, vip: float = 0.0) -> list[float]:
    """Changes of the outputs of E, PV, SST and VIP cells of the linearised circuit, by small lasting drives."""
    w, a, b = layer.weights(), *of
    loop = [
        [1 - a * total(w.recurrent_ee), b, a * total(w.weight_es), 0],
        [-total(w.recurrent_pe), 1 + total(w.weight_pp), total(w.weight_ps), 0],
        [-total(w.recurrent_se), 0, 1, total(w.weight_sv)],
        [-total(w.recurrent_ve), 0, total(w.weight_vs), 1],
    ]
    drive = torch.tensor([0.0, pv, 0.0, vip], dtype=torch.float64)
    return torch.linalg.solve(torch.tensor(loop, dtype=torch.float64), drive).tolist()


TONES = torch.arange(4.0, 124.0, 4.0)  # Hz; whole periods in the second that is measured


def cut(layer: CorticalLayer) -> FC.CorticalWeights:
    """The weights without those by which spikes of the layer return to it."""
    return layer.weights()._replace(recurrent_ee=None, recurrent_pe=None)


def returning(layer: CorticalLayer, spikes: Tensor) -> Tensor:
    """What `spikes` `[T, B, n_E]` would excite in the layer, as currents from outside."""
    w, delay = layer.weights(), layer.options.steps_delay
    delayed = torch.cat([torch.zeros_like(spikes[:delay]), spikes[:-delay]])
    return delayed @ torch.cat([w.recurrent_ee, w.recurrent_pe]).T


def fired(layer: CorticalLayer, currents: Tensor) -> Tensor:
    """Spikes of E cells after the onset, with the loop cut."""
    return ops.cortical_circuit(currents, cut(layer), layer.constants)[0][late(layer)]


def evoked(layer: CorticalLinear, currents: Tensor) -> Tensor:
    """The inhibition of E cells by currents onto E and PV cells, `[T, B, n_E]`; PV cells and synapses are linear."""
    c = layer.constants
    pv = smoothed(currents[:, :, CELLS:], c.excitatory, c.decay["PV"], c.inhibitory)
    return pv[late(layer)] @ layer.weights().weight_ep.T


def received(layer: CorticalLinear, currents: Tensor) -> Tensor:
    """The excitation of E cells by currents onto E and PV cells, `[T, B, n_E]`."""
    return smoothed(currents[:, :, :CELLS], layer.constants.excitatory)[late(layer)]


def smoothed(currents: Tensor, *decays: float) -> Tensor:
    for decay in decays:
        currents = FC.leaky(currents, decay, torch.zeros_like(currents[0]))
    return currents


def loop_gain(layer: CorticalLinear, x: Tensor, spikes: Tensor, depth: float = 0.05) -> Tensor:
    """L `[F]` at `TONES`, complex: what returns of a modulation of the rate of E cells once through the open loop.

    The spikes that were recorded return, modulated at all tones at once. The half from E cells to the inhibition that
    they evoke is linear, so what is measured is exact; the half from inhibition to E cells is smoothed over the tones
    by a constant and a low pass of the membrane.
    """
    dt = layer.options.dt
    t, phases = torch.arange(len(x)) * dt / 1000, 2 * math.pi * torch.rand(len(TONES), 1, generator=rng(0))
    tones = torch.cos(2 * math.pi * TONES[:, None] * t + phases).sum(0) * depth * float(spikes.mean())
    modulated = returning(layer, tones[:, None, None].expand(-1, 1, CELLS))
    driven = feedforward(layer, x) + returning(layer, spikes)
    rate = (fired(layer, driven + modulated) - fired(layer, driven - modulated)).mean((1, 2)) / 2
    inhibition = evoked(layer, modulated).mean((1, 2))
    at = (TONES * len(rate) * dt / 1000).round().long()
    given, inhibition, rate = (torch.fft.rfft(each)[at] for each in (tones[late(layer)], inhibition, rate))
    to_inhibition = inhibition / given
    decay = layer.neuron.constants.decay
    membrane = (1 - decay) / (1 - decay * torch.exp(-2j * math.pi * TONES * dt / 1000))
    shapes = to_inhibition[:, None] * torch.stack([torch.ones_like(membrane), membrane], 1)
    real = torch.cat([shapes.real, shapes.imag]), torch.cat([(rate / given).real, (rate / given).imag])[:, None]
    return shapes @ torch.linalg.lstsq(*real).solution[:, 0].to(shapes.dtype)


def open_loop(layer: CorticalLinear, x: Tensor) -> tuple[CorticalLinear, Tensor]:
    """The layer whose own spikes return no more, but Poisson spikes of its rate, scaled to fire at that rate; and what
    drives it."""
    aim, opened = rate_aim(layer.neuron.constants), copy.deepcopy(layer)
    spikes = (torch.rand(*x.shape[:2], CELLS, generator=rng(5)) < aim).float()
    currents = feedforward(layer, x) + returning(layer, spikes)

    def rate(scale: float) -> float:
        opened.scale_division_(1 / scale)
        found = float(fired(opened, currents[:, :8]).mean())
        opened.scale_division_(scale)
        return found

    opened.scale_division_(1 / scale_for_rate(rate, aim, 0.01))
    return opened, currents


# a. The paradoxical effect -----------------------------------------------------------------------------------------

RHOS = (0.02, 0.04, 0.06, 0.08, 0.1, 0.15)
DRIVE = 0.01  # extra drive to PV cells, of their mean output


def paradox(seed: int, rhos: Sequence[float] = RHOS, ms: float = 1200, trials: int = 16) -> Run:
    """Drive to PV cells lowers PV where recurrent excitation alone is unstable (Tsodyks et al. 1997)."""
    curves: dict[str, list[float]] = {name: [] for name in ("pv", "pv theory", "e", "e theory", "gain")}
    for rho in rhos:
        layer = drawn(seed, dt=2.0, tau_pv=4.0, delay=2.0, recurrence=rho)
        currents = feedforward(layer, poisson(2.0, ms, trials, 50 + seed))
        seen = watch(layer, currents, ("s_e", "s_pv", "i_e", "i_div", "i_sub"))
        e, pv = (float(seen[name].mean()) for name in ("s_e", "s_pv"))
        up, down = (watch(layer, currents, ("s_e", "s_pv"), PV=Stimulus(current=s * DRIVE * pv)) for s in (1, -1))
        of = gains(layer, seen)
        changed = response(layer, of, pv=DRIVE * pv)
        for name, key, rest, theory in (("s_e", "e", e, changed[0]), ("s_pv", "pv", pv, changed[1])):
            curves[key].append(50 * float((up[name] - down[name]).mean()) / rest)
            curves[f"{key} theory"].append(100 * theory / rest)
        curves["gain"].append(of.by_excitation * total(layer.recurrent_ee))
    onset = crossing(rhos, curves["pv"], 0), crossing(rhos, curves["gain"], 1)
    told = {"rho at which more drive no longer raises PV": onset}
    for k in (0, -1):
        for kind in ("pv", "e"):
            row = f"change of {kind.upper()} at rho = {rhos[k]}, %"
            told[row] = curves[kind][k], curves[f"{kind} theory"][k]
    return {"told": told, "curves": curves}


def crossing(rhos: Sequence[float], values: Sequence[float], level: float) -> float:
    """rho at which a curve first crosses a level."""
    k = next(k for k in range(1, len(values)) if (values[k] - level) * (values[0] - level) <= 0)
    share = (level - values[k - 1]) / (values[k] - values[k - 1])
    return rhos[k - 1] + share * (rhos[k] - rhos[k - 1])


def draw_paradox(figure: Figure, runs: Sequence[Run]) -> None:
    for axes, kind, color in zip(figure.subplots(1, 2), ("pv", "e"), (BLUE, ORANGE), strict=True):
        band(axes, RHOS, [run["curves"][kind] for run in runs], color, "measured")
        theory(axes, RHOS, [run["curves"][f"{kind} theory"] for run in runs], "linearised circuit")
        axes.axhline(0, color=GREY, linewidth=0.6)
        axes.set(xlabel="recurrence, rho", ylabel=f"change of {kind.upper()} by 1 % more drive to PV (%)")
    axes = figure.axes[0]
    onset = statistics.mean(next(iter(run["told"].values()))[1] for run in runs)
    axes.axvline(onset, color=GREY, linestyle=":")
    axes.text(onset, axes.get_ylim()[1], " recurrent excitation\n alone unstable", va="top", fontsize="small")
    axes.legend(frameon=False, fontsize="small", loc="lower left")


# b. Gamma ----------------------------------------------------------------------------------------------------------

RHYTHM = {"dt": 1.0, "recurrence": 0.005, "tau_pv": 4.0, "tau_ampa": 3.0, "tau_gaba": 6.0, "delay": 2.0}
LOOPS: dict[str, dict[str, float]] = {
    "feedback 0.05": {"feedback_inhibition": 0.05},
    "feedback 0.1": {"feedback_inhibition": 0.1},
    "feedback 0.2": {"feedback_inhibition": 0.2},
    "feedback 0.1, GABA 12 ms": {"feedback_inhibition": 0.1, "tau_gaba": 12.0},
    "feedback 0.1, delay 5 ms": {"feedback_inhibition": 0.1, "delay": 5.0},
    "feedback 0.1, fast": {"feedback_inhibition": 0.1, "delay": 1.0, "tau_pv": 3.0, "tau_ampa": 2.0, "tau_gaba": 4.0},
}
BAND = (8.0, 110.0)  # Hz


def gamma(seed: int, loops: Sequence[str] = tuple(LOOPS), trials: int = 24) -> Run:
    """The loop of E and PV cells makes a rhythm where what returns once around it comes in phase."""
    told: dict[str, tuple[float, float | None]] = {}
    curves: dict[str, Any] = {}
    for name in loops:
        layer, x = drawn(seed, **RHYTHM | LOOPS[name]), poisson(1.0, 1200, trials, 50 + seed)
        spikes = layer(x)
        opened, currents = open_loop(layer, x)
        alone, loop = fired(opened, currents), loop_gain(layer, x, spikes)
        found, predicted = spectrum(spikes[late(layer)]), closed(alone, loop)
        told[f"peak, {name}, Hz"] = tuple(float(peak_frequency(TONES, p, BAND).frequency) for p in (found, predicted))
        curves[name] = {"measured": found.tolist(), "theory": predicted.tolist()}
        if name == "feedback 0.1":
            told["phase of L is 0 at, Hz"] = None, in_phase(loop)
            silenced = spectrum(without_pv(layer, x))
            curves["PV silenced"] = {"measured": silenced.tolist()}
            told["power at 24 Hz over that at 4 Hz"] = tuple(float(p[5] / p[0]) for p in (found, predicted))
            told["the same, PV silenced"] = float(silenced[5] / silenced[0]), None
    return {"told": told, "curves": curves}


def spectrum(spikes: Tensor) -> Tensor:
    """Of the rate of E cells at `TONES`, Hz^2 a Hz, mean over trials."""
    return power_spectrum(1000 * spikes, 1.0, 250.0).power.mean(0)[1 : 1 + len(TONES)]


def closed(alone: Tensor, loop: Tensor) -> Tensor:
    """`S / |1 - L|^2` at `TONES`: the spectrum of the closed loop, from spikes of the open one."""
    return spectrum(alone) / (1 - loop).abs().square()


def in_phase(loop: Tensor) -> float:
    """Hz, where the phase of L falls through 0."""
    phase = loop.angle()
    k = int(((phase[:-1] > 0) & (phase[1:] <= 0) & (phase.diff() > -1)).nonzero()[0])
    return float(TONES[k] + phase[k] / (phase[k] - phase[k + 1]) * (TONES[1] - TONES[0]))


def without_pv(layer: CorticalLinear, x: Tensor) -> Tensor:
    """Spikes of E cells without the output of PV cells, and with so much less current that they fire as before."""
    silenced, aim = copy.deepcopy(layer), rate_aim(layer.neuron.constants)
    silenced.weight_ep.zero_()
    low, high = -20.0, 0.0
    for _ in range(11):
        silenced.bias.fill_((low + high) / 2)
        too_few = float(silenced(x[:400, :8])[late(layer)].mean()) < aim
        low, high = ((low + high) / 2, high) if too_few else (low, (low + high) / 2)
    return silenced(x)[late(layer)]


def draw_gamma(figure: Figure, runs: Sequence[Run]) -> None:
    left, right = figure.subplots(1, 2)
    shown = {
        "feedback 0.1": BLUE,
        "feedback 0.1, GABA 12 ms": GREEN,
        "feedback 0.1, delay 5 ms": PINK,
        "feedback 0.1, fast": SKY,
    }
    for name, color in {**shown, "PV silenced": GREY}.items():
        power = torch.tensor([run["curves"][name]["measured"] for run in runs]).mean(0)
        left.plot(TONES, power / power.sum(), color=color, label=name)
    left.set(xlabel="frequency (Hz)", ylabel="power of the rate of E cells (share)", ylim=(0, None), xlim=(0, 100))
    left.legend(frameon=False, fontsize="small")
    for name, color in zip(LOOPS, (GREY, BLUE, ORANGE, GREEN, PINK, SKY), strict=True):
        points = [run["told"][f"peak, {name}, Hz"] for run in runs]
        right.plot(*zip(*((t, m) for m, t in points), strict=True), "o", color=color, label=name, markersize=4)
    right.plot((15, 50), (15, 50), color=GREY, linewidth=0.8)
    right.set(xlabel="peak predicted from the open loop (Hz)", ylabel="peak of the closed loop (Hz)")
    right.legend(frameon=False, fontsize="small")


# c. Surround suppression -------------------------------------------------------------------------------------------

SIDE, CHANNELS = 15, 8
DIAMETERS = (1, 3, 5, 7, 9, 11, 15)


def surround(seed: int, diameters: Sequence[int] = DIAMETERS, ms: float = 900) -> Run:
    """SST cells, driven by a wider field than E cells, make these prefer small stimuli."""
    layer = field(seed)
    x = poisson(5.0, ms, 4, 50 + seed, (CHANNELS, SIDE, SIDE))
    middle = SIDE // 2
    at = torch.arange(SIDE) - middle
    distance = (at[:, None].square() + at.square()).sqrt()
    curves: dict[str, list[float]] = {"intact": [], "SST silenced": [], "theory": []}
    full = watch(layer, feedforward(layer, x), ("s_e", "i_e", "i_div", "i_sub"), SST=Stimulus(factor=0.0))
    inside = {name: each[..., 4:-4, 4:-4] for name, each in full.items()}
    of, half = gains(layer, inside), layer.options.surround_size // 2
    # Of a rate that is one everywhere: what SST cells take of it.
    taken = total(layer.weight_es) * total(layer.recurrent_se)
    share = answer(layer, of) * taken
    for diameter in diameters:
        currents = feedforward(layer, x * (distance <= diameter / 2))
        intact = watch(layer, currents)["s_e"].mean((0, 1, 2))
        silenced = watch(layer, currents, SST=Stimulus(factor=0.0))["s_e"].mean((0, 1, 2))
        around = silenced[middle - half : middle + half + 1, middle - half : middle + half + 1].mean()
        curves["intact"].append(200 * float(intact[middle, middle]))
        curves["SST silenced"].append(200 * float(silenced[middle, middle]))
        curves["theory"].append(200 * float(silenced[middle, middle] / (1 + share * around / silenced[middle, middle])))
    told: dict[str, tuple[float, float | None]] = {
        "suppression of E by the largest disc, %": (suppression(curves["intact"]), suppression(curves["theory"])),
        "the same, SST silenced": (suppression(curves["SST silenced"]), 0.0),
        "preferred diameter, pixels": tuple(
            float(diameters[max(range(len(diameters)), key=curves[k].__getitem__)]) for k in ("intact", "theory")
        ),
    }
    return {"told": told, "curves": curves}


def answer(layer: CorticalLayer, of: Gains) -> float:
    """Change of the rate of E cells by excitation of all of them, in the loop of E and PV cells alone."""
    w = layer.weights()
    return of.by_excitation / (1 - of.by_excitation * total(w.recurrent_ee) + of.by_pv * total(w.recurrent_pe))


def field(seed: int) -> CorticalConv2d:
    """A convolutional layer each of whose cells has the same total weight at each position of its field, so that
    excitation and inhibition balance at the border of a stimulus, too."""
    options = CorticalOptions(
        dt=5.0, tau_pv=5.0, delay=5.0, recurrence=0.15, sst=0.3, surround_size=9, semisaturation=0.6
    )
    layer = CorticalConv2d(CHANNELS, 16, 3, padding=1, options=options)
    eisnn.ei_init_(layer, poisson(5.0, 400, 4, seed, (CHANNELS, SIDE, SIDE)), generator=rng(100 + seed))
    layer.requires_grad_(False)
    for name in ("weight_ee", "weight_pe", "recurrent_ee", "recurrent_pe", "recurrent_se"):
        weight = getattr(layer, name)
        weight.mul_(weight.mean((1, 2, 3), keepdim=True) / weight.mean(1, keepdim=True))
    return layer


def suppression(rates: Sequence[float]) -> float:
    return 100 * (1 - rates[-1] / max(rates))


def draw_surround(figure: Figure, runs: Sequence[Run]) -> None:
    axes = figure.subplots()
    for name, color in (("intact", BLUE), ("SST silenced", ORANGE)):
        band(axes, DIAMETERS, [run["curves"][name] for run in runs], color, name)
    theory(axes, DIAMETERS, [run["curves"]["theory"] for run in runs], "predicted from SST silenced")
    axes.set(xlabel="diameter of the stimulus (pixels)", ylabel="rate of E cells at its centre (Hz)", ylim=(0, None))
    axes.legend(frameon=False, fontsize="small")


# d. Disinhibition --------------------------------------------------------------------------------------------------

TOP_DOWN = (0.0, 0.25, 0.5, 1.0, 2.0)  # of the mean output of VIP cells


def disinhibition(seed: int, drives: Sequence[float] = TOP_DOWN, ms: float = 1200, trials: int = 16) -> Run:
    """Top-down drive to VIP cells raises E through SST, and only so."""
    layer = drawn(seed, dt=2.0, tau_pv=4.0, delay=2.0, recurrence=0.05, sst=0.3, vip=0.3)
    currents = feedforward(layer, poisson(2.0, ms, trials, 50 + seed))
    seen = watch(layer, currents, ("s_e", "s_sst", "s_vip", "i_e", "i_div", "i_sub"))
    e, sst, vip = (float(seen[name].mean()) for name in ("s_e", "s_sst", "s_vip"))
    changed = response(layer, gains(layer, seen), vip=vip)
    curves: dict[str, list[float]] = {name: [] for name in ("e", "sst", "e theory", "sst theory", "e without SST")}
    silenced = None
    for drive in drives:
        given = torch.full((1, 1, 1), drive * vip)
        found = watch(layer, currents, ("s_e", "s_sst"), top_down=given)
        curves["e"].append(100 * (float(found["s_e"].mean()) / e - 1))
        curves["sst"].append(100 * (float(found["s_sst"].mean()) / sst - 1))
        curves["e theory"].append(100 * drive * changed[0] / e)
        curves["sst theory"].append(100 * drive * changed[2] / sst)
        alone = float(watch(layer, currents, top_down=given, SST=Stimulus(factor=0.0))["s_e"].mean())
        silenced = alone if silenced is None else silenced
        curves["e without SST"].append(100 * (alone / silenced - 1))
    one = drives.index(1.0)
    told: dict[str, tuple[float, float | None]] = {
        "change of E by top-down drive as large as the output of VIP, %": (curves["e"][one], curves["e theory"][one]),
        "change of SST, %": (curves["sst"][one], curves["sst theory"][one]),
        "change of E, SST silenced, %": (curves["e without SST"][one], 0.0),
    }
    return {"told": told, "curves": curves}


def draw_disinhibition(figure: Figure, runs: Sequence[Run]) -> None:
    axes = figure.subplots()
    for key, color, name in (("e", BLUE, "E"), ("sst", GREEN, "SST"), ("e without SST", ORANGE, "E, SST silenced")):
        band(axes, TOP_DOWN, [run["curves"][key] for run in runs], color, name)
    for key, label in (("e theory", "linearised circuit"), ("sst theory", None)):
        theory(axes, TOP_DOWN, [run["curves"][key] for run in runs], label)
    axes.set(xlabel="top-down drive to VIP (of their mean output)", ylabel="change of the output (%)")
    axes.legend(frameon=False, fontsize="small")


# e. Tight balance --------------------------------------------------------------------------------------------------

DELAYS = (1, 2, 3)
LONGEST = 60.0  # ms


def balance(seed: int, delays: Sequence[int] = DELAYS, ms: float = 1200) -> Run:
    """Inhibition follows the excitation of the same cell: that from below by its time constants, that which E cells
    evoke by their answer and the delay besides."""
    told: dict[str, tuple[float, float | None]] = {}
    curves: dict[str, list[float]] = {}
    x = poisson(1.0, ms, 8, 50 + seed)
    for delay in delays:
        layer = drawn(seed, **RHYTHM | {"feedback_inhibition": 0.1, "delay": float(delay)})
        below, back = feedforward(layer, x), returning(layer, layer(x))
        excitation = received(layer, below + back)
        both = correlation(excitation, evoked(layer, below + back))
        curves[f"delay {delay}"] = both.tolist()
        # With the loop cut nothing returns; what would is made of the spikes that there are.
        opened, currents = open_loop(layer, x)
        spikes, _ = ops.cortical_circuit(currents, cut(opened), opened.constants)
        alone, would = received(opened, below), returning(opened, spikes)
        predicted = correlation(alone, evoked(opened, below + would))
        told[f"lag of inhibition, delay {delay} ms"] = lag(both), lag(predicted)
        told[f"lag of the inhibition that E cells evoke, delay {delay} ms"] = (
            lag(correlation(excitation, evoked(layer, back))),
            lag(correlation(alone, evoked(opened, would))),
        )
        told[f"correlation at its lag, delay {delay} ms"] = float(both.max()), float(predicted.max())
    return {"told": told, "curves": curves}


def correlation(one: Tensor, other: Tensor) -> Tensor:
    return cross_correlation(one, other, 1.0, LONGEST).correlation.mean(0)


def lag(found: Tensor) -> float:
    """Of the highest correlation, ms, by a parabola through it and its neighbours."""
    k = int(found.argmax())
    below, here, above = (float(found[k + j]) for j in (-1, 0, 1))
    return k - LONGEST + (below - above) / (2 * (below - 2 * here + above))


def draw_balance(figure: Figure, runs: Sequence[Run]) -> None:
    left, right = figure.subplots(1, 2)
    lags = torch.arange(-LONGEST, LONGEST + 1)
    for delay, color in zip(DELAYS, (BLUE, GREEN, PINK), strict=True):
        left.plot(lags, torch.tensor([run["curves"][f"delay {delay}"] for run in runs]).mean(0), color=color,
                  label=f"delay {delay} ms")  # fmt: skip
    left.axvline(0, color=GREY, linewidth=0.6)
    left.set(xlabel="lag of inhibition (ms)", ylabel="correlation with excitation of the same cell")
    left.legend(frameon=False, fontsize="small")
    for row, color, name in (
        ("lag of inhibition, delay {} ms", BLUE, "all"),
        ("lag of the inhibition that E cells evoke, delay {} ms", ORANGE, "evoked by E cells of the layer"),
    ):
        told = [[run["told"][row.format(delay)] for delay in DELAYS] for run in runs]
        band(right, DELAYS, [[m for m, _ in each] for each in told], color, name)
        theory(right, DELAYS, [[t for _, t in each] for each in told], "from the open loop" if color == BLUE else None)
    right.set(xlabel="delay (ms)", ylabel="lag of inhibition after excitation (ms)", ylim=(0, None), xticks=DELAYS)
    right.legend(frameon=False, fontsize="small")


# f. Decorrelation --------------------------------------------------------------------------------------------------

WINDOWS = (10, 20, 50, 100, 200)  # ms


def decorrelation(seed: int, trials: int = 24) -> Run:
    """Feedback by PV cells takes back what shared input makes common to E cells (Tetzlaff et al. 2012)."""
    layer = drawn(seed, **RHYTHM | {"feedback_inhibition": 0.1})
    x = poisson(1.0, 1200, trials, 50 + seed)
    spikes, (opened, currents) = layer(x), open_loop(layer, x)
    alone, intact = fired(opened, currents), spikes[late(layer)]
    predicted = closed(alone, loop_gain(layer, x, spikes))
    curves = {
        "loop cut": [common(alone, window) for window in WINDOWS],
        "loop closed": [common(intact, window) for window in WINDOWS],
        "theory": [common_predicted(alone, predicted, window) for window in WINDOWS],
    }
    told: dict[str, tuple[float, float | None]] = {
        "rate, loop cut, Hz": (1000 * float(alone.mean()), None),
        "rate, loop closed, Hz": (1000 * float(intact.mean()), None),
    }
    for k in (0, 2, 4):
        told[f"correlation in {WINDOWS[k]} ms, loop cut"] = curves["loop cut"][k], None
        told[f"correlation in {WINDOWS[k]} ms, loop closed"] = curves["loop closed"][k], curves["theory"][k]
    return {"told": told, "curves": curves}


def common(spikes: Tensor, window: int) -> float:
    """Mean correlation of the spike counts of pairs."""
    found = spike_count_correlation(spikes, 1.0, window)
    return float(found[~torch.eye(len(found), dtype=torch.bool)].nanmean())


def common_predicted(alone: Tensor, power: Tensor, window: int) -> float:
    """The same of cells whose counts vary as those of the open loop, where the rate of all has this spectrum at
    `TONES`: counts in a window are the rate seen through a sinc."""
    fine = torch.arange(0.25, float(TONES[-1]), 0.5)
    sinc = torch.sinc(fine * window / 1000) * window / 1000
    at = torch.as_tensor(np.interp(fine, TONES, power), dtype=torch.float32)
    shared = 0.5 * float((at * sinc.square()).sum())
    own = float(spike_counts(alone, 1.0, window).flatten(0, 1).var(0).mean())
    return (shared / own - 1 / CELLS) / (1 - 1 / CELLS)


def draw_decorrelation(figure: Figure, runs: Sequence[Run]) -> None:
    axes = figure.subplots()
    for name, color in (("loop cut", ORANGE), ("loop closed", BLUE)):
        band(axes, WINDOWS, [run["curves"][name] for run in runs], color, name)
    theory(axes, WINDOWS, [run["curves"]["theory"] for run in runs], "closed, from the open loop")
    axes.set(xlabel="window of the counts (ms)", ylabel="mean correlation of pairs of E cells", xscale="log")
    axes.set_xticks(WINDOWS, WINDOWS)
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize="small")


# All of them -------------------------------------------------------------------------------------------------------


def band(axes: Axes, x: Sequence[float], values: Sequence[Sequence[float]], color: str, label: str) -> None:
    """Mean over seeds with its standard deviation."""
    y = torch.tensor(values)
    axes.errorbar(x, y.mean(0), y.std(0), color=color, fmt="o-", markersize=4, capsize=2, label=label)


def theory(axes: Axes, x: Sequence[float], values: Sequence[Sequence[float]], label: str | None) -> None:
    axes.plot(x, torch.tensor(values).mean(0), "--", color="black", linewidth=1.2, label=label, zorder=3)


PHENOMENA: dict[str, tuple[Callable[..., Run], Callable[[Figure, Sequence[Run]], None]]] = {
    "paradox": (paradox, draw_paradox),
    "gamma": (gamma, draw_gamma),
    "surround": (surround, draw_surround),
    "disinhibition": (disinhibition, draw_disinhibition),
    "balance": (balance, draw_balance),
    "decorrelation": (decorrelation, draw_decorrelation),
}


def table(file: Path) -> str:
    """Mean ± standard deviation over seeds of what was measured, and of what theory gives."""
    runs = json.loads(file.read_text())["runs"]
    lines = ["| | measured | theory |", "|---|---|---|"]
    for row in runs[0]["told"]:
        cells = [spread([run["told"][row][k] for run in runs]) for k in (0, 1)]
        lines.append(f"| {row} | {cells[0]} | {cells[1]} |".replace("|  |", "| |"))
    return "\n".join(lines)


def spread(values: Sequence[float | None]) -> str:
    if values[0] is None:
        return ""
    mean, deviation = statistics.mean(values), statistics.stdev(values)
    digits = 1 if abs(mean) >= 10 else 2 if abs(mean) >= 0.2 else 3
    return f"{mean:.{digits}f} ± {deviation:.{digits}f}" if deviation else f"{mean:g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(PHENOMENA), choices=list(PHENOMENA))
    parser.add_argument("--seeds", type=int, default=3, help="layers drawn, at least 2")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--draw", action="store_true", help="only draw the results that are there")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    for name in args.only:
        measure, draw = PHENOMENA[name]
        file = args.output / f"{name}.json"
        if not args.draw:
            write_result(file, {**provenance(), "n": args.seeds, "runs": [measure(k) for k in range(args.seeds)]})
        print(f"{name}\n{table(file)}\n", flush=True)
        runs = json.loads(file.read_text())["runs"]
        figure = Figure(figsize=(8 if name in ("paradox", "gamma", "balance") else 5, 3.4), layout="constrained")
        draw(figure, runs)
        for axes in figure.axes:
            bare(axes)
        figure.savefig(file.with_suffix(".png"), dpi=130)


if __name__ == "__main__":
    main()
