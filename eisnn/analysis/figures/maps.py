"""An image and its feature maps."""

from collections.abc import Mapping, Sequence
from math import ceil, sqrt

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from eisnn.analysis.figures.style import GREY


def feature_maps(axes: Sequence[Axes], pixels: Tensor, maps: Mapping[str, Tensor]) -> None:
    """Draw an image and, below it, the feature maps that each network makes of it (Fig. 8).

    Args:
        axes: to draw on, one more than networks.
        pixels: `[C, H, W]` in [0, 1]; with one channel it is grey.
        maps: `[k, H', W']` in [0, 1] by network, such as firing rates in spikes a step: black is 0, white 1.
    """
    channels = np.asarray(pixels.detach().float().cpu().clamp(0, 1)).transpose(1, 2, 0)
    if channels.shape[2] != 3:
        channels = channels.mean(2, keepdims=True).repeat(3, 2)
    axes[0].imshow(channels, interpolation="nearest")
    axes[0].set_axis_off()
    for below, (name, each) in zip(axes[1:], maps.items(), strict=True):
        below.imshow(
            _sheet(np.asarray(each.detach().float().cpu())), cmap="gray", vmin=0, vmax=1, interpolation="nearest"
        )
        below.set_title(name, fontsize="medium", color=GREY)
        below.set_axis_off()


def frame_sequence(axes: Axes, frames: Tensor, captions: Sequence[str]) -> None:
    """Draw the frames of a recording, row by row, with a caption above each.

    Args:
        axes: to draw on.
        frames: `[T, 3, H, W]` in [0, 1].
        captions: T of them.
    """
    height, width = frames.shape[2:]
    columns = ceil(sqrt(len(frames)))
    for k, (frame, caption) in enumerate(zip(np.asarray(frames.cpu()), captions, strict=True)):
        left, top = 1.1 * width * (k % columns), 1.4 * height * (k // columns)
        place = (left, left + width, top + height, top)
        axes.imshow(frame.transpose(1, 2, 0), extent=place, interpolation="nearest")
        axes.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor="0.8", linewidth=0.6))
        axes.text(
            left + width / 2, top - 0.05 * height, caption, ha="center", va="bottom", fontsize="small", color=GREY
        )
    rows = ceil(len(frames) / columns)
    axes.set(xlim=(-1, 1.1 * width * columns), ylim=(1.4 * height * rows, -0.4 * height))
    axes.set_axis_off()


def _sheet(maps: np.ndarray, columns: int = 4, gap: int = 1) -> np.ndarray:
    """Maps `[k, H, W]` in rows of `columns`, with white between them."""
    count, height, width = maps.shape
    rows = -(-count // columns)
    sheet = np.ones((rows * (height + gap) - gap, columns * (width + gap) - gap))
    for k, each in enumerate(maps):
        top, left = (height + gap) * (k // columns), (width + gap) * (k % columns)
        sheet[top : top + height, left : left + width] = each
    return sheet
