"""Colour jitter of image batches, each image with its own factors, with the definitions of torchvision.

Brightness, contrast, saturation and hue come in this fixed order; torchvision draws an order for each image, which
here would mean a loop over images. Pixels are [B, C, H, W] in [0, 1]; factors are [B].
"""

import torch
from torch import Tensor


def jitter(pixels: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor) -> Tensor:
    """Applies the four in turn; gray images (C = 1) have no saturation and hue to change."""
    pixels = blend(pixels, torch.zeros_like(pixels), brightness)
    pixels = blend(pixels, gray(pixels).mean((1, 2, 3), keepdim=True), contrast)
    if pixels.shape[1] == 1:
        return pixels
    pixels = blend(pixels, gray(pixels), saturation)
    return shift_hue(pixels, hue)


def blend(pixels: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """Factor 0 gives `other`, 1 the image itself, more goes beyond it, within [0, 1]."""
    factor = factor[:, None, None, None]
    return (factor * pixels + (1 - factor) * other).clamp(0, 1)


def gray(pixels: Tensor) -> Tensor:
    """Luma, [B, 1, H, W]."""
    if pixels.shape[1] == 1:
        return pixels
    red, green, blue = pixels.unbind(1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue)[:, None]


def shift_hue(pixels: Tensor, shift: Tensor) -> Tensor:
    """Turns the hue of RGB images by `shift` [B], in turns of the colour circle (-0.5 to 0.5)."""
    red, green, blue = pixels.unbind(1)
    value = pixels.amax(1)
    chroma = value - pixels.amin(1)
    divisor = torch.where(chroma == 0, 1, chroma)  # gray has hue 0
    sextant = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    hue = sextant + 6 * shift[:, None, None]  # in sixths of a turn

    def channel(offset: int) -> Tensor:
        k = (hue + offset) % 6
        return value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)

    # Each channel lies between value - chroma and value; rounding must not leave [0, 1].
    return torch.stack((channel(5), channel(3), channel(1)), 1).clamp(0, 1)
