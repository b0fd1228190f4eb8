"""Responses to a dose or a contrast, with their spread."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from eisnn.analysis.figures.style import COLORS, GREY, LINES, bare


class Curve(NamedTuple):
    """Means at some doses, their standard deviations (empty: none to draw), and whether they are measured points."""

    doses: Sequence[float]
    means: Sequence[float]
    deviations: Sequence[float] = ()
    points: bool = True


def responses(axes: Axes, curves: Mapping[str, Curve], x: str, y: str, level: float | None = None) -> None:
    """Draw up to six curves, each with a band of one standard deviation, and a horizontal line at `level`.

    Args:
        axes: to draw on.
        curves: by name.
        x, y: labels of the axes, with units.
        level: a value to compare with, such as guessing.
    """
    for (name, curve), color, line in zip(curves.items(), COLORS, LINES, strict=False):
        doses, means = np.asarray(curve.doses), np.asarray(curve.means)
        marker = "o" if curve.points else None
        axes.plot(doses, means, color=color, linestyle=line, marker=marker, markersize=3, label=name)
        if len(curve.deviations):
            deviations = np.asarray(curve.deviations)
            axes.fill_between(doses, means - deviations, means + deviations, color=color, alpha=0.2, linewidth=0)
    if level is not None:
        axes.axhline(level, color=GREY, linewidth=1.2, linestyle=":")
    axes.set(xlabel=x, ylabel=y)
    bare(axes)
