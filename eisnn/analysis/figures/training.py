"""Learning curves."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

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
