"""Draw the E-I circuit for the documents: `python scripts/draw_circuit.py` writes docs/circuit.png."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle

from eisnn.analysis.figures import BLUE, GREY, ORANGE

FILE = Path(__file__).parent.parent / "docs" / "circuit.png"
BELOW, LAYER = 1.0, 4.4  # columns: cells of the layer below, cells of this layer
CELLS, INHIBITORY = (4.6, 3.5, 2.4), 0.9  # rows


def excitatory(axes: Axes, x: float, y: float, size: float = 0.34) -> None:
    corners = [(x - size, y - size), (x + size, y - size), (x, y + size)]
    axes.add_patch(Polygon(corners, facecolor="white", edgecolor=ORANGE, linewidth=2.2, zorder=3))


def inhibitory(axes: Axes, x: float, y: float, size: float = 0.36) -> None:
    axes.add_patch(Circle((x, y), size, facecolor="white", edgecolor=BLUE, linewidth=2.2, zorder=3))


def synapse(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str, head: str, bend: float = 0
) -> None:
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle=head,
            mutation_scale=16,
            color=color,
            linewidth=1.8,
            connectionstyle=f"arc3,rad={bend}",
            zorder=2,
        )
    )


def box(axes: Axes, x: float, y: float, width: float, height: float, text: str) -> None:
    style = FancyBboxPatch(
        (x - width / 2, y - height / 2), width, height, boxstyle="round,pad=0.05", facecolor="#f4f4f4", edgecolor=GREY
    )
    axes.add_patch(style)
    axes.text(x, y, text, ha="center", va="center", fontsize=12)


def cells(axes: Axes) -> None:
    """The cells of both layers and the synapses between them."""
    point, flat = "-|>", "-[,widthB=0.45,lengthB=0"
    for y in CELLS:
        excitatory(axes, BELOW, y)
        excitatory(axes, LAYER, y)
    inhibitory(axes, LAYER, INHIBITORY)
    middle = CELLS[1]
    for y in CELLS:
        synapse(axes, (BELOW + 0.42, y), (LAYER - 0.45, middle), ORANGE, point)
        synapse(axes, (BELOW + 0.42, y), (LAYER - 0.5, INHIBITORY), ORANGE, point)
    synapse(axes, (LAYER + 0.3, INHIBITORY + 0.36), (LAYER + 0.42, middle - 0.3), BLUE, flat, 0.5)
    synapse(axes, (LAYER + 0.42, INHIBITORY + 0.2), (LAYER + 0.48, middle + 0.02), BLUE, flat, 0.75)
    axes.text(2.72, 4.35, r"$W_{EE}$", color=ORANGE, fontsize=14, ha="center")
    axes.text(2.25, 1.1, r"$W_{IE}$", color=ORANGE, fontsize=14, ha="center")
    axes.text(5.1, 1.0, "$W_{EI}\\,s_I$ subtracts,", color=BLUE, fontsize=12)
    axes.text(5.1, 0.5, "$W_{EI}(g_I s_I)$ divides", color=BLUE, fontsize=12)
    axes.text(BELOW, 5.35, "E neurons below\n(or pixels):  $x$", ha="center", fontsize=12)
    axes.text(LAYER, 5.35, "E neurons\nof the layer:  $s_E$", ha="center", fontsize=12)
    axes.text(LAYER, 0.05, "I neurons:  $s_I = W_{IE}\\,x$", ha="center", fontsize=12)


def neuron(axes: Axes) -> None:
    """What one E neuron makes of its currents."""
    x = 10.6
    axes.add_patch(Rectangle((8.3, -0.15), 4.6, 6.3, facecolor="none", edgecolor=GREY, linestyle=":", linewidth=1.2))
    axes.text(x, 5.7, "in each E neuron, at each step", ha="center", fontsize=12, color=GREY)
    box(axes, x, 4.75, 4.1, 0.95, r"balance:  $N = W_{EE}\,x \; - \; W_{EI}\,s_I$")
    box(axes, x, 3.15, 4.1, 1.15, r"gain:  $I_E = g_E \, \dfrac{N}{W_{EI}(g_I s_I)} + b_E$")
    box(axes, x, 1.6, 4.1, 0.8, r"membrane:  $H = (1 - 1/\tau)\,V + I_E$")
    box(axes, x, 0.35, 4.1, 0.7, r"spike:  $s_E = 1$ where $H \geq \theta$")
    for top, bottom in ((4.2, 3.8), (2.5, 2.08), (1.13, 0.78)):
        synapse(axes, (x, top), (x, bottom), GREY, "-|>")
    for y in (6.15, 3.2):
        axes.plot([LAYER + 0.4, 8.3], [CELLS[0], y], color=GREY, linestyle=":", linewidth=1.0, zorder=1)


def draw() -> Figure:
    figure = Figure(figsize=(9.6, 4.6), layout="constrained")
    axes = figure.subplots()
    cells(axes)
    neuron(axes)
    axes.set(xlim=(-0.3, 13.1), ylim=(-0.35, 6.4), aspect="equal")
    axes.axis("off")
    return figure


if __name__ == "__main__":
    draw().savefig(FILE, dpi=150, metadata={"Software": None})
    print(FILE)
