"""Streams of events, and windows of time in them: from a recording, a pipe, or any iterator of events."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from io import BufferedReader
from pathlib import Path

import numpy as np

from eisnn.data.errors import DataError

from .files import decode
from .recording import Events

CHUNK = 1 << 16  # bytes that are asked of a pipe at once; fewer come if there are no more yet
RECORD = 8  # bytes of an event of DAT


def from_pipe(pipe: BufferedReader, size: tuple[int, int] | None = None) -> Iterator[Events]:
    """The events of a pipe that carries DAT (Prophesee), as they come.

    Args:
        pipe: such as `sys.stdin.buffer`.
        size: height and width of the sensor, pixels, if the header does not say it.

    Raises:
        DataError: the pipe carries something else, ends inside an event, or nobody says the size of the sensor.
    """
    name = Path("the pipe")
    header, rest = _header(pipe)
    if not header.startswith(b"%") or header[-1] != RECORD:
        raise DataError(f"{name} carries no DAT, which begins with lines of %; it begins with {(header + rest)[:20]!r}")
    over, last = 0, 0
    while chunk := pipe.read1(CHUNK):
        rest += chunk
        whole = len(rest) // RECORD * RECORD
        if not whole:
            continue
        events = decode(name, np.frombuffer(header + rest[:whole], np.uint8), size=size)
        if not events.size_known:
            raise DataError(
                f"{name} does not say how large its sensor is; give size=(height, width) (in a shell --size)"
            )
        over += (1 << 32) * bool(last - events.t[0] > 3 << 30)  # the counter of 32 bits has run over
        rest, last = rest[whole:], int(events.t[-1])
        yield replace(events, t=events.t + over)
    if rest or not last:
        raise DataError(
            f"{name} ends {f'inside an event, after {len(rest)} bytes of it' if rest else 'without events'}"
        )


def _header(pipe: BufferedReader) -> tuple[bytes, bytes]:
    """The lines that begin with %, with the two bytes after them; and what was read of the events already."""
    header = b""
    while (line := pipe.readline()).startswith(b"%"):
        header += line
        if line.strip() == b"% end":
            line = b""
            break
    kind = line + pipe.read(max(2 - len(line), 0))
    return header + kind[:2], kind[2:]


def windows(stream: Iterable[Events], duration: int) -> Iterator[Events]:
    """Divides a stream into windows of equal time, counted from its first event; those without events come as well.

    A window is given once an event after its end has come, or the stream has ended. Events that come later than the
    window they belong to are in the one that is open.

    Args:
        stream: events as they come, of one sensor.
        duration: of a window, microseconds.

    Raises:
        ValueError: the duration is below 1.
    """
    if duration < 1:
        raise ValueError(f"the duration of a window is {duration} us, expected at least 1")
    waiting: Events | None = None
    end = 0
    for chunk in stream:
        if not len(chunk):
            continue
        if waiting is None:
            waiting, end = chunk, int(chunk.t[0]) + duration
        else:
            waiting = _joined(waiting, chunk)
        while len(waiting) and waiting.t[-1] >= end:
            count = int(np.searchsorted(waiting.t, end))
            yield waiting[:count]
            waiting, end = waiting[count:], end + duration
    if waiting is not None:
        yield waiting


def _joined(one: Events, other: Events) -> Events:
    t, x, y, p = (np.concatenate((getattr(one, name), getattr(other, name))) for name in ("t", "x", "y", "p"))
    joined = replace(one, t=t, x=x, y=y, p=p)
    return joined[np.argsort(t, kind="stable")] if len(one) and other.t[0] < one.t[-1] else joined
