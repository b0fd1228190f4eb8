"""What each layer of a network costs."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from eisnn.analysis.figures.style import COLORS, GREY, bare

PATHWAYS = ("E->E", "E->I", "I->E, subtractive", "I->E, divisive")  # that have a colour; others are grey


def pathway_color(pathway: str) -> str:
    """Of a pathway in all figures."""
    return COLORS[PATHWAYS.index(pathway)] if pathway in PATHWAYS else GREY


def operations(axes: Axes, layers: Mapping[str, Mapping[str, tuple[float, float]]]) -> None:
    """Draw the synaptic operations of each layer, stacked by pathway: dense ones pale, effective ones before them.

    Args:
        axes: to draw on.
        layers: by layer and pathway, dense and effective operations an image.
    """
    for row, pathways in enumerate(layers.values()):
        for kind, (height, alpha) in enumerate(((0.8, 0.3), (0.4, 1.0))):
            left = 0.0
            for pathway, counts in pathways.items():
                thousands = counts[kind] / 1e3
                axes.barh(row, thousands, height, left, color=pathway_color(pathway), alpha=alpha, linewidth=0)
                left += thousands
    axes.set(xlabel="thousand operations an image", yticks=range(len(layers)), yticklabels=list(layers))
    axes.invert_yaxis()
    bare(axes)


def operations_figure(file: Path, layers: Mapping[str, Mapping[str, tuple[float, float]]]) -> Path:
    """The same with a legend, as a picture; its kind is that of the file's name. Returns the file."""
    figure = Figure(figsize=(7, 1.4 + 0.35 * len(layers)), layout="constrained")
    axes = figure.subplots()
    operations(axes, layers)
    pathways = dict.fromkeys(pathway for row in layers.values() for pathway in row)
    handles = [Patch(color=pathway_color(pathway), label=pathway) for pathway in pathways]
    handles.append(Patch(color=pathway_color("E->E"), alpha=0.3, label="pale: dense"))
    axes.legend(handles=handles, frameon=False, fontsize="small")
    figure.savefig(file, dpi=130)
    return file
