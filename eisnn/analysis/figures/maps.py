"""An image and its feature maps."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor


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
        below.set_title(name, fontsize="medium")
        below.set_axis_off()


def _sheet(maps: np.ndarray, columns: int = 4, gap: int = 1) -> np.ndarray:
    """Maps `[k, H, W]` in rows of `columns`, with white between them."""
    count, height, width = maps.shape
    rows = -(-count // columns)
    sheet = np.ones((rows * (height + gap) - gap, columns * (width + gap) - gap))
    for k, each in enumerate(maps):
        top, left = (height + gap) * (k // columns), (width + gap) * (k % columns)
        sheet[top : top + height, left : left + width] = each
    return sheet
