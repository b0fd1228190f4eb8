"""TrivialAugment: every operation as Pillow does it, and all of them drawn evenly."""

import math

import numpy as np
import pytest
import torch
from circuits import rng
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from eisnn.data import Augmentation
from eisnn.data.augment.trivial import (
    ANGLE,
    LEVELS,
    MOVED,
    OPERATIONS,
    SHEAR,
    TRANSLATION,
    draw_trivial,
    trivial_augment,
)

NAMES = list(OPERATIONS)
STRENGTHS = [0.0, 1 / 30, 0.3, 0.5, 1.0]


def picture(seed: int = 0, size: int = 24) -> Tensor:
    """Smooth and coloured, uint8 `[3, size, size]`, with a dark and a bright corner."""
    coarse = torch.rand(1, 3, 5, 5, generator=rng(seed))
    fine = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")[0]
    return (20 + 200 * fine + torch.randint(0, 8, fine.shape, generator=rng(seed + 1))).byte()


def ours(name: str, pixels: Tensor, strength: float, sign: float = 1.0) -> Tensor:
    draws = torch.tensor([[NAMES.index(name), strength, sign]])
    return trivial_augment(pixels[None].float() / 255, draws)[0]


def pillow(pixels: Tensor) -> Image.Image:
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def back(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def matrix(name: str, amount: float, size: int) -> tuple[float, ...]:
    """Of Pillow's affine transform: from a pixel of the result to that of the source, about the centre."""
    cos, sin = (math.cos(amount * ANGLE), math.sin(amount * ANGLE)) if name == "rotate" else (1.0, 0.0)
    a, b, d, e = cos, -sin, sin, cos
    b += amount * SHEAR * (name == "shear_x")
    d += amount * SHEAR * (name == "shear_y")
    right, down = (amount * TRANSLATION * (name == f"translate_{axis}") for axis in "xy")
    middle = size / 2
    return a, b, middle - a * middle - b * middle + right, d, e, middle - d * middle - e * middle + down


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("name", MOVED)
def test_what_moves_pixels_equals_pillow(name: str, sign: float, strength: float) -> None:
    pixels = picture()
    size = pixels.shape[-1]
    moved = pillow(pixels).transform((size, size), Image.Transform.AFFINE, matrix(name, sign * strength, size))
    difference = (ours(name, pixels, strength, sign) - back(moved)).abs().amax(0) > 1e-6
    assert difference.float().mean() < 0.03  # pixels whose source lies just between two, or at the border
    if strength == 0:
        assert torch.equal(ours(name, pixels, 0.0, sign), pixels.float() / 255)


PILLOW = {
    "posterize": lambda image, strength: ImageOps.posterize(image, 8 - round(6 * strength)),
    "solarize": lambda image, strength: ImageOps.solarize(image, math.ceil(255 * (1 - strength))),
    "autocontrast": lambda image, _: ImageOps.autocontrast(image),
    "equalize": lambda image, _: ImageOps.equalize(image),
}
ENHANCED = {
    "brightness": ImageEnhance.Brightness,
    "color": ImageEnhance.Color,
    "contrast": ImageEnhance.Contrast,
    "sharpness": ImageEnhance.Sharpness,
}


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("name", PILLOW)
def test_what_changes_values_equals_pillow(name: str, strength: float) -> None:
    pixels = picture(1)
    # Pillow rounds stretched values down to bytes.
    tolerance = 1 / 255 + 1e-6 if name == "autocontrast" else 1e-6
    torch.testing.assert_close(
        ours(name, pixels, strength), back(PILLOW[name](pillow(pixels), strength)), atol=tolerance, rtol=0
    )


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("name", ENHANCED)
def test_what_blends_equals_pillow(name: str, strength: float, sign: float) -> None:
    pixels = picture(2)
    expected = back(ENHANCED[name](pillow(pixels)).enhance(1 + sign * 0.99 * strength))
    torch.testing.assert_close(ours(name, pixels, strength, sign), expected, atol=2.1 / 255, rtol=0)


def test_equalizing_and_stretching_a_constant_image_leave_it() -> None:
    flat = torch.full((3, 8, 8), 77, dtype=torch.uint8)
    for name in ("equalize", "autocontrast", "identity"):
        assert torch.equal(ours(name, flat, 0.5), flat.float() / 255)


def test_every_image_gets_one_operation_and_its_own() -> None:
    draws = draw_trivial(14000, rng(0))
    counts = draws[:, 0].long().bincount(minlength=len(NAMES))
    assert len(counts) == len(NAMES) == 14
    assert counts.min() > 850
    assert counts.max() < 1150
    assert len(draws[:, 1].unique()) == LEVELS
    assert sorted(set(draws[:, 2].tolist())) == [-1.0, 1.0]
    pixels = torch.stack([picture(seed) for seed in range(40)]).float() / 255
    together = trivial_augment(pixels, draws[:40])
    for k in range(40):
        torch.testing.assert_close(
            trivial_augment(pixels[k : k + 1], draws[k : k + 1])[0], together[k], atol=1e-5, rtol=0
        )
    assert together.min() >= 0
    assert together.max() <= 1


def test_as_a_setting_it_is_applied_by_the_images_draws() -> None:
    augmentation = Augmentation(trivial=True)
    pixels = torch.stack([picture(seed) for seed in range(6)])
    draws = augmentation.draw(6, (3, 24, 24), rng(4))
    expected = trivial_augment(pixels.float() / 255, draws["trivial"])
    assert torch.equal(augmentation.apply(pixels, draws, None), expected)
    assert not torch.equal(expected, pixels.float() / 255)
