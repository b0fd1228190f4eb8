"""A confusion matrix."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from eisnn.analysis.figures.style import BLUE


def confusion(axes: Axes, counts: Tensor, names: Sequence[str]) -> None:
    """Draw how often each class (rows) is taken for each other (columns); darker is a larger part of the row.

    Args:
        axes: to draw on.
        counts: `[classes, classes]`, integers >= 0.
        names: of the classes.
    """
    parts = counts / counts.sum(1, keepdim=True).clamp(min=1)
    for true, row in enumerate(counts.tolist()):
        for said, count in enumerate(row):
            part = float(parts[true, said])
            axes.add_patch(Rectangle((said - 0.5, true - 0.5), 1, 1, color=BLUE, alpha=part, linewidth=0))
            if count:
                color = "white" if part > 0.5 else "black"
                axes.text(said, true, str(count), ha="center", va="center", fontsize="small", color=color)
    places = range(len(names))
    axes.set_xticks(places, names, rotation=90)
    axes.set_yticks(places, names)
    axes.set(xlabel="answer", ylabel="true class", xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5))
    axes.set_aspect("equal")
