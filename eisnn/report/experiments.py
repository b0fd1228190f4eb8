"""What the network does under experiments: contrast, and lesions of its inhibition."""

from collections.abc import Sequence
from math import isnan
from statistics import fmean, stdev
from typing import Any

import torch
from torch import Tensor

from eisnn.analysis import (
    DoseResponse,
    NakaRushton,
    Perturbation,
    UndefinedDivision,
    assess,
    dose_response,
    fit_naka_rushton,
    gain_controls,
    gain_curves,
    perturb,
    spiking_layers,
)
from eisnn.analysis import figures as fig
from eisnn.analysis.gain import Scaling
from eisnn.data.progress import track
from eisnn.report.opened import Opened
from eisnn.report.page import Block, Figure, Key, Panel, Section, Table

LEVELS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)  # nothing divides where all is black
GAIN_IMAGES = 50
SEEDS = (0, 1, 2)  # of the choice of neurons
SILENCED = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0)
STRENGTHS = (0.0, 0.5, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0)
POOR_FIT = 0.5  # R², of a fit
PART = 0.25  # of the I neurons of one layer


def gain(opened: Opened, against: Opened | None) -> Section:
    """Firing rate of each layer as a function of intensity and contrast, with and without divisive gain control."""
    if opened.unseen:
        return Section("Gain control", opened.unseen)
    legend = [Key("intact", fig.BLUE)]
    if opened.ei_layers:
        legend.append(Key("divisive current of the layer held at its mean", fig.ORANGE, "dashed"))
    if against is not None and not against.unseen:
        color, line = (fig.GREEN, "dashdot") if opened.ei_layers else (fig.ORANGE, "dashed")
        legend.append(Key(f"{against.name} ({against.network}), layer of the same depth", color, line))
    readings: dict[Scaling, str] = {
        "intensity": (
            "Mean firing rate of all neurons of a layer while the images are dimmed; 1 is as they are. A flat curve is "
            "full gain control: the layer does not see how bright the image is. In an E-I network without "
            "semisaturation that is exactly so."
        ),
        "contrast": (
            "The same while the contrast about the mean of each image is scaled; 0 is a uniform image. A curve that "
            "rises early and then bends has a gain that falls with contrast."
        ),
    }
    figures: list[Block] = []
    rows: list[list[str]] = []
    for scaling, reading in readings.items():
        panels = []
        for name, (curves, fits) in _gain_curves(opened, against, scaling).items():
            svg = fig.svg(fig.responses, curves, f"{scaling} of the images", "spikes a step")
            ends = {label: (curve.means[0], curve.means[-1]) for label, curve in curves.items()}
            words = ", ".join(f"{label} {first:.3f} to {last:.3f}" for label, (first, last) in ends.items())
            alt = f"Mean firing rate of {name} for {scaling} {LEVELS[0]:g} to {LEVELS[-1]:g}: {words}"
            panels.append(Panel(svg, alt, name))
            rows += [[f"{name}, {scaling}, {label}", *_numbers(fit)] for label, fit in fits.items()]
        figures.append(Figure(f"Response to {scaling} by layer", panels, reading, legend))
    columns = ["layer, input, network", "R_max", "c50", "exponent n", "baseline", "R²"]
    table_reading = (
        "Naka-Rushton fit R(c) = baseline + R_max c^n / (c^n + c50^n). c50: the input of half the response; far above "
        "1 the response has not begun to saturate. R²: part of the variance that the "
        f"fit explains; below {POOR_FIT:g} its numbers mean nothing and are left out, as where the response falls."
    )
    count = min(GAIN_IMAGES, len(opened.labels))
    text = f"How responses grow with the strength of the input, for {count} {opened.samples}.{opened.left_out}"
    return Section("Gain control", text, [*figures, Table("Naka-Rushton fits", columns, rows, table_reading)])


def _gain_curves(
    opened: Opened, against: Opened | None, scaling: Scaling
) -> dict[str, tuple[dict[str, fig.Curve], dict[str, NakaRushton]]]:
    """By layer: its curves, and that of the layer of the same depth in the other network; fits of its own."""
    images = opened.first(GAIN_IMAGES)
    circuits, plain = opened.drawn_circuits, [name for name in opened.drawn if name not in opened.ei_layers]
    controls = gain_controls(opened.model, images, LEVELS, circuits, scaling=scaling) if circuits else {}
    rates = gain_curves(opened.model, images, LEVELS, plain, scaling=scaling) if plain else {}
    others: list[Tensor] = []
    if against is not None:
        others = list(gain_curves(against.model, against.first(GAIN_IMAGES), LEVELS, scaling=scaling).values())
    found = {}
    for name in opened.drawn:
        if name in controls:
            c = controls[name]
            curves, fits = {"intact": c.intact, "held": c.held}, {"intact": c.intact_fit, "held": c.held_fit}
        else:
            curves = {"intact": rates[name].mean(1)}
            fits = {"intact": fit_naka_rushton(torch.tensor(LEVELS), curves["intact"])}
        depth = list(spiking_layers(opened.model)).index(name)
        if against is not None and depth < len(others):
            curves[against.name] = others[depth].mean(1)
        found[name] = {label: fig.Curve(LEVELS, curve.tolist()) for label, curve in curves.items()}, fits
    return found


def _numbers(fit: NakaRushton) -> list[str]:
    if not fit.r_squared >= POOR_FIT:
        return ["–"] * 4 + (["–"] if isnan(fit.r_squared) else [f"{fit.r_squared:.2f}"])
    return [f"{value:.2f}" for value in (fit.r_max, fit.c50, fit.exponent, fit.baseline, fit.r_squared)]


def lesions(opened: Opened) -> Section:
    """Accuracy and firing rate as a function of the dose of each perturbation of inhibition."""
    title = "Lesions"
    if opened.no_circuit:
        return Section(title, opened.no_circuit.replace("show", "lesion"))
    silence = _dose(opened, "fraction", SILENCED, SEEDS, Perturbation(activity=0.0))
    strengths = {kind: _dose(opened, kind, STRENGTHS) for kind in track(["subtractive", "divisive"], "Doses", 1)}
    panels = []
    for value, label, heading, level in (
        ("accuracy", "accuracy (%)", "Accuracy", opened.chance),
        (_mean_rate, "spikes a neuron and step", "Firing rate", None),
    ):
        doses, means, deviations = silence.curve(value)
        silenced = {"silenced": fig.Curve([100 * dose for dose in doses], means, deviations)}
        scaled = {kind: fig.Curve(*response.curve(value)) for kind, response in strengths.items()}
        for curves, x, what in (
            (silenced, "silenced I neurons (%)", "silenced I neurons"),
            (scaled, "strength of inhibition (1: intact)", "scaled inhibition"),
        ):
            svg = fig.svg(fig.responses, curves, x, label, level)
            words = "; ".join(f"{kind}: {_words(curve)}" for kind, curve in curves.items())
            panels.append(Panel(svg, f"{heading} against {x}. {words}", f"{heading}, {what}"))
    reading = (
        "Silenced: a random part of the I neurons of all layers, in whole neurons of each; mean and one standard "
        f"deviation of {len(SEEDS)} choices. Scaled: one of the two effects of inhibition in all layers, the other "
        "left as it is; 1 is the intact network. Nothing is trained again. A steep fall near the intact network says "
        "that the computation depends on the exact strength of inhibition."
    )
    undefined = sorted(
        {line["undefined"] for r in (silence, *strengths.values()) for line in r.during if line["undefined"]}
    )
    missing = f" Doses that are not drawn: {'; '.join(undefined)}." if undefined else ""
    legend = [
        Key("I neurons silenced, or subtractive inhibition scaled", fig.BLUE),
        Key("divisive inhibition scaled", fig.ORANGE, "dashed"),
        Key("guessing", fig.GREY, "dotted"),
    ]
    text = (
        f"Doses are given to the trained network, {len(opened.labels)} {opened.samples}. Inhibition here is "
        f"feed-forward and instantaneous: no rebound, oscillation or paradoxical effect is possible.{missing}"
    )
    return Section(title, text, [Figure("Dose-response curves", panels, reading, legend), _by_layer(opened)])


def _dose(
    opened: Opened,
    dose: str,
    doses: Sequence[float],
    seeds: Sequence[int] = (0,),
    base: Perturbation = Perturbation(),  # noqa: B008 - frozen
) -> DoseResponse:
    return dose_response(opened.model, opened.images, opened.labels, dose, doses, seeds, base=base, what="spikes")


def _mean_rate(assessed: dict[str, Any]) -> float:
    """Of all layers, spikes a neuron and step."""
    return fmean(layer["rate"] for layer in assessed["layers"].values())


def _words(curve: fig.Curve) -> str:
    return ", ".join(f"{mean:.3g} at {dose:.3g}" for dose, mean in zip(curve.doses, curve.means, strict=True))


def _by_layer(opened: Opened) -> Table:
    """A part of the I neurons of one layer at a time."""
    rows = []
    with perturb(opened.model, Perturbation()):  # weights are folded once, not with each lesion
        intact = _accuracy(opened)
        for name in track(opened.drawn_circuits, "Lesions layer by layer", 1):
            try:
                found = [_lesioned(opened, name, seed) for seed in SEEDS]
            except UndefinedDivision:
                rows.append([name, "–", "–"])
            else:
                rows.append([name, f"{fmean(found):.1f} ± {stdev(found):.1f}", f"{fmean(found) - intact:+.1f}"])
    reading = (
        f"Accuracy (%, mean ± standard deviation of {len(SEEDS)} choices) with {PART:.0%} of the I neurons "
        "of that layer alone silenced, and the change from the intact network."
    )
    return Table("One layer at a time", ["layer", "accuracy %", "change"], rows, reading)


def _lesioned(opened: Opened, layer: str, seed: int) -> float:
    with perturb(opened.model, Perturbation(activity=0.0, fraction=PART, seed=seed), layer):
        return _accuracy(opened)


def _accuracy(opened: Opened) -> float:
    return float(assess(opened.model, opened.images, opened.labels, what=())["accuracy"])
