"""Recordings of a data set as a split: batches of them become frames on the training device."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from eisnn.data.dataset import Dataset, Split
from eisnn.data.errors import DataError
from eisnn.data.source import Source

from .augment import EventAugmentation
from .frames import Bins, EventBatch, FrameSettings, Scaling
from .layout import Layout
from .packing import Packed, Packing
from .recording import Events
from .store import Store, open_store


@dataclass(frozen=True, eq=False, repr=False)
class Recordings(Split):
    """N recordings of one sensor, which come in batches of frames, float32 [T, B, 2, H, W] >= 0.

    Attributes:
        events: int32 [E], the packed events of these and other recordings, mapped from a file or on a device.
        begins, counts: int64 [N] on the CPU, where in `events` each recording begins, and how many it has.
        gaps: int64 [G, 2], index into `events` and microseconds, see `Packed`; sorted.
        labels: int64 [N], where the events are.
        checksums: uint32 [N], of each recording's events.
        packing: how events are packed.
        settings: how they become frames.
        time_steps: T.
    """

    events: Tensor
    begins: Tensor
    counts: Tensor
    gaps: NDArray[np.int64]
    labels: Tensor
    checksums: NDArray[np.uint32]
    packing: Packing
    settings: FrameSettings
    time_steps: int
    batch_axis = 1
    augmentation = EventAugmentation
    kind = "recordings"

    @property
    def sample_shape(self) -> Sequence[int]:
        return self.time_steps, 2, *self.packing.size

    @property
    def nbytes(self) -> int:
        return 4 * int(self.counts.sum())

    def __getitem__(self, index: Tensor | slice) -> "Recordings":
        own = index if isinstance(index, slice) else index.cpu()
        return replace(
            self,
            begins=self.begins[own],
            counts=self.counts[own],
            labels=self.labels[index],
            checksums=self.checksums[own if isinstance(own, slice) else own.numpy()],
        )

    def to(self, device: torch.device | str) -> "Recordings":
        """These recordings alone on `device`; on the CPU they stay where they are."""
        if torch.device(device) == self.events.device:
            return self
        everything = self._select(torch.arange(len(self)))
        return replace(
            self,
            events=everything.events.to(device),
            begins=self.counts.cumsum(0) - self.counts,
            gaps=everything.gaps.cpu().numpy(),
            labels=self.labels.to(device),
        )

    def batches(self, order: Tensor, parts: Iterable[slice], device: torch.device | None) -> Iterator[EventBatch]:
        if device is None:
            return (self._select(order[part]) for part in parts)
        return self._stream((order[part] for part in parts), device)

    def digest(self) -> str:
        digest = xxhash.xxh3_128(self.checksums.tobytes())
        digest.update(self.labels.cpu().numpy().tobytes())
        return digest.hexdigest()

    def recording(self, k: int) -> Events:
        """Recording k as events, from time 0 on."""
        index = torch.tensor([k])
        batch = self._select(index).to("cpu")
        return self.packing.unpack(Packed(batch.events.numpy().view(np.uint32), batch.gaps.numpy(), 0))

    def _batch(self, index: Tensor, events: Tensor) -> EventBatch:
        counts, gaps = self.counts[index].to(events.device), self._gaps(index).to(events.device)
        return EventBatch(events, counts, gaps, self.packing, self.settings, self.time_steps)

    def _select(self, index: Tensor) -> EventBatch:
        """The recordings `index`, gathered where the events are."""
        if self.events.is_cpu:
            return self._read(index, torch.empty(self._total(index), dtype=torch.int32))
        begins, counts = (tensor[index].to(self.events.device) for tensor in (self.begins, self.counts))
        return self._batch(index, self.events[positions(begins, counts, self._total(index))])

    def _read(self, index: Tensor, room: Tensor) -> EventBatch:
        """The recordings `index` from memory or disk into `room`, on the CPU."""
        pieces = zip(self.begins[index].tolist(), self.counts[index].tolist(), strict=True)
        torch.cat([self.events[begin : begin + count] for begin, count in pieces], out=room)
        return self._batch(index, room)

    def _total(self, index: Tensor) -> int:
        return int(self.counts[index].sum())

    def _gaps(self, index: Tensor) -> Tensor:
        """The gaps of the recordings `index`, counted from the first event of the first of them."""
        if not len(self.gaps):
            return torch.empty(0, 2, dtype=torch.int64)
        begins, counts = self.begins[index].numpy(), self.counts[index].numpy()
        first, last = np.searchsorted(self.gaps[:, 0], (begins, begins + counts))
        shift = np.cumsum(counts) - counts - begins
        own = [self.gaps[low:high] + np.array([by, 0]) for low, high, by in zip(first, last, shift, strict=True)]
        return torch.from_numpy(np.concatenate(own))

    def _stream(self, indices: Iterable[Tensor], device: torch.device) -> Iterator[EventBatch]:
        """For each of `indices` its batch on `device`; while one is in use, a thread reads the next."""
        with ThreadPoolExecutor(1) as reader:
            ahead: Future[EventBatch] | None = None
            for index in indices:
                # Made here, as a new thread would take the first CUDA device for its own.
                room = torch.empty(self._total(index), dtype=torch.int32, pin_memory=device.type == "cuda")
                read, ahead = ahead, reader.submit(self._read, index, room)
                if read is not None:
                    yield read.result().to(device, non_blocking=True)
            if ahead is not None:
                yield ahead.result().to(device, non_blocking=True)


def positions(begins: Tensor, counts: Tensor, total: int) -> Tensor:
    """The positions from `begins[k]` on, `counts[k]` of them, one k after the other; int64 [total]."""
    shift = torch.repeat_interleave(begins - (counts.cumsum(0) - counts), counts, output_size=total)
    return torch.arange(total, device=counts.device) + shift


Choose = Callable[[Sequence[str]], NDArray[np.bool_]]


def source(
    layout: Layout | None,
    time_steps: int | None,
    bins: Bins,
    scaling: Scaling,
    is_test: Choose | None = None,
    **said: Any,
) -> Source | None:
    """A data set of recordings for the catalog.

    Args:
        layout: its raw files; None if they are not there.
        time_steps: T, frames of a recording.
        bins: see `FrameSettings`.
        scaling: likewise.
        is_test: which recordings are for evaluation, by their names; None takes those called `test/...`.
        **said: what else was chosen, for the record of a run.

    Returns:
        None without a layout.

    Raises:
        DataError: no time steps.
    """
    if layout is None:
        return None
    if time_steps is None:
        raise DataError(f"{layout.root} holds recordings of events: give time_steps, the frames to make of each")
    settings = FrameSettings(bins=bins, scaling=scaling)
    files = (*dict.fromkeys(file.path for file in layout.files), *layout.others)

    def convert(place: Path, rebuild: bool) -> Dataset:
        store = open_store(layout, place, rebuild=rebuild)
        test = torch.from_numpy((is_test or _called_test)(store.names))
        everything = _all(store, settings, time_steps)
        return Dataset(
            layout.root.name,
            store.classes,
            everything[~test],
            everything[test],
            preprocessing={"time_steps": time_steps, **settings.model_dump(), **said},
        )

    def read() -> Dataset:
        with TemporaryDirectory() as place:  # what is mapped outlives its name
            return convert(Path(place), False)

    return Source(layout.root, files, read, convert)


def _called_test(names: Sequence[str]) -> NDArray[np.bool_]:
    return np.array([name.startswith("test/") for name in names])


def _all(store: Store, settings: FrameSettings, time_steps: int) -> Recordings:
    total = int(store.offsets[-1])
    return Recordings(
        torch.from_file(str(store.folder / "events.bin"), shared=False, size=total, dtype=torch.int32),
        torch.from_numpy(store.offsets[:-1]),
        torch.from_numpy(np.diff(store.offsets)),
        store.gaps,
        torch.from_numpy(store.labels),
        store.checksums,
        store.packing,
        settings,
        time_steps,
    )
