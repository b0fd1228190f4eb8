"""Learning curves, and the figure of the demo."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from eisnn.analysis.figures.currents import currents
from eisnn.analysis.figures.style import COLORS, GREY, LINES, bare


def accuracy_curves(axes: Axes, curves: Mapping[str, Sequence[float]], chance: float) -> None:
    """Draw accuracy (%) after each epoch, by network (up to six), and that of guessing."""
    top = 1.25 * max(map(max, curves.values()))
    heights = spread([curve[-1] for curve in curves.values()], 0.06 * top)
    for (name, curve), color, height in zip(curves.items(), COLORS, heights, strict=False):
        axes.plot(range(1, len(curve) + 1), curve, color=color, marker="o", markersize=3, label=name)
        end = (len(curve), height)
        axes.annotate(f"{curve[-1]:.1f} %", end, xytext=(6, -3), textcoords="offset points", color=color)
    axes.axhline(chance, color=GREY, linestyle=":", label="guessing")
    axes.set(xlabel="epoch", ylabel="accuracy on held-out images (%)", ylim=(0, top))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.legend(frameon=False, loc="upper left")
    bare(axes)


def progress(axes: Axes, curves: Mapping[str, Mapping[int, float]], label: str) -> None:
    """Draw any quantity by epoch, for each name (up to six), without a legend; `label` names it and its unit."""
    for curve, color, line in zip(curves.values(), COLORS, LINES, strict=False):
        marker = "o" if len(curve) < 15 else None
        axes.plot(list(curve), list(curve.values()), color=color, linestyle=line, marker=marker, markersize=3)
    axes.set(xlabel="epoch", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    bare(axes)


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Heights at least `gap` apart, in the same order and as near to the given ones as moving upwards allows."""
    placed = list(heights)
    order = sorted(range(len(placed)), key=placed.__getitem__)
    for lower, upper in pairwise(order):
        placed[upper] = max(placed[upper], placed[lower] + gap)
    return placed


def training_summary(
    file: Path,
    curves: Mapping[str, Sequence[float]],
    network: str,
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    chance: float,
) -> Path:
    """Learning curves above, histograms of the integrated current I_E of each layer before and after training below.

    Args:
        file: the picture to write; its suffix names the format.
        curves: test accuracy (%) after each epoch, by network.
        network: whose currents are drawn.
        before, after: its I_E by layer, any shape.
        chance: accuracy (%) of guessing.
    Returns: `file`.
    """
    figure = Figure(figsize=(3.2 * max(len(before), 2), 6.4), layout="constrained")
    (top,), (bottom,) = figure.subfigures(2, 1, squeeze=False, height_ratios=[1.15, 1])
    accuracy_curves(top.subplots(), curves, chance)
    bottom.suptitle(f"{network}: integrated current $I_E$ of each layer")
    panels = bottom.subplots(1, len(before), squeeze=False)[0]
    for axes, name in zip(panels, before, strict=True):
        currents(axes, before[name], after[name])
        axes.set_title(name)
    panels[0].set_ylabel("density")
    panels[0].legend(frameon=False, fontsize="x-small", loc="upper right")
    figure.savefig(file, dpi=150)
    return file
