"""Augmentation: properties of every setting, and parity with Pillow, torch and colorsys."""

import colorsys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from torch import Generator, Tensor
from torch.nn.functional import interpolate, pad

from eisnn.data import Augmentation, DataError
from eisnn.data.augment.color import jitter, shift_hue
from eisnn.data.augment.geometry import resize, resized_crop

SETTINGS = st.builds(
    Augmentation,
    crop_padding=st.integers(0, 4),
    flip=st.booleans(),
    cutout=st.sampled_from(["none", "square", "rectangle", "published"]),
    cutout_size=st.integers(1, 20),
    resized_crop=st.sampled_from([None, (0.08, 1.0), (0.5, 0.5)]),
    color_jitter=st.sampled_from([None, (0.4, 0.4, 0.4, 0.1), (2.0, 0.0, 1.0, 0.5)]),
)
EVERYTHING = Augmentation(
    crop_padding=3, flip=True, cutout="rectangle", resized_crop=(0.2, 1.0), color_jitter=(0.4, 0.4, 0.4, 0.1)
)


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def noise(n: int, channels: int = 3, height: int = 12, width: int = 12, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (n, channels, height, width), dtype=torch.uint8, generator=seeded(seed))


def augment(augmentation: Augmentation, pixels: Tensor, size: int | None = None, seed: int = 0) -> Tensor:
    return augmentation.apply(pixels, augmentation.draw(len(pixels), pixels.shape[1:], seeded(seed)), size)


@settings(deadline=None, max_examples=100)
@given(
    augmentation=SETTINGS,
    n=st.integers(0, 5),
    channels=st.sampled_from([1, 3]),
    height=st.integers(8, 20),
    width=st.integers(8, 20),
    size=st.sampled_from([None, 8]),
    seed=st.integers(0, 2**30),
)
def test_any_setting_keeps_shape_and_range_and_image_by_image_results(
    augmentation: Augmentation, n: int, channels: int, height: int, width: int, size: int | None, seed: int
) -> None:
    pixels = noise(n, channels, height, width, seed)
    draws = augmentation.draw(n, (3, height, width), seeded(seed))
    assert all(len(draw) == n and draw.device.type == "cpu" for draw in draws.values())
    before = pixels.clone()
    result = augmentation.apply(pixels, draws, size)
    assert torch.equal(pixels, before)
    assert result.shape == (n, channels, size or height, size or width)
    assert result.dtype == torch.float32
    assert n == 0 or (result.min() >= 0 and result.max() <= 1)
    again = augmentation.draw(n, (3, height, width), seeded(seed))
    assert draws.keys() == again.keys()
    assert all(torch.equal(draws[key], again[key]) for key in draws)
    for k in range(n):  # alone as in company
        alone = augmentation.apply(pixels[k : k + 1], {key: draw[k : k + 1] for key, draw in draws.items()}, size)
        torch.testing.assert_close(alone, result[k : k + 1], atol=1e-5, rtol=0)
    scaled = augmentation.apply(pixels.float() / 255, draws, size)
    torch.testing.assert_close(scaled, result, atol=1e-5, rtol=0)


def test_nothing_on_changes_nothing() -> None:
    pixels = noise(4)
    assert Augmentation().draw(4, (3, 12, 12), seeded()) == {}
    assert torch.equal(Augmentation().apply(pixels, {}, None), pixels.float() / 255)
    assert torch.equal(Augmentation().apply(pixels, {}, 12), pixels.float() / 255)


def test_later_settings_leave_earlier_draws_alone() -> None:
    few = Augmentation(crop_padding=4, flip=True)
    more = few.model_copy(update={"cutout": "square"})
    one, other = few.draw(20, (3, 12, 12), seeded()), more.draw(20, (3, 12, 12), seeded())
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_flip_mirrors_half_of_the_images_exactly() -> None:
    pixels = noise(400)
    augmentation = Augmentation(flip=True)
    draws = augmentation.draw(400, (3, 12, 12), seeded())
    result, flip = augmentation.apply(pixels, draws, None), draws["flip"]
    assert torch.equal(result[flip], (pixels.float() / 255).flip(-1)[flip])
    assert torch.equal(result[~flip], (pixels.float() / 255)[~flip])
    assert 160 <= flip.sum() <= 240


def test_crop_shifts_and_fills_with_zeros() -> None:
    pixels, padding = noise(500, height=9, width=7), 2
    augmentation = Augmentation(crop_padding=padding)
    draws = augmentation.draw(500, (3, 9, 7), seeded())
    result = augmentation.apply(pixels, draws, None)
    padded = pad(pixels.float() / 255, (padding,) * 4)
    for image, (row, column), got in zip(padded, draws["crop"].tolist(), result, strict=True):
        assert torch.equal(got, image[:, row : row + 9, column : column + 7])
    counts = (draws["crop"][:, 0] * 5 + draws["crop"][:, 1]).bincount(minlength=25)
    assert counts.min() > 0  # all 25 shifts occur
    assert len(counts) == 25


@pytest.mark.parametrize("side", [1, 5, 6])
def test_square_cutout_zeroes_one_square_around_any_pixel(side: int) -> None:
    n, size = 2000, 12
    result = augment(Augmentation(cutout="square", cutout_size=side), torch.full((n, 3, size, size), 255).byte())
    assert set(result.unique().tolist()) <= {0.0, 1.0}
    holes = result == 0
    assert torch.equal(holes[:, 0], holes[:, 2])
    rows, columns = holes[:, 0].any(2), holes[:, 0].any(1)
    assert torch.equal(holes[:, 0], rows[:, :, None] & columns[:, None, :])  # a rectangle, whole
    for extent in (rows, columns):
        lengths = extent.sum(1)
        assert lengths.max() == side
        assert lengths.min() >= side - side // 2
        # Centres are uniform over the pixels: the square lies whole inside for size - side + 1 of them.
        assert abs((lengths == side).float().mean() - (size - side + 1) / size) < 0.04


def test_square_cutout_larger_than_the_image_is_possible() -> None:
    result = augment(Augmentation(cutout="square", cutout_size=40), noise(10))
    assert not result.any()


def test_rectangle_cutout_fills_one_rectangle_with_one_value_half_of_the_time() -> None:
    n, size = 3000, 32
    pixels = noise(n, 3, size, size)
    result = augment(Augmentation(cutout="rectangle"), pixels)
    changed = result != pixels.float() / 255
    cut = changed.flatten(1).any(1)
    assert abs(cut.float().mean() - 0.5) < 0.05
    changed, filled = changed[cut].any(1), result[cut]
    rows, columns = changed.any(2), changed.any(1)
    box = rows[:, :, None] & columns[:, None, :]
    values = filled.amax((1, 2, 3), keepdim=True).where(~box[:, None], filled).flatten(1)
    for image, mask in zip(filled[:200], box[:200], strict=True):
        assert image[:, mask].unique().numel() == 1
    area = box.float().mean((1, 2))
    assert 0.015 < area.min() < 0.04
    assert 0.36 < area.max() < 0.43
    aspect = rows.sum(1) / columns.sum(1)
    assert 0.25 < aspect.min() < 0.4
    assert 2.5 < aspect.max() < 4
    assert abs(aspect.log().mean()) < 0.1
    assert values.min() >= 0
    for edge in (rows[:, 0], rows[:, -1], columns[:, 0], columns[:, -1]):
        assert edge.any()  # they reach every border


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_published_cutout_fills_the_first_channel_with_a_whole_number_and_the_others_with_0(channels: int) -> None:
    n, size = 3000, 32
    pixels = noise(n, channels, size, size)
    result = augment(Augmentation(cutout="published"), pixels)
    changed = result != pixels.float() / 255
    cut = changed.flatten(1).any(1)
    assert abs(cut.float().mean() - 0.5) < 0.03
    changed, filled = changed[cut].any(1), result[cut]
    box = changed.any(2)[:, :, None] & changed.any(1)[:, None, :]
    assert abs(box.float().mean() - 0.21) < 0.01
    values = torch.stack([image[0, mask].unique() for image, mask in zip(filled, box, strict=True)])  # one an image
    assert torch.equal((values * 255).round() / 255, values)
    assert (values == 0).any()
    assert (values == 1).any()
    assert abs(values.mean() - 0.5) < 0.03
    assert not filled[:, 1:].amax(1, keepdim=True).masked_select(box[:, None]).any() if channels > 1 else True


def test_published_rectangles_are_of_uniform_area_aspect_and_place() -> None:
    rectangles = Augmentation(cutout="published").draw(20_000, (3, 32, 32), seeded())["rectangle"].double()
    rectangles = rectangles[rectangles[:, 0] > 0]
    tall, wide, down, right, value = rectangles.unbind(1)
    uniform = {
        "area": (tall * wide, 0.02, 0.4), "aspect": (tall / wide, 0.4, 2.5),
        "row": (down, 0, 1), "column": (right, 0, 1), "value": (value, 0, 1),
    }  # fmt: skip
    for name, (seen, low, high) in uniform.items():
        expected = torch.linspace(low, high, len(seen), dtype=torch.float64)
        assert (seen.sort()[0] - expected).abs().max() < 0.025 * (high - low), name  # 0.1 % of Kolmogorov and Smirnov
    assert torch.corrcoef(rectangles.T).fill_diagonal_(0)[2:].abs().max() < 0.05
    assert rectangles[:, :2].max() <= 1  # all fit


def test_rectangle_aspect_is_in_pixels_on_oblong_images() -> None:
    height, width = 24, 48
    rectangles = Augmentation(cutout="rectangle").draw(2000, (3, height, width), seeded())["rectangle"]
    tall, wide = rectangles[rectangles[:, 0] > 0, :2].unbind(1)
    aspect, area = tall * height / (wide * width), tall * wide
    assert 0.29 < aspect.min() < 0.35
    assert 2.5 < aspect.max() < 3.31
    assert 0.019 < area.min() < area.max() < 0.401


# --- resizing


@pytest.mark.parametrize("box", [(0, 0, 20, 24), (3, 5, 17, 9), (10, 0, 4, 24), (7, 7, 1, 1)])
@pytest.mark.parametrize("size", [(8, 8), (20, 13), (33, 40)])
def test_resized_crop_is_what_torch_does_to_the_crop(box: tuple[int, int, int, int], size: tuple[int, int]) -> None:
    pixels = noise(2, 3, 20, 24).double() / 255
    top, left, height, width = box
    crop = pixels[:, :, top : top + height, left : left + width]
    expected = interpolate(crop, size, mode="bilinear", antialias=True)
    torch.testing.assert_close(resized_crop(pixels, torch.tensor([box, box]), *size), expected, atol=1e-6, rtol=0)


def test_resizing_is_what_pillow_does() -> None:
    pixels = noise(1, 3, 64, 64)
    image = Image.fromarray(pixels[0].permute(1, 2, 0).contiguous().numpy())
    expected = torch.from_numpy(np.array(image.resize((32, 32), Image.Resampling.BILINEAR))).permute(2, 0, 1)
    got = resize(pixels.float() / 255, 32, 32)[0] * 255
    torch.testing.assert_close(got, expected.float(), atol=1.01, rtol=0)  # Pillow rounds after each direction


def test_larger_images_are_shrunk_before_all_else() -> None:
    pixels = noise(3, 3, 16, 16)
    small = interpolate(pixels.float() / 255, (8, 8), mode="bilinear", antialias=True)
    torch.testing.assert_close(Augmentation().apply(pixels, {}, 8), small, atol=1e-6, rtol=0)
    both = Augmentation(crop_padding=2, flip=True)
    draws = both.draw(3, (3, 16, 16), seeded())
    torch.testing.assert_close(both.apply(pixels, draws, 8), both.apply(small, draws, None), atol=1e-6, rtol=0)


def test_smaller_images_are_an_error_unless_a_resized_crop_enlarges() -> None:
    with pytest.raises(DataError, match=r"12x12 pixels are smaller than size 16; load them with size=16"):
        augment(Augmentation(flip=True), noise(2), 16)
    assert augment(Augmentation(resized_crop=(0.5, 1.0)), noise(2), 16).shape == (2, 3, 16, 16)


def test_resized_crop_boxes_have_the_asked_area_and_aspect() -> None:
    boxes = Augmentation(resized_crop=(0.08, 1.0)).draw(20_000, (3, 64, 64), seeded())["box"]
    top, left, height, width = boxes.unbind(1)
    assert boxes.min() >= 0
    assert (top + height).max() == 64
    assert (left + width).max() == 64
    area, aspect = height * width / 64**2, width / height
    assert 0.07 < area.min() < 0.1
    assert area.max() > 0.98
    assert 0.70 < aspect.min() < 0.77
    assert 1.30 < aspect.max() < 1.43
    assert abs(aspect.log().mean()) < 0.01
    # Of the uniform areas, only the largest are refused (at aspect 4/3, those over 3/4).
    assert abs((area < 0.54).float().mean() - 0.5) < 0.07
    assert ((top == 0) | (top + height == 64)).float().mean() < 0.25


def test_box_that_never_fits_becomes_the_largest_centred_one() -> None:
    boxes = Augmentation(resized_crop=(1.0, 1.0)).draw(5, (3, 40, 10), seeded())["box"]
    assert boxes.tolist() == [[13, 0, 13, 10]] * 5


# --- colour


def factors(*values: float) -> list[Tensor]:
    return [torch.tensor([value]) for value in values]


def test_neutral_jitter_changes_nothing() -> None:
    pixels = noise(1).float() / 255
    torch.testing.assert_close(jitter(pixels, *factors(1, 1, 1, 0)), pixels, atol=1e-6, rtol=0)


def test_jitter_by_hand() -> None:
    pixels = torch.tensor([[0.2, 0.6], [0.4, 0.4], [0.6, 0.2]]).view(1, 3, 1, 2)
    torch.testing.assert_close(jitter(pixels, *factors(2, 1, 1, 0)), (2 * pixels).clamp(max=1))
    luma = torch.tensor([0.2989 * 0.2 + 0.587 * 0.4 + 0.114 * 0.6, 0.2989 * 0.6 + 0.587 * 0.4 + 0.114 * 0.2])
    mean, gray = luma.mean(), luma.view(1, 1, 1, 2).expand(1, 3, 1, 2)
    torch.testing.assert_close(jitter(pixels, *factors(1, 0.5, 1, 0)), 0.5 * pixels + 0.5 * mean)
    torch.testing.assert_close(jitter(pixels, *factors(1, 0, 1, 0)), mean.expand(1, 3, 1, 2))
    torch.testing.assert_close(jitter(pixels, *factors(1, 1, 0, 0)), gray)


@pytest.mark.parametrize("shift", [-0.5, -0.1, 0.0, 0.05, 0.3, 0.5])
def test_hue_is_that_of_colorsys(shift: float) -> None:
    pixels = torch.cat((noise(1, 3, 6, 6).float() / 255, torch.full((1, 3, 6, 6), 0.3), torch.zeros(1, 3, 6, 6)))
    got = shift_hue(pixels, torch.full((3,), shift)).permute(0, 2, 3, 1).reshape(-1, 3)
    for (red, green, blue), color in zip(pixels.permute(0, 2, 3, 1).reshape(-1, 3).tolist(), got, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
        expected = torch.tensor(colorsys.hsv_to_rgb((hue + shift) % 1, saturation, value))
        torch.testing.assert_close(color, expected, atol=1e-5, rtol=0)


def test_jitter_draws_stay_in_their_ranges() -> None:
    draws = Augmentation(color_jitter=(0.4, 2.0, 0.0, 0.1)).draw(5000, (3, 8, 8), seeded())["jitter"]
    torch.testing.assert_close(draws.amin(0), torch.tensor([0.6, 0.0, 1.0, -0.1]), atol=0.01, rtol=0)
    torch.testing.assert_close(draws.amax(0), torch.tensor([1.4, 3.0, 1.0, 0.1]), atol=0.01, rtol=0)


# --- the settings themselves


@pytest.mark.parametrize(
    "wrong",
    [
        {"crop_padding": -1},
        {"cutout": "circle"},
        {"cutout_size": 0},
        {"resized_crop": (0.0, 1.0)},
        {"resized_crop": (0.5, 0.1)},
        {"resized_crop": (0.5, 1.1)},
        {"color_jitter": (-0.1, 0.0, 0.0, 0.0)},
        {"color_jitter": (float("nan"), 0.0, 0.0, 0.0)},
        {"color_jitter": (0.1, 0.1, 0.1, 0.6)},
        {"mixup": -0.1},
        {"cutmix": float("inf")},
        {"blur": 1},
    ],
)
def test_wrong_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        Augmentation(**wrong)


def test_settings_survive_json_and_explain_themselves() -> None:
    assert Augmentation.model_validate_json(EVERYTHING.model_dump_json()) == EVERYTHING
    assert all(field.description for field in Augmentation.model_fields.values())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_nothing_waits_for_the_device_and_results_agree() -> None:
    for augmentation in (EVERYTHING, Augmentation(crop_padding=4, flip=True, cutout="square")):
        pixels = noise(64, 3, 32, 32)
        draws = augmentation.draw(64, (3, 32, 32), seeded())
        there = {key: draw.cuda() for key, draw in draws.items()}
        on_device = pixels.cuda()
        augmentation.apply(on_device, there, 24)
        torch.cuda.set_sync_debug_mode("error")
        try:
            result = augmentation.apply(on_device, there, 24)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        torch.testing.assert_close(result.cpu(), augmentation.apply(pixels, draws, 24), atol=1e-5, rtol=0)
