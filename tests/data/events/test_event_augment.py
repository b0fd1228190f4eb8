"""Augmentation of recordings: each operation does what it says, the same to all frames, and alone."""

import numpy as np
import pytest
import torch
from event_files import batch_of, random_events
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from eisnn.data.events import EventAugmentation
from eisnn.data.events.frames import EventBatch, count_frames

SIZE, STEPS = (24, 30), 4
EVERYTHING = EventAugmentation(
    temporal_deletion=2, resized_crop=(0.5, 1.0), flip=True, roll=5, rotation=30, shear=30, cutout=8
)


def recordings(n: int = 6, seed: int = 0, time_steps: int = STEPS, size: tuple[int, int] = SIZE) -> EventBatch:
    rng = np.random.default_rng(seed)
    return batch_of([random_events(rng, 400, size) for _ in range(n)], time_steps)


def draw(augmentation: EventAugmentation, n: int = 6, seed: int = 0) -> dict[str, Tensor]:
    return augmentation.draw(n, (STEPS, 2, *SIZE), torch.Generator().manual_seed(seed))


def apply(augmentation: EventAugmentation, batch: EventBatch, seed: int = 0, size: int | None = None) -> Tensor:
    return augmentation.apply(batch, draw(augmentation, len(batch), seed), size)


def test_without_settings_recordings_just_become_frames() -> None:
    batch = recordings()
    assert torch.equal(apply(EventAugmentation(), batch), count_frames(batch))


def test_frames_are_brought_to_size() -> None:
    frames = apply(EventAugmentation(), recordings(), size=12)
    assert frames.shape == (STEPS, 6, 2, 12, 12)
    plain = count_frames(recordings())
    torch.testing.assert_close(frames.mean((3, 4)), plain.mean((3, 4)))


@given(st.integers(0, 2**31))
def test_everything_at_once_stays_non_negative_and_bounded(seed: int) -> None:
    frames = apply(EVERYTHING, recordings(seed=seed % 1000), seed, size=16)
    assert frames.shape == (STEPS, 6, 2, 16, 16)
    assert frames.dtype == torch.float32
    assert frames.min() >= 0
    assert frames.isfinite().all()


def test_temporal_deletion_deletes_and_keeps_the_order() -> None:
    augmentation = EventAugmentation(temporal_deletion=3)
    kept = draw(augmentation)["kept"]
    assert kept.shape == (6, STEPS)
    assert (kept.diff(dim=1) > 0).all()
    assert kept.min() >= 0
    assert kept.max() < STEPS + 3
    batch = recordings()
    finer = count_frames(recordings(time_steps=STEPS + 3))
    frames = augmentation.apply(batch, {"kept": kept}, None)
    for b in range(6):
        assert torch.equal(frames[:, b], finer[kept[b], b])
    assert frames.sum() < 0.65 * 6 * 400  # of 400 events each, in 7 bins, those of 4 are left


def test_temporal_deletion_drops_every_bin_equally_often() -> None:
    kept = EventAugmentation(temporal_deletion=4).draw(8000, (4, 2, 5, 5), torch.Generator().manual_seed(0))["kept"]
    often = torch.bincount(kept.flatten(), minlength=8) / 8000
    assert often.sub(0.5).abs().max() < 0.03


def test_flip_mirrors_half_of_the_recordings() -> None:
    batch = recordings(200)
    plain, frames = count_frames(batch), apply(EventAugmentation(flip=True), batch)
    flipped, kept = ((frames == other).flatten(2).all(2).all(0) for other in (plain.flip(-1), plain))
    assert (flipped ^ kept).all()
    assert 70 < flipped.sum() < 130


def test_roll_shifts_all_frames_of_a_recording_around_the_border() -> None:
    batch, augmentation = recordings(), EventAugmentation(roll=3)
    plain, draws = count_frames(batch), draw(augmentation)
    frames = augmentation.apply(batch, draws, None)
    shifts = (draws["amount"] * 7).floor().long() - 3
    assert shifts.unique().numel() > 3
    for b in range(6):
        rolled = plain[:, b].roll(tuple(shifts[b].tolist()), (-2, -1))
        assert torch.equal(frames[:, b], rolled)


def test_rolls_reach_as_far_as_said() -> None:
    amount = EventAugmentation(roll=2).draw(5000, (1, 2, 8, 8), torch.Generator().manual_seed(0))["amount"]
    assert set(((amount * 5).floor() - 2).unique().tolist()) == {-2, -1, 0, 1, 2}


def disc(value: float = 5.0) -> Tensor:
    """A frame with one bright pixel right of the centre and one above it."""
    frames = torch.zeros(2, 1, 2, 21, 31)
    frames[:, :, :, 10, 24] = value
    frames[:, :, :, 3, 15] = value
    return frames


def centres(frames: Tensor) -> Tensor:
    """Where the mass of the right half and of the upper half lies, row and column."""
    map_ = frames[0, 0, 0]
    row, column = torch.meshgrid(torch.arange(21.0), torch.arange(31.0), indexing="ij")
    found = []
    for part in (column > 20, column <= 20):
        mass = map_ * part
        found += [(mass * row).sum() / mass.sum(), (mass * column).sum() / mass.sum()]
    return torch.stack(found)


def test_rotation_turns_about_the_centre_whatever_the_shape() -> None:
    augmentation = EventAugmentation(rotation=40)
    amount = torch.tensor([[0.75, 0.0]])  # half of the way: 20 degrees
    turned = augmentation._rotate(disc(), amount)
    cos, sin = np.cos(np.radians(20)), np.sin(np.radians(20))
    expected = torch.tensor([10 + 9 * sin, 15 + 9 * cos, 10 - 7 * cos, 15 + 7 * sin], dtype=torch.float32)
    torch.testing.assert_close(centres(turned), expected, atol=0.4, rtol=0)
    torch.testing.assert_close(turned.sum(), disc().sum(), atol=8.0, rtol=0)
    back = augmentation._rotate(disc(), 1 - amount)
    assert not torch.allclose(turned, back)


def test_shear_moves_rows_along_x() -> None:
    moved = EventAugmentation(shear=40)._shear(disc(), torch.tensor([[0.75, 0.0]]))
    expected = torch.tensor([10.0, 24.0, 3.0, 15 + 7 * np.tan(np.radians(20))], dtype=torch.float32)
    torch.testing.assert_close(centres(moved), expected, atol=0.4, rtol=0)


def test_cutout_blanks_a_square_in_all_frames() -> None:
    batch, augmentation = recordings(40), EventAugmentation(cutout=7)
    draws = draw(augmentation, 40)
    frames, plain = augmentation.apply(batch, draws, None), count_frames(batch)
    top = (draws["amount"][:, 0] * SIZE[0]).floor().long() - 3
    left = (draws["amount"][:, 1] * SIZE[1]).floor().long() - 3
    for b in range(40):
        expected = plain[:, b].clone()
        expected[..., max(top[b], 0) : top[b] + 7, max(left[b], 0) : left[b] + 7] = 0
        assert torch.equal(frames[:, b], expected)


def test_a_recording_gets_one_of_the_operations() -> None:
    """Each alone, as often as the others; those that are off never."""
    augmentation = EventAugmentation(roll=4, cutout=9)
    batch = recordings(300)
    plain, frames = count_frames(batch), apply(augmentation, batch)
    lost = frames.sum((0, 2, 3, 4)) < plain.sum((0, 2, 3, 4))  # cut out, as a roll keeps all events
    assert 110 < lost.sum() < 190
    cut = frames[:, lost]
    assert ((cut == 0) | (cut == plain[:, lost])).all()


def test_what_a_recording_becomes_depends_on_its_own_numbers() -> None:
    batch, draws = recordings(), draw(EVERYTHING)
    together = EVERYTHING.apply(batch, draws, 16)
    rng = np.random.default_rng(0)
    events = [random_events(rng, 400, SIZE) for _ in range(6)]
    for b in range(6):
        alone = EVERYTHING.apply(
            batch_of(events[b : b + 1], STEPS), {name: draw[b : b + 1] for name, draw in draws.items()}, 16
        )
        torch.testing.assert_close(together[:, b : b + 1], alone)


@pytest.mark.parametrize(
    ("field", "value"),
    [("flip", "perhaps"), ("roll", -1), ("rotation", 90), ("shear", -1), ("cutout", -1), ("resized_crop", (0.9, 0.5))],
)
def test_settings_that_make_no_sense(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        EventAugmentation(**{field: value})
