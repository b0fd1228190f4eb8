"""Cropping, resizing and masking of image batches, each image in its own place.

Shapes: B images, C channels, H x W pixels. No loop over images and nothing that waits for the device.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad


def shifted_crop(pixels: Tensor, offsets: Tensor, padding: int) -> Tensor:
    """Crops each image to its own size out of a copy with a border of zeros.

    Args:
        pixels: [B, C, H, W], any dtype.
        offsets: int64 [B, 2], row and column where the crop begins in the padded image, 0 to 2 * padding.
        padding: pixels on each side.

    Returns:
        [B, C, H, W]
    """
    height, width = pixels.shape[-2:]
    # A view of all windows, [B, C, 2 * padding + 1, 2 * padding + 1, H, W], of which one an image is copied.
    windows = pad(pixels, (padding,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    image = torch.arange(len(pixels), device=pixels.device)
    return windows[image, :, offsets[:, 0], offsets[:, 1]]


def resized_crop(pixels: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """Resizes a box of each image, antialiased bilinear: what Pillow and `interpolate(antialias=True)` do to the crop.

    Resizing is linear and separable, so it is one small matrix for the rows and one for the columns of each image.

    Args:
        pixels: float [B, C, H, W] in [0, 1].
        boxes: [B, 4], top, left, height, width in pixels, inside the image.
        height: of the result, pixels.
        width: of the result, pixels.

    Returns:
        [B, C, height, width] in [0, 1]
    """
    top, left, box_height, box_width = boxes.to(pixels.dtype).unbind(1)
    vertical = _filters(top, box_height, pixels.shape[2], height)
    horizontal = _filters(left, box_width, pixels.shape[3], width)
    # The sum of weights is 1 up to rounding, which must not leave [0, 1].
    return (vertical[:, None] @ pixels @ horizontal[:, None].mT).clamp(0, 1)


def resize(pixels: Tensor, height: int, width: int) -> Tensor:
    """Resizes whole images, antialiased bilinear: float [B, C, H, W] to [B, C, height, width]."""
    whole = pixels.new_zeros(1, 4)
    whole[:, 2] += pixels.shape[2]
    whole[:, 3] += pixels.shape[3]
    return resized_crop(pixels, whole, height, width)


def _filters(start: Tensor, length: Tensor, inputs: int, outputs: int) -> Tensor:
    """Triangular filters [B, outputs, inputs] that resize the `length` pixels from `start` on to `outputs`."""
    source = torch.arange(inputs, device=start.device, dtype=start.dtype) + 0.5  # centres of the pixels
    target = torch.arange(outputs, device=start.device, dtype=start.dtype) + 0.5
    scale = (length / outputs)[:, None, None]
    centre = start[:, None, None] + target[:, None] * scale
    weight = (1 - (source - centre).abs() / scale.clamp(min=1)).clamp(min=0)
    inside = (source > start[:, None, None]) & (source < (start + length)[:, None, None])
    weight = torch.where(inside, weight, 0)
    return weight / weight.sum(-1, keepdim=True)


def inside_boxes(top: Tensor, left: Tensor, box_height: Tensor, box_width: Tensor, height: int, width: int) -> Tensor:
    """A mask that is true in one box of each image, which may reach over the border.

    Args:
        top, left, box_height, box_width: [B], whole numbers of pixels.
        height, width: of the images.

    Returns:
        bool [B, 1, height, width]
    """
    row = torch.arange(height, device=top.device)
    column = torch.arange(width, device=top.device)
    rows = (row >= top[:, None]) & (row < (top + box_height)[:, None])
    columns = (column >= left[:, None]) & (column < (left + box_width)[:, None])
    return (rows[:, :, None] & columns[:, None, :])[:, None]
