"""Events of five bytes and nothing else: N-MNIST and N-Caltech101 (`.bin`), SLAYER (`.bs2`).

x, y, then the polarity bit and 23 bits of time in us, big-endian. A record with y = 240 is no event: it says that the
time has run over, by 2^13 us. Files have no header, so they are told by what they hold, and do not say how large the
sensor was.
"""

import numpy as np
from numpy.typing import NDArray

from .recording import Decoded, Events, File, unwrap

WIDTH = 5
TIME = 0x7FFFFF
OVERFLOW_ROW, OVERFLOW = 240, 1 << 13
IN_ORDER = 0.9  # share of the steps of time that do not go back; chance gives one half
FEWEST, MOST = 20, 2_000  # records by which one can tell that


def recognise(data: NDArray[np.uint8]) -> bool:
    """Whether bytes read as such records have times that run on, as no text or other data have."""
    t = _words(data[: WIDTH * MOST]) & TIME
    forward = np.count_nonzero(t[1:] >= t[:-1])
    return len(t) >= FEWEST and bool(forward >= IN_ORDER * (len(t) - 1) and t[-1] > t[0])


def decode(file: File) -> Decoded:
    rest = len(file.data) % WIDTH
    file.drop("truncated bytes", rest, "it ends inside a record of 5 bytes", len(file.data) - rest)
    t, wraps = unwrap(_words(file.data) & TIME, 23)
    x, y, polarity = (file.data[byte : len(t) * WIDTH : WIDTH] for byte in range(3))
    p, offset = polarity >> 7, lambda k: WIDTH * k
    marks = y == OVERFLOW_ROW
    overflows = np.count_nonzero(marks)
    if overflows:
        kept = np.flatnonzero(~marks)
        t += np.cumsum(marks) * OVERFLOW
        t, x, y, p, offset = t[kept], x[kept], y[kept], p[kept], lambda k: WIDTH * int(kept[k])
    file.passed_over("times that had run over", overflows + wraps)
    return Decoded(t, x, y, p, "N-MNIST", offset)


def encode(events: Events) -> bytes:
    """The recording in this format.

    Raises:
        ValueError: it does not fit into 8 bits of x, 8 of y (without 240) and 23 of time.
    """
    if len(events) and not (max(events.size) <= OVERFLOW_ROW and events.t[0] >= 0 and events.t[-1] < 1 << 23):
        raise ValueError(
            f"this format holds sensors of up to 240 x 240 pixels and 8.3 s from time 0; got size {events.size} and "
            f"times {events.t[0]} to {events.t[-1]} us"
        )
    columns = (events.x, events.y, events.p.astype(np.int64) << 7 | events.t >> 16, events.t >> 8 & 255, events.t & 255)
    return np.stack([column.astype(np.uint8) for column in columns], 1).tobytes()


def _words(data: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """The last four bytes of each record as a number: y, polarity and time."""
    return np.ndarray((len(data) // WIDTH,), ">u4", data, 1, (WIDTH,)).astype(np.uint32)
