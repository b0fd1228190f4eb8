"""Random augmentation of image batches."""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor

from eisnn.data.errors import DataError

from .color import jitter
from .geometry import inside_boxes, resize, resized_crop, shifted_crop
from .mixing import Mixture, draw_mixing, mix
from .transform import RandomTransform
from .trivial import draw_trivial, trivial_augment

ASPECT = (3 / 4, 4 / 3)  # of a resized crop, width / height
RECTANGLE_AREA = (0.02, 0.4)  # of the image
RECTANGLE_ASPECT = (0.3, 3.3)  # height / width
PUBLISHED_ASPECT = (0.4, 2.5)  # the same, in the authors' program
TRIES = 10  # to draw a box that fits into the image

Fraction = Annotated[float, Field(gt=0, le=1)]
Jitter = Annotated[float, Field(ge=0, le=10)]
Strength = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Augmentation(RandomTransform):
    """What is done at random to training images, in this order: resized crop, crop, flip, colour jitter,
    TrivialAugment, cutout; and then to a whole batch, CutMix and Mixup.

    Pixel values stay in [0, 1] and are never mean-subtracted. With everything off, nothing is changed.
    """

    crop_padding: int = Field(
        default=0, ge=0, description="Zero pixels added on each side before a random crop; 0 is off."
    )
    flip: bool = Field(default=False, description="Mirror left to right with probability 0.5.")
    cutout: Literal["none", "square", "rectangle", "published"] = Field(
        default="none",
        description="What to blank out: 'square' a zero square of cutout_size around any pixel, cut off at the "
        "border; 'rectangle' with probability 0.5 a rectangle of 2-40 % of the area, filled with one random value "
        "for all its pixels and channels; 'published', as in the program of the paper's authors: likewise, of other "
        "aspect ratios, the value in the first channel and 0 in the others.",
    )
    cutout_size: int = Field(default=16, ge=1, description="Side of the 'square' cutout, pixels.")
    resized_crop: tuple[Fraction, Fraction] | None = Field(
        default=None,
        description="Range of the area of a random crop (aspect ratio 3/4 to 4/3) that is resized to the size of "
        "the images, such as 0.08 1.0.",
    )
    color_jitter: tuple[Jitter, Jitter, Jitter, Annotated[float, Field(ge=0, le=0.5)]] | None = Field(
        default=None,
        description="Strength of random brightness, contrast, saturation and hue, such as 0.4 0.4 0.4 0.1.",
    )
    trivial: bool = Field(
        default=False,
        description="TrivialAugment: one of 14 operations (shear, shift, colours, contrast, ...), at any strength.",
    )
    cutmix: Strength = Field(
        default=0.0,
        description="Paste a box of another image: a of the distribution Beta(a, a) of the area kept, such as 1; 0 is "
        "off. With mixup as well, each image gets one of the two.",
    )
    mixup: Strength = Field(
        default=0.0,
        description="Blend with another image: a of the distribution Beta(a, a) of the part kept, as 0.2; 0 is off.",
    )

    @model_validator(mode="after")
    def _check(self) -> "Augmentation":
        if self.resized_crop is not None and self.resized_crop[0] > self.resized_crop[1]:
            raise ValueError(f"resized_crop is {self.resized_crop}, expected the smaller area first")
        return self

    def check(self, shape: Sequence[int], size: int | None) -> None:
        """Raises `DataError` if images of `shape` are smaller than `size`: only a resized crop enlarges."""
        height, width = shape[-2:]
        if size is not None and self.resized_crop is None and min(height, width) < size:
            raise DataError(
                f"images of {height}x{width} pixels are smaller than size {size}; load them with size={size}, which "
                "pads"
            )

    def draw(self, n: int, shape: Sequence[int], generator: Generator) -> dict[str, Tensor]:
        """Draws all random numbers for `n` images of `shape` [C, H, W]; see `RandomTransform`."""
        height, width = shape[-2:]
        draws = {}
        if self.resized_crop is not None:
            draws["box"] = draw_boxes(n, height, width, self.resized_crop, generator)
        if self.crop_padding:
            draws["crop"] = torch.randint(0, 2 * self.crop_padding + 1, (n, 2), generator=generator)
        if self.flip:
            draws["flip"] = torch.rand(n, generator=generator) < 0.5
        if self.color_jitter is not None:
            *strengths, hue = self.color_jitter
            low = torch.tensor([*(max(0.0, 1 - strength) for strength in strengths), -hue])
            high = torch.tensor([*(1 + strength for strength in strengths), hue])
            draws["jitter"] = low + (high - low) * torch.rand(n, 4, generator=generator)
        if self.cutout == "square":
            draws["square"] = torch.rand(n, 2, generator=generator)
        if self.cutout == "rectangle":
            draws["rectangle"] = _draw_rectangles(n, height, width, generator)
        if self.cutout == "published":
            draws["rectangle"] = _draw_published(n, height, width, generator)
        if self.trivial:
            draws["trivial"] = draw_trivial(n, generator)
        if self.mixes:
            draws["mixing"] = draw_mixing(n, self.cutmix, self.mixup, generator)
        return draws

    def apply(self, pixels: Tensor, draws: dict[str, Tensor], size: int | None) -> Tensor:
        """Augments a batch, up to mixing.

        Args:
            pixels: [B, C, H, W], uint8 in 0..255 or float in [0, 1].
            draws: of `draw`, the entries of these B images, on the device of `pixels`.
            size: side of the result in pixels; larger images are resized to it (antialiased bilinear) before all
                else. None keeps H x W.

        Returns:
            float32 [B, C, size, size] in [0, 1].

        Raises:
            DataError: images smaller than `size` without `resized_crop`; they are padded when loaded.
        """
        self.check(pixels.shape, size)
        height, width = (size, size) if size is not None else pixels.shape[-2:]
        if self.resized_crop is not None:
            pixels = resized_crop(to_float(pixels), draws["box"], height, width)
        elif pixels.shape[-2:] != (height, width):
            pixels = resize(to_float(pixels), height, width)
        if self.crop_padding:  # bytes are cheaper to move than floats, so the conversion comes late
            pixels = shifted_crop(pixels, draws["crop"], self.crop_padding)
        if self.flip:
            pixels = torch.where(draws["flip"][:, None, None, None], pixels.flip(-1), pixels)
        pixels = to_float(pixels)
        if self.color_jitter is not None:
            pixels = jitter(pixels, *draws["jitter"].unbind(1))
        if self.trivial:
            pixels = trivial_augment(pixels, draws["trivial"])
        if self.cutout == "square":
            return _cut_square(pixels, draws["square"], self.cutout_size)
        if self.cutout == "rectangle":
            return _cut_rectangle(pixels, draws["rectangle"])
        if self.cutout == "published":
            return _cut_rectangle(pixels, draws["rectangle"], first_channel=True)
        return pixels

    @property
    def mixes(self) -> bool:
        """Whether images are made of two."""
        return self.cutmix > 0 or self.mixup > 0

    def mix(self, inputs: Tensor, labels: Tensor, draws: dict[str, Tensor]) -> tuple[Tensor, Mixture]:
        """CutMix or Mixup of a whole batch, after `apply`, if it `mixes`; see `eisnn.data.augment.mixing`."""
        return mix(inputs, labels, draws["mixing"])


def to_float(pixels: Tensor) -> Tensor:
    """uint8 in 0..255 to float32 in [0, 1]; floats pass."""
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()


def _cut_square(pixels: Tensor, place: Tensor, side: int) -> Tensor:
    """Zeroes a square centred on the pixel at `place` [B, 2], row and column as fractions of the image in [0, 1)."""
    height, width = pixels.shape[-2:]
    top = (place[:, 0] * height).floor() - side // 2
    left = (place[:, 1] * width).floor() - side // 2
    sides = torch.full_like(top, side)
    return pixels.masked_fill(inside_boxes(top, left, sides, sides, height, width), 0)


def _cut_rectangle(pixels: Tensor, rectangles: Tensor, *, first_channel: bool = False) -> Tensor:
    """Fills rectangles [B, 5]: height and width as fractions of the image, place in the room they leave, value; this in
    all channels, or in the first, and then 0 in the others."""
    height, width = pixels.shape[-2:]
    tall, wide, down, right, value = rectangles.unbind(1)
    box_height, box_width = (tall * height).round(), (wide * width).round()
    top, left = (down * (height - box_height + 1)).floor(), (right * (width - box_width + 1)).floor()
    mask = inside_boxes(top, left, box_height, box_width, height, width)
    fill = value[:, None, None, None]
    if first_channel:
        fill = fill * (torch.arange(pixels.shape[1], device=pixels.device) == 0)[:, None, None]
    return torch.where(mask, fill, pixels)


def draw_boxes(n: int, height: int, width: int, area: tuple[float, float], generator: Generator) -> Tensor:
    """Boxes int64 [n, 4], top, left, height, width, drawn as torchvision's RandomResizedCrop draws them."""
    pixels = height * width * _uniform((n, TRIES), area, generator)
    aspect = _log_uniform((n, TRIES), ASPECT, generator)
    tall, wide = (pixels / aspect).sqrt().round(), (pixels * aspect).sqrt().round()
    fits = (tall >= 1) & (tall <= height) & (wide >= 1) & (wide <= width)
    # Where no try fits: the largest centred box of an allowed aspect.
    fallback = torch.tensor([min(height, round(width / ASPECT[0])), min(width, round(height * ASPECT[1]))])
    box = _first(torch.stack((tall, wide), 2), fits, fallback.float())
    room = torch.tensor([height, width]) - box
    place = (torch.rand(n, 2, generator=generator) * (room + 1)).floor()
    place = torch.where(fits.any(1, keepdim=True), place, (room / 2).floor())
    return torch.cat((place, box), 1).long()


def _draw_rectangles(n: int, height: int, width: int, generator: Generator) -> Tensor:
    """The rectangles of `_cut_rectangle` [n, 5]; half of them, and the few that never fit, have no area."""
    area = _uniform((n, TRIES), RECTANGLE_AREA, generator)
    aspect = _log_uniform((n, TRIES), RECTANGLE_ASPECT, generator) * (width / height)  # of fractions, not pixels
    shape = torch.stack(((area * aspect).sqrt(), (area / aspect).sqrt()), 2)
    box = _first(shape, (shape <= 1).all(2), torch.zeros(2))
    box *= torch.rand(n, 1, generator=generator) < 0.5
    return torch.cat((box, torch.rand(n, 3, generator=generator)), 1)


def _draw_published(n: int, height: int, width: int, generator: Generator) -> Tensor:
    """As `_draw_rectangles`, with a uniform aspect ratio: none is larger than a square image, as sqrt(0.4 * 2.5) is 1.
    Their images hold whole numbers from 0 to 255, and so does the value."""
    area = _uniform((n, 1), RECTANGLE_AREA, generator)
    aspect = _uniform((n, 1), PUBLISHED_ASPECT, generator) * (width / height)
    shape = torch.cat(((area * aspect).sqrt(), (area / aspect).sqrt()), 1).clamp(max=1)
    shape *= torch.rand(n, 1, generator=generator) < 0.5
    value = torch.randint(0, 256, (n, 1), generator=generator) / 255
    return torch.cat((shape, torch.rand(n, 2, generator=generator), value), 1)


def _first(candidates: Tensor, fits: Tensor, fallback: Tensor) -> Tensor:
    """The first of the candidates [n, TRIES, 2] that fits, else the fallback: [n, 2]."""
    chosen = candidates[torch.arange(len(fits)), fits.int().argmax(1)]  # argmax gives the first of equals
    return torch.where(fits.any(1, keepdim=True), chosen, fallback)


def _uniform(shape: tuple[int, int], bounds: tuple[float, float], generator: Generator) -> Tensor:
    low, high = bounds
    return low + (high - low) * torch.rand(shape, generator=generator)


def _log_uniform(shape: tuple[int, int], bounds: tuple[float, float], generator: Generator) -> Tensor:
    return _uniform(shape, (math.log(bounds[0]), math.log(bounds[1])), generator).exp()
