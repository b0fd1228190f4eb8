"""What the network does under experiments: contrast, and lesions of its inhibition."""

from collections.abc import Sequence
from math import isnan
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from eisnn.analysis import (
    DoseResponse,
    NakaRushton,
    Perturbation,
    dose_response,
    fit_naka_rushton,
    gain_control,
    gain_curve,
    spiking_layers,
)
from eisnn.analysis import figures as fig
from eisnn.analysis.gain import Scaling
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
        for name in opened.drawn:
            curves, fits = _gain_curves(opened, against, name, scaling)
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
    opened: Opened, against: Opened | None, name: str, scaling: Scaling
) -> tuple[dict[str, fig.Curve], dict[str, NakaRushton]]:
    """Curves of one layer, and of the layer of the same depth in the other network; fits of those of this one."""
    images = opened.first(GAIN_IMAGES)
    if name in opened.ei_layers:
        with torch.no_grad():
            found = gain_control(opened.model, images, LEVELS, name, scaling=scaling)
        curves = {"intact": found.intact, "held": found.held}
        fits = {"intact": found.intact_fit, "held": found.held_fit}
    else:
        curves = {"intact": _rates(opened.model, images, name, scaling)}
        fits = {"intact": fit_naka_rushton(torch.tensor(LEVELS), curves["intact"])}
    depth = list(spiking_layers(opened.model)).index(name)
    if against is not None and depth < len(others := list(spiking_layers(against.model))):
        curves[against.name] = _rates(against.model, against.first(GAIN_IMAGES), others[depth], scaling)
    return {label: fig.Curve(LEVELS, rates.tolist()) for label, rates in curves.items()}, fits


@torch.no_grad()
def _rates(model: nn.Module, images: Tensor, layer: str, scaling: Scaling) -> Tensor:
    """Mean firing rate of a layer at each of `LEVELS`."""
    return gain_curve(model, images, LEVELS, layer, scaling=scaling).mean(1)


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
    strengths = {kind: _dose(opened, kind, STRENGTHS) for kind in ("subtractive", "divisive")}
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
    layers: list[str] | None = None,
) -> DoseResponse:
    return dose_response(opened.model, opened.images, opened.labels, dose, doses, seeds, base=base, layers=layers)


def _mean_rate(assessed: dict[str, Any]) -> float:
    """Of all layers, spikes a neuron and step."""
    return fmean(layer["rate"] for layer in assessed["layers"].values())


def _words(curve: fig.Curve) -> str:
    return ", ".join(f"{mean:.3g} at {dose:.3g}" for dose, mean in zip(curve.doses, curve.means, strict=True))


def _by_layer(opened: Opened) -> Table:
    """A part of the I neurons of one layer at a time."""
    rows = []
    for name in opened.drawn_circuits:
        response = _dose(opened, "fraction", (PART,), SEEDS, Perturbation(activity=0.0), [name])
        _, means, deviations = response.curve("accuracy")
        change = means[0] - response.before["accuracy"] if len(means) else None
        cells = ["–", "–"] if change is None else [f"{means[0]:.1f} ± {deviations[0]:.1f}", f"{change:+.1f}"]
        rows.append([name, *cells])
    reading = (
        f"Accuracy (%, mean ± standard deviation of {len(SEEDS)} choices) with {PART:.0%} of the I neurons "
        "of that layer alone silenced, and the change from the intact network."
    )
    return Table("One layer at a time", ["layer", "accuracy %", "change"], rows, reading)
