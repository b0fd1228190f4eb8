"""What is inside the circuits: currents before and after training, balance, weights."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from eisnn.analysis import (
    balance_ratio,
    bimodality_coefficient,
    dip_test,
    ei_correlation,
    record,
    residual,
    synapses,
    weight_summary,
)
from eisnn.analysis import figures as fig
from eisnn.analysis.measures.balance import Axis
from eisnn.report.opened import Opened
from eisnn.report.page import Block, Figure, Key, Panel, Section, Table

NEURONS = 500  # whose currents are kept in each layer
AXES: tuple[Axis, ...] = ("time", "space", "images", "neurons")
BALANCE_IMAGES = 32  # balance over space needs all neurons
BEFORE, AFTER = Key("at initialization", fig.GREY, "dashed"), Key("after training", fig.BLUE)


def _recorded(
    model: nn.Module, images: Tensor, layers: list[str], what: list[str], neurons: int | None = None
) -> Mapping[str, dict[str, Tensor]]:
    """Currents by layer, of the same sampled neurons for each model."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad(), record(model, layers, what, neurons=neurons, generator=generator) as recorded:
        model(images)
    return recorded


def currents(opened: Opened) -> Section:
    """Distributions of `I_E` at init and after training (Fig. 4; of a batch-norm network, Fig. 7)."""
    title = "Currents at initialization and after training"
    if opened.unseen:
        return Section(title, opened.unseen)
    after = _recorded(opened.model, opened.images, opened.drawn, ["I_E"], NEURONS)
    before = {} if opened.initial is None else _recorded(opened.initial, opened.images, opened.drawn, ["I_E"], NEURONS)
    panels, rows = [], []
    for name, recorded in after.items():
        new = recorded["I_E"]
        old = before[name]["I_E"] if name in before else None
        shapes = [_shape(values) for values in (old, new) if values is not None]
        words = " and ".join(f"{m} ± {s} {when}" for (m, s, *_), when in zip(shapes, _moments_of(old), strict=True))
        svg = fig.svg(fig.currents, old, new)
        panels.append(Panel(svg, f"Histogram of the current of {name}: {words}", name))
        first, last = (shapes[0] if old is not None else ("–",) * 4), shapes[-1]
        rows.append([name, *(cell for pair in zip(first, last, strict=True) for cell in pair)])
    quantities = ["mean", "standard deviation", "bimodality coefficient", "p of the dip test"]
    columns = ["layer", *(f"{what}, {when}" for what in quantities for when in ("initial", "trained"))]
    reading = (
        "How often each value of the integrated current occurs, over neurons, time steps and images; the dotted line "
        "is the firing threshold (a neuron also sums its current over time). One hump around 0 is what E-I Init and "
        "batch norm make; a second hump beyond the threshold means that training has split the responses into weak and "
        "strong."
    )
    table_reading = (
        "A bimodality coefficient above 0.56 hints at two humps, but so does a long tail; a p of the dip test below "
        "0.05 says that one hump cannot explain a sample of 1,000 values."
    )
    source = "integrated current I_E" if opened.ei_layers else "current that the neurons integrate"
    missing = f" The initial network is not shown: {opened.no_initial}" if opened.initial is None else ""
    text = f"The {source}, of {NEURONS} neurons of each layer (all, where there are fewer).{missing}{opened.left_out}"
    legend = [BEFORE, AFTER, Key("threshold", fig.ORANGE, "dotted")]
    blocks: list[Block] = [Figure("Distributions by layer", panels, reading, legend if before else legend[1:])]
    return Section(title, text, [*blocks, Table("Shape of the distributions", columns, rows, table_reading)])


def _moments_of(old: Tensor | None) -> list[str]:
    return ["after training"] if old is None else ["at initialization", "after training"]


def _shape(values: Tensor) -> tuple[str, str, str, str]:
    """Mean, standard deviation, bimodality coefficient and p of the dip test, as text."""
    mean, spread = float(values.double().mean()), float(values.double().std())
    p = dip_test(values, generator=torch.Generator().manual_seed(0)).p
    return f"{mean:+.2f}", f"{spread:.2f}", f"{bimodality_coefficient(values):.2f}", f"{p:.3f}"


def balance(opened: Opened) -> Section:
    """Excitation against subtractive inhibition."""
    title = "Balance of excitation and inhibition"
    if opened.no_circuit:
        return Section(title, opened.no_circuit)
    images, what = opened.first(BALANCE_IMAGES), ["I_EE", "I_sub"]
    after = _recorded(opened.model, images, opened.drawn_circuits, what)
    before = {} if opened.initial is None else _recorded(opened.initial, images, opened.drawn_circuits, what)
    panels, rows = [], []
    for name, new in after.items():
        old = before.get(name)
        pairs = [None if r is None else (_by_neuron(r["I_EE"]), _by_neuron(r["I_sub"])) for r in (old, new)]
        svg = fig.svg(fig.balance, *pairs, size=(2.9, 2.9))
        last = _balance(new["I_EE"], new["I_sub"])
        panels.append(Panel(svg, f"{name}: inhibition is {last[0]} of excitation after training", name))
        first = ("–",) * len(last) if old is None else _balance(old["I_EE"], old["I_sub"])
        rows += [[f"{name}, initial", *first], [f"{name}, trained", *last]]
    reading = (
        "One mark for each neuron (channel): its mean excitation and mean subtractive inhibition, over images, "
        "positions and time. On the dotted line the two cancel; above it a neuron is driven, below it is suppressed."
    )
    columns = ["layer", "I_sub / I_EE", "residual", "r over time", "r over space", "r over images", "r over neurons"]
    table_reading = (
        "Ratio: mean ± standard deviation over neurons, 1 is balanced. Residual: what is left of the two currents, 0 "
        "is exact balance and 1 none. r: correlation of excitation and inhibition; high over time and images is tight "
        "balance (inhibition follows each stimulus), a ratio near 1 without it is loose balance. A dash: not "
        "defined, as one of the two does not vary."
    )
    legend = [
        Key("at initialization", fig.GREY, "cross"),
        Key("after training", fig.BLUE, "dot"),
        Key("balance", fig.ORANGE, "dotted"),
    ]
    blocks: list[Block] = [
        Figure("Excitation against inhibition", panels, reading, legend if before else legend[1:]),
        Table("How close, and in step with what", columns, rows, table_reading),
    ]
    return Section(
        title, f"I_EE and I_sub for {images.shape[-4]} {opened.samples}, all neurons.{opened.left_out}", blocks
    )


def _by_neuron(current: Tensor) -> Tensor:
    """Mean over all but the neurons (channels), `[n_E]`."""
    return current.transpose(0, 2).flatten(1).mean(1)


def _balance(i_ee: Tensor, i_sub: Tensor) -> tuple[str, ...]:
    ratio = balance_ratio(i_ee, i_sub)
    ratio = ratio[ratio.isfinite()]
    axes: list[Axis] = ["time", "space", "images", "neurons"]
    correlations = [
        "–" if axis == "space" and i_ee.ndim == 3 else _mean(ei_correlation(i_ee, i_sub, axis)) for axis in axes
    ]
    return f"{ratio.mean():.2f} ± {ratio.std(correction=0):.2f}", f"{residual(i_ee, i_sub):.2f}", *correlations


def _mean(values: Tensor) -> str:
    """Of those that are defined."""
    return "–" if bool(values.isnan().all()) else f"{float(values.nanmean()):.2f}"


def weights(opened: Opened) -> Section:
    """Distributions of the weights by pathway."""
    title = "Weights"
    if opened.no_circuit:
        return Section(title, opened.no_circuit)
    pathways = {
        "E to E": ("weight_ee", fig.BLUE),
        "E to I": ("weight_ie", fig.GREEN),
        "I to E, subtractive": ("subtractive", fig.ORANGE),
    }
    panels, rows = [], []
    everywhere = synapses(opened.model)
    for name in opened.drawn_circuits:
        drawn = {label: (color, getattr(everywhere[name], field)) for label, (field, color) in pathways.items()}
        found = {label: weight_summary(w) for label, (_, w) in drawn.items()}
        words = ", ".join(f"{label} {100 * summary.zero:.0f} %" for label, summary in found.items())
        panels.append(Panel(fig.svg(fig.weights, drawn), f"Weights of {name}; synapses at 0: {words}", name))
        found["I to E, divisive"] = weight_summary(everywhere[name].divisive)
        for label, (n, mean, cv, zero) in found.items():
            rows.append([f"{name}, {label}", f"{n:,}", f"{mean:.3g}", f"{cv:.2f}", f"{100 * zero:.1f}"])
    reading = (
        "How often each strength of a synapse occurs, on a logarithmic scale, by pathway; synapses at 0 are left out "
        "and counted below. E-I Init draws E to E and E to I from an exponential distribution and makes all I to E "
        "equal."
    )
    table_reading = (
        "CV: standard deviation over mean, 1 for an exponential distribution. At 0: synapses that training has closed "
        "(Dale's law)."
    )
    lines = ("solid", "dashed", "dotted")
    legend = [Key(label, color, line) for (label, (_, color)), line in zip(pathways.items(), lines, strict=True)]
    columns = ["layer, pathway", "synapses", "mean", "CV", "at 0, %"]
    blocks: list[Block] = [
        Figure("Strengths by pathway", panels, reading, legend),
        Table("Strengths in numbers", columns, rows, table_reading),
    ]
    text = f"The weights with which each circuit acts after training, all of them >= 0.{opened.left_out}"
    return Section(title, text, blocks)
