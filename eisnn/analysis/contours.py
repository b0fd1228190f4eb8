"""How much a feature map follows the contours of its image (Fig. 8)."""

from torch import Tensor
from torch.nn import functional as F

from eisnn.analysis.balance import correlation


def contour_strength(images: Tensor) -> Tensor:
    """Magnitude of the brightness gradient by central differences, `[B, C, H, W]` -> `[B, H, W]`; 0 where it is flat.

    Brightness is the mean over channels, and the image goes on beyond its border as it ends there.
    """
    if images.ndim != 4:
        raise ValueError(f"images must be [B, C, H, W], got shape {list(images.shape)}")
    padded = F.pad(images.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")[:, 0]
    across = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2
    down = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2
    return (across.square() + down.square()).sqrt()


def contour_correlation(maps: Tensor, images: Tensor) -> Tensor:
    """Correlation over positions between each image's mean feature map and the strength of its contours, `[B]`.

    Args:
        maps: firing rates of one layer `[B, n_E, H, W]`; contours are averaged down to its size.
        images: `[B, C, H', W']`.
    Returns: Pearson's r in [-1, 1]; NaN where a map or an image is flat.
    """
    if maps.ndim != 4 or maps.shape[0] != images.shape[0]:
        raise ValueError(
            f"maps must be [B, n_E, H, W] of the same images, got shapes {list(maps.shape)} and {list(images.shape)}"
        )
    contours = F.adaptive_avg_pool2d(contour_strength(images)[:, None], (maps.shape[-2], maps.shape[-1]))[:, 0]
    return correlation(maps.mean(1).flatten(1), contours.flatten(1), 1)
