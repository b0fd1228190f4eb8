"""Distributions of currents and weights, and excitation against inhibition."""

from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from eisnn.analysis.figures.style import BLUE, GREY, ORANGE, bare


def currents(axes: Axes, before: Tensor | None, after: Tensor, threshold: str = ORANGE) -> None:
    """Histograms of the integrated current `I_E` of a layer, in units of the threshold, and the threshold (Fig. 4).

    Args:
        axes: to draw on.
        before: at initialization, any shape; None leaves it out.
        after: after training, any shape.
        threshold: colour of the threshold.
    Raises: ValueError for currents that are not finite, or none.
    """
    drawn = [(BLUE, "-", "after training", _flat(after))]
    if before is not None:
        drawn.insert(0, (GREY, "--", "at initialization", _flat(before)))
    low, high = np.percentile(np.concatenate([values for *_, values in drawn]), [0.5, 99.5])
    if high <= low:  # all the same
        low, high = low - 0.5, high + 0.5
    for color, line, label, values in drawn:
        style: dict[str, Any] = {
            "histtype": "step",
            "linewidth": 1.3,
            "color": color,
            "linestyle": line,
            "label": label,
        }
        axes.hist(values, bins=80, range=(low, high), density=True, **style)
    axes.axvline(1, color=threshold, linewidth=1.2, linestyle=":", label="threshold")
    axes.set(xlabel="$I_E$ (threshold: 1)", ylabel="density")
    bare(axes)


def balance(axes: Axes, before: tuple[Tensor, Tensor] | None, after: tuple[Tensor, Tensor], limit: int = 400) -> None:
    """Excitation `I_EE` against subtractive inhibition `I_sub`, one dot for each neuron, and the line of balance.

    Args:
        axes: to draw on.
        before, after: mean `I_EE` and `I_sub` of each neuron at initialization (None leaves it out) and after training.
        limit: at most so many neurons are drawn, evenly chosen.
    """
    top = 1e-12
    for pair, color, marker in ((before, GREY, "x"), (after, BLUE, "o")):
        if pair is None:
            continue
        y, x = (_flat(current) for current in pair)
        chosen = np.linspace(0, len(x) - 1, min(len(x), limit)).astype(int)
        axes.scatter(x[chosen], y[chosen], s=9, marker=marker, color=color, alpha=0.6, linewidths=0.6, rasterized=True)
        top = max(top, 1.05 * float(max(x.max(), y.max())))
    axes.plot([0, top], [0, top], color=ORANGE, linewidth=1.2, linestyle=":")
    axes.set(xlabel="inhibition $I_{sub}$", ylabel="excitation $I_{EE}$", xlim=(0, top), ylim=(0, top), aspect="equal")
    axes.locator_params(nbins=4)
    bare(axes)


def weights(axes: Axes, pathways: dict[str, tuple[str, Tensor]]) -> None:
    """Densities of the weights of a layer by pathway, on a logarithmic axis; weights of 0 are left out.

    Args:
        axes: to draw on.
        pathways: colour and weights (>= 0, any shape) by name.
    """
    everything = {name: (color, _flat(w)[_flat(w) > 0]) for name, (color, w) in pathways.items()}
    found = {name: w for name, (_, w) in everything.items() if len(w)}
    if found:
        ends = [np.percentile(w, [0.5, 100]) for w in found.values()]
        low, high = min(e[0] for e in ends), max(e[1] for e in ends)
        edges = np.geomspace(low, max(high, low * 1.01) * 1.05, 50)
        for k, (name, (color, w)) in enumerate(everything.items()):
            if not len(w):
                continue  # its place in the legend stays its own
            style: dict[str, Any] = {
                "color": color,
                "linestyle": ("-", "--", ":")[k % 3],
                "linewidth": 1.3,
                "label": name,
            }
            axes.hist(w, bins=edges.tolist(), weights=np.full(len(w), 1 / len(w)), histtype="step", **style)
    axes.set(xlabel="weight", ylabel="part of the synapses", xscale="log")
    bare(axes)


def _flat(values: Tensor) -> np.ndarray:
    flat = np.asarray(torch.as_tensor(values).detach().float().cpu()).ravel()
    finite = int(np.isfinite(flat).sum())
    if not 0 < finite == flat.size:
        raise ValueError(f"what is drawn must be finite, got {flat.size} values, {finite} of them finite")
    return flat
