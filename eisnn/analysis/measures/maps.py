"""How much a feature map follows the contours of its image (Fig. 8)."""

from torch import Tensor
from torch.nn import functional as F

from eisnn.analysis.measures.values import Values, correlation, numbers


def contour_strength(images: Values) -> Tensor:
    """Magnitude of the brightness gradient by central differences, `[B, C, H, W]` -> `[B, H, W]`; 0 where it is flat.

    Brightness is the mean over channels, and the image goes on beyond its border as it ends there.

    Raises: ValueError for another shape, and for values that are NaN or infinite.
    """
    found = numbers("images", images)
    if found.ndim != 4:
        raise ValueError(f"images must be [B, C, H, W], got shape {list(found.shape)}")
    padded = F.pad(found.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")[:, 0]
    across = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2
    down = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2
    return (across.square() + down.square()).sqrt()


def contour_correlation(maps: Values, images: Values) -> Tensor:
    """Correlation over positions between each image's mean feature map and the strength of its contours, `[B]`.

    Args:
        maps: firing rates of one layer `[B, n_E, H, W]`; contours are averaged down to its size.
        images: `[B, C, H', W']`.
    Returns: Pearson's r in [-1, 1]; NaN where a map or an image is flat, as every map of one position is.
    Raises: ValueError for other shapes, and for values that are NaN or infinite.
    """
    rates, contours = numbers("maps", maps), contour_strength(images)
    if rates.ndim != 4 or len(rates) != len(contours):
        raise ValueError(
            f"maps must be [B, n_E, H, W] of the same images, got shape {list(rates.shape)} and {len(contours)} images"
        )
    contours = F.adaptive_avg_pool2d(contours[:, None], (rates.shape[-2], rates.shape[-1]))[:, 0]
    return correlation(rates.mean(1).flatten(1), contours.flatten(1), 1)
