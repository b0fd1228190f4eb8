"""One recording of an event camera as a structure of arrays, and the checks that every format's events pass."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eisnn.data.errors import DataError

MAX_DISORDER = 1_000_000  # us by which an event may come late: more is no disorder but damage, or two recordings in one


@dataclass(frozen=True, eq=False)
class Events:
    """A recording: N events in the order of their times.

    Attributes:
        t: int64 [N], microseconds on the recording's own clock, never decreasing.
        x: uint16 [N], column, 0 at the left.
        y: uint16 [N], row, 0 at the top.
        p: uint8 [N], 1 where it became brighter (ON), 0 where darker (OFF).
        size: height and width of the sensor, pixels.
        format: what the recording was read from, such as "EVT3".
        size_known: False where the format does not say the size, so that it is the smallest that holds all events.
        repairs: what had to be mended, dropped or passed over while reading, and how often; empty where nothing was.
    """

    t: NDArray[np.int64]
    x: NDArray[np.uint16]
    y: NDArray[np.uint16]
    p: NDArray[np.uint8]
    size: tuple[int, int]
    format: str = "events"
    size_known: bool = True
    repairs: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.t)

    def __getitem__(self, index: slice | NDArray) -> "Events":
        """The events of a slice, where a bool array is true, or at the indices of an array."""
        return replace(self, t=self.t[index], x=self.x[index], y=self.y[index], p=self.p[index])

    @property
    def duration(self) -> int:
        """From the first to the last event, microseconds."""
        return int(self.t[-1] - self.t[0]) if len(self) else 0


@dataclass(frozen=True)
class File:
    """The bytes of a file that is being read, what was repaired in it, and how its faults are told.

    Attributes:
        path: for messages.
        data: uint8, the whole file.
        repair: count and drop what cannot be used, rather than raise.
    """

    path: str | Path
    data: NDArray[np.uint8]
    repair: bool = False
    repairs: Counter[str] = field(default_factory=Counter)

    def error(self, problem: str, offset: int) -> DataError:
        """The error that says what is wrong at byte `offset`."""
        return DataError(f"{self.path}: {problem}, at byte {offset:,} of {len(self.data):,}")

    def passed_over(self, what: str, count: int | np.integer) -> None:
        """Notes what the format has besides polarity events, or marks as not valid."""
        if count:
            self.repairs[what] += int(count)

    def drop(self, what: str, count: int | np.integer, problem: str, offset: int) -> None:
        """Counts what is dropped if the caller has asked for repair, else raises.

        Raises:
            DataError: there is something to drop, and `repair` is off.
        """
        if count and not self.repair:
            raise self.error(f"{problem}; repair=True (in a shell --repair) drops it", offset)
        self.passed_over(what, count)

    def records(self, start: int, dtype: np.dtype) -> NDArray:
        """The records of fixed width from byte `start` to the end; a part of one at the end is a fault."""
        rest = (len(self.data) - start) % dtype.itemsize
        if rest:
            problem = f"it ends inside a record of {dtype.itemsize} bytes"
            self.drop("truncated bytes", rest, problem, len(self.data) - rest)
        return self.data[start : len(self.data) - rest].view(dtype)


@dataclass(frozen=True, eq=False)
class Decoded:
    """What a format's reader makes of a file, before `finish` checks it: as `Events`, any integer types, any order."""

    t: NDArray
    x: NDArray
    y: NDArray
    p: NDArray
    format: str
    offset: Callable[[int], int]  # byte at which event k lies
    size: tuple[int, int] | None = None
    largest: tuple[int, int] = (1 << 16, 1 << 16)  # what the format can address, where it does not say the size


def finish(file: File, events: Decoded, size: tuple[int, int] | None) -> Events:
    """Sorts and checks the events of any format.

    Raises:
        DataError: no events, events off the sensor, or times that jump back by more than `MAX_DISORDER`.
    """
    if size is not None and events.size not in (size, None):
        raise DataError(f"{file.path}: its sensor has height and width {events.size}, not {size} as given")
    known = size or events.size
    t, x, y, p = events.t.astype(np.int64, copy=False), events.x, events.y, events.p
    offset = events.offset
    extent, (height, width) = _extent(x, y), known or events.largest
    if extent[0] > height or extent[1] > width:
        off = (x >= width) | (y >= height)
        first = int(off.argmax())
        pixel = f"event {first:,} lies at x {x[first]}, y {y[first]}, off the sensor of {width} x {height}"
        file.drop("events off the sensor", np.count_nonzero(off), pixel, offset(first))
        kept = np.flatnonzero(~off)
        t, x, y, p, offset = t[kept], x[kept], y[kept], p[kept], lambda k: events.offset(int(kept[k]))
        extent = _extent(x, y)
    if not len(t):
        raise file.error(f"{events.format} without any event" + _among(file.repairs), len(file.data))
    if np.count_nonzero(t[1:] < t[:-1]):
        t, x, y, p = _sort(file, t, x, y, p, offset)
    return Events(
        t,
        x.astype(np.uint16, copy=False),
        y.astype(np.uint16, copy=False),
        p.astype(np.uint8, copy=False),
        known or extent,
        events.format,
        known is not None,
        dict(file.repairs),
    )


def _extent(x: NDArray, y: NDArray) -> tuple[int, int]:
    """Height and width of the smallest sensor that holds all events."""
    return (int(y.max()) + 1, int(x.max()) + 1) if len(x) else (0, 0)


def _sort(file: File, t: NDArray, x: NDArray, y: NDArray, p: NDArray, offset: Callable[[int], int]) -> tuple:
    behind = np.maximum.accumulate(t) - t
    worst = int(behind.argmax())
    if behind[worst] > MAX_DISORDER:
        raise file.error(
            f"the time jumps back by {behind[worst] / 1e6:.3f} s at event {worst:,}: a damaged time, or two recordings "
            "in one file",
            offset(worst),
        )
    file.passed_over("events out of order, sorted", np.count_nonzero(behind))
    order = np.argsort(t, kind="stable")
    return t[order], x[order], y[order], p[order]


def _among(repairs: Counter[str]) -> str:
    return f" ({', '.join(f'{what}: {count:,}' for what, count in repairs.items())})" if repairs else ""


def unwrap(t: NDArray, bits: int) -> tuple[NDArray[np.int64], int]:
    """Times of a counter of `bits` bits that has run over, as one growing time; and how often it has.

    The counter has run over where it falls from its last quarter into its first: a single damaged bit cannot do that.
    """
    t = t.astype(np.int64)
    falls = t[1:] < t[:-1]
    if not np.count_nonzero(falls):
        return t, 0
    fell = np.flatnonzero(falls)
    quarter = 1 << (bits - 2)
    wraps = fell[(t[fell] >= 3 * quarter) & (t[fell + 1] < quarter)] + 1
    if len(wraps):
        over = np.zeros(len(t), np.int64)
        over[wraps] = 1
        t += np.cumsum(over) << bits
    return t, len(wraps)
