"""Frames of events: a batch of recordings to counts `[T, B, 2, H, W]`, on the device that holds the events.

T time bins, B recordings, 2 polarities (OFF, ON), H x W pixels; E events of the whole batch, one recording after the
other. No loop over recordings or events, and nothing that waits for the device.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from eisnn.config import Config

from .packing import Packing
from .recording import Events

Bins = Literal["count", "time"]
Scaling = Literal["average", "sum"]


class FrameSettings(Config):
    """How events become frames."""

    bins: Bins = Field("count", description="Time bins hold equally many events of a recording, or take equally long.")
    scaling: Scaling = Field(
        "average",
        description="What a pixel is where frames change their size: the average count of the sensor's pixels that it "
        "covers, or the sum of their counts.",
    )


@dataclass(frozen=True, eq=False)
class EventBatch:
    """Packed events of B recordings.

    Attributes:
        events: int32 [E], the bits of `Packing`.
        counts: int64 [B], events of each recording; 0 with bins by count, or a single one, only.
        gaps: int64 [G, 2], index into `events` and microseconds, see `Packed`.
        packing: how the events are packed.
        settings: how they become frames.
        time_steps: T.
    """

    events: Tensor
    counts: Tensor
    gaps: Tensor
    packing: Packing
    settings: FrameSettings
    time_steps: int

    def __len__(self) -> int:
        return len(self.counts)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "EventBatch":
        """The same on `device`."""
        events, counts, gaps = (
            tensor.to(device, non_blocking=non_blocking) for tensor in (self.events, self.counts, self.gaps)
        )
        return replace(self, events=events, counts=counts, gaps=gaps)


def batch_of(recordings: Sequence[Events], time_steps: int, settings: FrameSettings) -> EventBatch:
    """Recordings of one sensor as a batch on the CPU; they may be empty."""
    packing = Packing(recordings[0].size)
    packed = [packing.pack(events) for events in recordings]
    counts = torch.tensor([len(events) for events in recordings])
    begins = (counts.cumsum(0) - counts).tolist()
    gaps = np.concatenate([one.gaps + np.array([begin, 0]) for one, begin in zip(packed, begins, strict=True)])
    events = np.concatenate([one.events for one in packed])
    return EventBatch(
        torch.from_numpy(events.view(np.int32)), counts, torch.from_numpy(gaps), packing, settings, time_steps
    )


def count_frames(batch: EventBatch, kept: Tensor | None = None, bins: int | None = None) -> Tensor:
    """Counts the events of each time bin, polarity and pixel.

    With bins by count, bin k of a recording of n events holds those from k n / bins on, so that bins differ by one
    event at most; by time, bins are equal parts of the time from its first to its last event.

    Args:
        batch: the recordings.
        kept: int64 [B, T], the bins of each recording that become its frames, in order; None keeps all.
        bins: how many bins to make; None makes T.

    Returns:
        float32 [T, B, 2, H, W], whole numbers >= 0.
    """
    frames, size, device = batch.time_steps, len(batch), batch.events.device
    starts = _bin_starts(batch, bins or frames)
    ends = torch.cat((starts[:, 1:], batch.counts.cumsum(0)[:, None]), 1)
    frame = torch.arange(bins or frames, device=device).expand(size, -1)
    room = frames
    if kept is not None:
        room = frames + 1  # the last takes what is not kept
        order = torch.arange(frames, device=device).expand(size, -1)
        frame = torch.full_like(frame, frames).scatter(1, kept, order)
    addresses, packing = batch.packing.addresses, batch.packing
    first = (frame * size + torch.arange(size, device=device)[:, None]) * addresses  # of the maps of each bin
    flat = torch.repeat_interleave(first.flatten(), (ends - starts).flatten(), output_size=len(batch.events))
    flat += batch.events & ((1 << packing.address_bits) - 1)
    counts = torch.zeros(room * size * addresses, device=device)
    counts.scatter_add_(0, flat, torch.ones(1, device=device).expand(len(flat)))
    return counts.view(room, size, 2, *packing.size)[:frames]


def _bin_starts(batch: EventBatch, bins: int) -> Tensor:
    """Index of the first event of each bin, int64 [B, bins]: event k of n is in bin `k * bins // n`, or likewise by
    time."""
    starts = batch.counts.cumsum(0) - batch.counts
    order = torch.arange(bins, device=batch.events.device)
    if batch.settings.bins == "count" or bins == 1:
        return starts[:, None] + _ceil(order * batch.counts[:, None], bins)
    pause = (batch.events >> batch.packing.address_bits & batch.packing.longest).long()
    pause.index_add_(0, batch.gaps[:, 0], batch.gaps[:, 1])
    time = pause.cumsum(0)  # of the whole batch: never back, as each recording begins without a pause
    last = starts + batch.counts - 1
    first = time[starts][:, None]
    found = torch.searchsorted(time, first + _ceil(order * (time[last][:, None] - first + 1), bins))
    found[:, 0] = starts  # before it events of another recording may have the same time
    return torch.minimum(found, last[:, None] + 1)


def _ceil(a: Tensor, b: int) -> Tensor:
    return -(-a // b)


def crop_and_scale(frames: Tensor, boxes: Tensor, height: int, width: int, scaling: str) -> Tensor:
    """Brings a box of each recording's frames to another size, by area.

    A pixel of the result covers a rectangle of the sensor, and pixels of the sensor count by the part of them inside.

    Args:
        frames: [T, B, 2, H, W].
        boxes: [B, 4], top, left, height, width in pixels of the sensor.
        height: of the result, pixels.
        width: of the result, pixels.
        scaling: "average" of the counts in the rectangle, or their "sum".

    Returns:
        [T, B, 2, height, width]
    """
    top, left, tall, wide = boxes.to(frames.dtype).unbind(1)
    vertical = _overlaps(top, tall, frames.shape[3], height)
    horizontal = _overlaps(left, wide, frames.shape[4], width)
    if scaling == "average":
        vertical, horizontal = (weights / weights.sum(-1, keepdim=True) for weights in (vertical, horizontal))
    return vertical[:, None] @ (frames @ horizontal[:, None].mT)


def _overlaps(start: Tensor, length: Tensor, inputs: int, outputs: int) -> Tensor:
    """How much of input pixel i lies in output pixel o, [B, outputs, inputs]; a row sums to length / outputs."""
    begin = torch.arange(inputs, device=start.device, dtype=start.dtype)
    low = start[:, None, None] + torch.arange(outputs, device=start.device)[:, None] * (length / outputs)[:, None, None]
    high = low + (length / outputs)[:, None, None]
    return (torch.minimum(high, begin + 1) - torch.maximum(low, begin)).clamp(min=0)
