"""What all figures share: colours, bare axes, and how one becomes bytes."""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Told apart by colour-blind readers (Okabe and Ito).
COLORS = BLUE, ORANGE, GREEN, PINK, SKY, YELLOW = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"
GREY = "#666666"
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))  # the same curves where there is no colour, as on paper


def bare(axes: Axes) -> None:
    """Take away the frame above and to the right."""
    axes.spines[["top", "right"]].set_visible(False)


def svg(draw: Callable[..., None], *args: Any, size: tuple[float, float] = (2.9, 2.3), rows: int = 1) -> bytes:
    """A figure as an SVG file that needs no font.

    Args:
        draw: called with the axes (a list of them for several rows) and `args`, such as `currents`.
        size: width and height, inches.
        rows: axes below each other.
    Returns: the same bytes for the same drawing, on a transparent ground.
    """
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, 1, squeeze=False)[:, 0].tolist()
    draw(axes[0] if rows == 1 else axes, *args)
    file = BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "eisnn", "svg.fonttype": "path"}):
        figure.savefig(file, format="svg", dpi=200, transparent=True, metadata={"Date": None, "Creator": None})
    return file.getvalue()
