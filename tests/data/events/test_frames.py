"""Frames against a loop over events; scaling against sums and averages worked out otherwise."""

import numpy as np
import pytest
import torch
from event_files import batch_of
from torch import Tensor
from torch.nn.functional import avg_pool2d

from eisnn.data.events import Events
from eisnn.data.events.frames import count_frames, crop_and_scale

SIZE = (5, 7)


def recording(rng: np.random.Generator, n: int, size: tuple[int, int] = SIZE) -> Events:
    """Events at uneven times, with one pause too long for the packing's bits."""
    pauses = rng.integers(0, 50, n)
    pauses[n // 2] += 1 << 27
    x, y, p = (rng.integers(0, high, n) for high in (size[1], size[0], 2))
    return Events(1000 + np.cumsum(pauses), x.astype("u2"), y.astype("u2"), p.astype("u1"), size)


def by_hand(recordings: list[Events], bins: int, by: str) -> Tensor:
    frames = torch.zeros(bins, len(recordings), 2, *recordings[0].size)
    for b, events in enumerate(recordings):
        n, t = len(events), events.t.tolist()
        for k in range(n):
            position, extent = (k, n) if by == "count" else (t[k] - t[0], t[-1] - t[0] + 1)
            frames[position * bins // extent, b, events.p[k], events.y[k], events.x[k]] += 1
    return frames


@pytest.mark.parametrize("bins", ["count", "time"])
@pytest.mark.parametrize("time_steps", [1, 3, 10])
def test_frames_count_events(bins: str, time_steps: int) -> None:
    rng = np.random.default_rng(0)
    recordings = [recording(rng, n) for n in (200, 1, 7, 1000)]
    frames = count_frames(batch_of(recordings, time_steps, bins))
    assert torch.equal(frames, by_hand(recordings, time_steps, bins))
    assert frames.dtype == torch.float32
    assert frames.sum((0, 2, 3, 4)).tolist() == [200, 1, 7, 1000]


def test_bins_by_count_differ_by_one_event_at_most() -> None:
    frames = count_frames(batch_of([recording(np.random.default_rng(0), 1003)], 10))
    assert set(frames.sum((1, 2, 3, 4)).tolist()) == {100, 101}


def test_bins_by_time_take_equally_long() -> None:
    t = np.array([0, 9, 10, 19, 20, 29])
    events = Events(t, np.zeros(6, "u2"), np.zeros(6, "u2"), np.ones(6, "u1"), SIZE)
    assert count_frames(batch_of([events], 3, "time")).sum((1, 2, 3, 4)).tolist() == [2, 2, 2]
    late = Events(np.array([0, 28, 29]), *(array[:3] for array in (events.x, events.y, events.p)), SIZE)
    assert count_frames(batch_of([late], 3, "time")).sum((1, 2, 3, 4)).tolist() == [1, 0, 2]


def test_frames_may_be_dropped() -> None:
    """Random temporal deletion: seven bins, of which four become frames, others for each recording."""
    rng = np.random.default_rng(0)
    recordings = [recording(rng, n) for n in (300, 50)]
    kept = torch.tensor([[0, 2, 3, 6], [1, 2, 4, 5]])
    frames = count_frames(batch_of(recordings, 4), kept, 7)
    all_seven = by_hand(recordings, 7, "count")
    for b in range(2):
        assert torch.equal(frames[:, b], all_seven[kept[b], b])


def whole(frames: Tensor) -> Tensor:
    return torch.tensor([[0, 0, *frames.shape[-2:]]]).expand(frames.shape[1], 4)


def random_frames(height: int = 12, width: int = 16) -> Tensor:
    return torch.randint(0, 5, (3, 2, 2, height, width), generator=torch.Generator().manual_seed(0)).float()


def test_scaling_to_a_whole_fraction() -> None:
    frames = random_frames()
    average = crop_and_scale(frames, whole(frames), 3, 4, "average")
    torch.testing.assert_close(average.flatten(0, 1), avg_pool2d(frames.flatten(0, 1), 4))
    total = crop_and_scale(frames, whole(frames), 3, 4, "sum")
    torch.testing.assert_close(total, average * 16)


@pytest.mark.parametrize("size", [(5, 7), (48, 48), (12, 16), (1, 1)])
def test_scaling_keeps_sum_or_average(size: tuple[int, int]) -> None:
    frames = random_frames()
    axes = (-2, -1)
    total = crop_and_scale(frames, whole(frames), *size, "sum")
    torch.testing.assert_close(total.sum(axes), frames.sum(axes))
    average = crop_and_scale(frames, whole(frames), *size, "average")
    torch.testing.assert_close(average.mean(axes), frames.mean(axes))
    assert min(total.min(), average.min()) >= 0


def test_crops_are_of_each_recording() -> None:
    frames = random_frames()
    boxes = torch.tensor([[0, 0, 6, 8], [3, 5, 9, 11]])
    cropped = crop_and_scale(frames, boxes, 9, 11, "average")
    torch.testing.assert_close(cropped[:, 1], frames[:, 1, :, 3:12, 5:16])
    alone = crop_and_scale(frames[:, :1], boxes[:1], 9, 11, "average")
    torch.testing.assert_close(cropped[:, :1], alone)
    assert torch.allclose(cropped[:, 0].mean((-2, -1)), frames[:, 0, :, :6, :8].mean((-2, -1)))
