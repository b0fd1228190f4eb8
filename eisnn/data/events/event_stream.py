"""Event Stream 2 (`.es`), DVS events: each of five bytes, the first of which holds the time since the last event.

The first byte is 127 or 126 us of time and the polarity; x and y follow, little-endian. A byte 0xFF before an event
adds 127 us, and 0xFE does nothing. So where an event begins depends on all bytes before: from every byte of a piece one
knows the next beginning, and doubling that step finds all beginnings in as many rounds as the logarithm of its length.
"""

import numpy as np
from numpy.typing import NDArray

from .recording import Decoded, File

MAGIC = b"Event Stream"
HEADER, WIDTH = 20, 5
OVERFLOW, RESET = 0xFF, 0xFE
PIECE = 1 << 14  # bytes, of which a table fits into the cache
STREAMS = {0: "generic events, bytes without a pixel", 2: "ATIS events", 3: "display events", 4: "colour events"}


def decode(file: File) -> Decoded:
    start = _check_header(file)
    size = int(file.data[18:20].view("<u2")[0]), int(file.data[16:18].view("<u2")[0])
    body = file.data[start:]
    read, end = _beginnings(body)
    if end > len(body):
        last = int(np.flatnonzero(read)[-1])
        file.drop("truncated bytes", len(body) - last, "it ends inside an event of 5 bytes", start + last)
        read[last] = False
    is_event = read & (body < RESET)
    file.passed_over("resets", np.count_nonzero(read & (body == RESET)))
    step = np.where(is_event, body >> 1, np.where(read & (body == OVERFLOW), 127, 0)).astype(np.uint8)
    at = np.flatnonzero(is_event)
    t = np.cumsum(step, dtype=np.int64)[at]
    x, y = (body[at + k].astype(np.uint16) | body[at + k + 1].astype(np.uint16) << 8 for k in (1, 3))
    return Decoded(t, x, y, body[at] & 1, "Event Stream", lambda k: start + int(at[k]), size)


def _check_header(file: File) -> int:
    """The end of the header of a stream of DVS events."""
    version, kind = file.data[12:15].tolist(), file.data[15:16].tolist()
    if version[:1] != [2] or not kind:
        raise file.error(f"it is Event Stream {'.'.join(map(str, version))}; read is version 2", 12)
    if kind != [1]:
        what = STREAMS.get(kind[0], f"events of type {kind[0]}")
        raise file.error(f"it holds {what}; read are DVS events (type 1)", 15)
    if len(file.data) < HEADER:
        raise file.error("its header is cut off", len(file.data))
    return HEADER


def _beginnings(body: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], int]:
    """A bool array, true where an event, an overflow or a reset begins; and the byte after the last one."""
    begins = np.zeros(len(body), np.bool_)
    start = 0
    while start < len(body):
        piece = body[start : start + PIECE]
        length = len(piece)
        # Where the chain goes on from each byte; places past the piece, at most four, lead to themselves.
        step = np.arange(length + WIDTH, dtype=np.int32)
        step[:length] += np.where(piece >= RESET, 1, WIDTH).astype(np.int32)
        reached = np.zeros(length + WIDTH, np.bool_)
        reached[0] = True
        while step[0] < length:
            reached[step[reached.nonzero()[0]]] = True
            step = step[step]
        reached[step[reached.nonzero()[0]]] = True
        begins[start : start + length] = reached[:length]
        start += int(step[0])
    return begins, start
