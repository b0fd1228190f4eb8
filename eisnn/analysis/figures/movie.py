"""The distributions of the integrated current over training as a movie (GIF)."""

from collections.abc import Sequence
from math import ceil, inf
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from eisnn.analysis.figures.style import BLUE, GREY, ORANGE
from eisnn.analysis.histograms import CurrentHistograms, load_histograms

COLUMNS, LONGEST = 4, 100  # panels in a row, frames


def current_movie(run: Path, file: Path, fps: float = 8.0) -> Path:
    """Draw how the distribution of `I_E` in each layer changes from epoch to epoch.

    Each panel is one layer: the distribution of the current frame's epoch, that before training in grey, and the
    threshold. More than 100 epochs are thinned out evenly; the last frame stays for a second.

    Args:
        run: folder of a recorded run, or its `currents.npz`.
        file: the GIF to write.
        fps: frames (epochs) a second, > 0 and finite.
    Returns: `file`.
    Raises: FileNotFoundError if the run was not recorded; ValueError for a damaged file or a speed of 0.
    """
    if not 0 < fps < inf:
        raise ValueError(f"fps must be > 0 and finite, got {fps!r}")
    source = run / "currents.npz" if run.is_dir() else run
    if not source.exists():
        raise FileNotFoundError(f"there is no {source}: the run was not recorded (eisnn train RECIPE --record)")
    frames = _frames(load_histograms(source))
    durations = [round(1000 / fps)] * (len(frames) - 1) + [1000]
    frames[0].save(file, format="GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
    return file


def _frames(histograms: CurrentHistograms) -> list[Image.Image]:
    """One picture for each epoch that is shown."""
    layers = list(histograms.counts)
    rows, columns = ceil(len(layers) / COLUMNS), min(len(layers), COLUMNS)
    figure = Figure(figsize=(2.4 * columns, 1.9 * rows + 0.5), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels[len(layers) :]:
        panel.set_axis_off()
    lines = []
    for panel, name in zip(panels, layers, strict=False):
        density = histograms.density(name)
        low, high = _range(histograms, name)
        panel.stairs(density[0], histograms.edges, color=GREY, linewidth=0.8)
        lines.append((panel.stairs(density[0], histograms.edges, color=BLUE, linewidth=1.2), density))
        panel.axvline(1, color=ORANGE, linewidth=0.8, linestyle="--")
        panel.set(title=name, xlim=(low, high), ylim=(0, _height(density)), yticks=[])
        panel.set_xlabel("$I_E$ (thresholds)", fontsize="small")
        panel.spines[["top", "right", "left"]].set_visible(False)
    figure.suptitle(_title(0), fontsize="medium")
    canvas.draw()
    figure.set_layout_engine("none")  # placed once: every frame alike, and drawn much faster
    frames = []
    for shown in _thinned(len(histograms.epochs)):
        for stairs, density in lines:
            stairs.set_data(density[shown])
        figure.suptitle(_title(histograms.epochs[shown]), fontsize="medium")
        canvas.draw()
        frame = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
        frames.append(frame.quantize(64, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE))
    return frames


def _title(epoch: int) -> str:
    return f"epoch {epoch} (grey: before training; dashed: threshold)"


def _thinned(epochs: int) -> Sequence[int]:
    """At most `LONGEST` of the epochs, the first and the last among them."""
    return [int(k) for k in np.unique(np.linspace(0, epochs - 1, min(epochs, LONGEST)).round())]


def _range(histograms: CurrentHistograms, layer: str) -> tuple[float, float]:
    """Where the values are, at all epochs taken together, and the threshold."""
    total = histograms.counts[layer][:, 1:-1].sum(0).cumsum()
    low, high = np.searchsorted(total, [0.001 * total[-1], 0.999 * total[-1]])
    edges = histograms.edges
    return float(edges[max(low - 2, 0)]), max(float(edges[min(high + 3, len(edges) - 1)]), 1.2)


def _height(density: NDArray[np.float64]) -> float:
    """Room for all but the highest bin of each epoch, which may be an atom (the current of silent patches)."""
    return float(1.1 * np.sort(density, axis=1)[:, -2].max()) or 1.0
