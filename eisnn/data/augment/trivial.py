"""TrivialAugment (Müller and Hutter 2021, "wide") for image batches: each image gets one of 14 operations, at a
strength, both drawn evenly.

Every operation is applied to the whole batch and kept for the images that drew it, which costs less than sorting the
images by operation, and never waits for the device. Pixels are [B, C, H, W] in [0, 1]; a strength is in [0, 1].
"""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from .color import blend, gray

LEVELS = 31
MOVED = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
SHEAR, TRANSLATION, ANGLE = 0.99, 32.0, math.radians(135)  # at full strength; translation in pixels
BLEND = 0.99  # at full strength brightness, colour, contrast and sharpness change by this factor, up or down
LEAST_BITS = 2  # of posterize


def draw_trivial(n: int, generator: Generator) -> Tensor:
    """Random numbers of `trivial_augment` for n images, [n, 3]: operation, strength in [0, 1], sign."""
    operation = torch.randint(len(OPERATIONS), (n,), generator=generator)
    strength = torch.randint(LEVELS, (n,), generator=generator) / (LEVELS - 1)
    sign = 2.0 * torch.randint(2, (n,), generator=generator) - 1
    return torch.stack((operation.float(), strength, sign), 1)


def trivial_augment(pixels: Tensor, draws: Tensor) -> Tensor:
    """Applies to each image the operation of its draw [B, 3].

    Returns:
        [B, C, H, W] in [0, 1]; what is moved in from outside is 0.
    """
    operation, strength, sign = draws.unbind(1)
    result = pixels
    for k, apply in enumerate(OPERATIONS.values()):
        if apply is not None:
            result = torch.where((operation == k)[:, None, None, None], apply(pixels, strength, sign), result)
    moved = _move(pixels, operation, strength * sign)
    return torch.where((operation < len(MOVED))[:, None, None, None], moved, result)


def _move(pixels: Tensor, operation: Tensor, amount: Tensor) -> Tensor:
    """Shears, translates or rotates about the centre, taking the nearest pixel; `amount` [B] in [-1, 1]."""
    height, width = pixels.shape[-2:]
    shear_x, shear_y, right, down, angle = (amount * (operation == k) for k in range(len(MOVED)))
    turn = angle * ANGLE
    linear = torch.stack((turn.cos(), shear_x * SHEAR - turn.sin(), shear_y * SHEAR + turn.sin(), turn.cos()), 1)
    shift = torch.stack((right, down), 1) * TRANSLATION
    x = torch.arange(width, device=pixels.device) - (width - 1) / 2
    y = torch.arange(height, device=pixels.device) - (height - 1) / 2
    place = torch.stack(torch.meshgrid(x, y, indexing="xy"), 2)  # of each pixel, from the centre
    source = torch.einsum("bij,hwj->bhwi", linear.view(-1, 2, 2), place) + shift[:, None, None]
    grid = source * 2 / source.new_tensor([width, height])
    return F.grid_sample(pixels, grid, mode="nearest", align_corners=False)


def _brightness(pixels: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    return blend(pixels, torch.zeros_like(pixels), 1 + BLEND * strength * sign)


def _contrast(pixels: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    return blend(pixels, gray(pixels).mean((1, 2, 3), keepdim=True), 1 + BLEND * strength * sign)


def _color(pixels: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    return blend(pixels, gray(pixels), 1 + BLEND * strength * sign)


def _sharpness(pixels: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    """Away from or towards a smoothed image; the outermost pixels stay as they are."""
    kernel = pixels.new_ones(3, 3)
    kernel[1, 1] = 5
    channels = pixels.shape[1]
    smooth = F.conv2d(pixels, (kernel / kernel.sum()).expand(channels, 1, 3, 3), groups=channels)
    smoothed = pixels.clone()
    smoothed[..., 1:-1, 1:-1] = smooth
    return blend(pixels, smoothed, 1 + BLEND * strength * sign)


def _posterize(pixels: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    """Keeps the upper 8 (strength 0) to 2 bits of each value."""
    step = 2 ** ((8 - LEAST_BITS) * strength).round()[:, None, None, None]
    return (_bytes(pixels) / step).floor() * step / 255


def _solarize(pixels: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    """Inverts what is at least as bright as 1 - strength."""
    return torch.where(pixels >= (1 - strength)[:, None, None, None], 1 - pixels, pixels)


def _autocontrast(pixels: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    """Stretches each channel to 0 .. 1; a constant one stays."""
    low, high = pixels.amin((2, 3), keepdim=True), pixels.amax((2, 3), keepdim=True)
    spread = high - low
    return torch.where(spread > 0, (pixels - low) / torch.where(spread > 0, spread, 1), pixels)


def _equalize(pixels: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    """Makes the histogram of each channel flat, as Pillow does."""
    values = _bytes(pixels).long().flatten(2)
    counts = values.new_zeros(*values.shape[:2], 256).scatter_add_(2, values, torch.ones_like(values))
    brightest = counts.gather(2, values.amax(2, keepdim=True))
    step = (values.shape[2] - brightest) // 255
    below = counts.cumsum(2) - counts
    table = ((step // 2 + below) // step.clamp(min=1)).clamp(max=255)
    flat = table.gather(2, values).view_as(pixels) / 255
    return torch.where(step[..., None] > 0, flat, pixels)


def _bytes(pixels: Tensor) -> Tensor:
    return (pixels * 255).round()


OPERATIONS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor] | None] = {
    **dict.fromkeys(MOVED),  # together, by one sampling
    "identity": None,
    "brightness": _brightness,
    "color": _color,
    "contrast": _contrast,
    "sharpness": _sharpness,
    "posterize": _posterize,
    "solarize": _solarize,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
}
