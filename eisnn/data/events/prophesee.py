"""Prophesee's formats: DAT (N-Cars, GEN1), and EVT 2.0 and EVT 3.0, what its cameras send (`.raw`).

A header of lines that begin with `%`, then little-endian binary. A word of an EVT stream changes a state (time, row,
first column of a vector) or is an event under the state so far. We have no loop over words: at each event the state is
the last one that was set before it, so it is repeated as often as events follow (`_last`).
"""

import re

import numpy as np
from numpy.typing import NDArray

from .recording import Decoded, Events, File, unwrap
from .sensors import sensor_size

# 14 bits of x, 14 of y and 4 of polarity; x and polarity are also read from the half and the byte that hold them.
DAT_EVENT = np.dtype(
    {"names": ["t", "data", "x", "p"], "formats": ["<u4", "<u4", "<u2", "u1"], "offsets": [0, 4, 4, 7], "itemsize": 8}
)
VERSION = re.compile(r"version (\d+)")
EVT = re.compile(r"evt\s*(\d(?:\.\d)?)")
GEOMETRY = re.compile(r"geometry[: ]+(\d+)\s*x\s*(\d+)")
# Whole words; a pattern that begins with letters is found ten times faster than one that begins with \b.
HEIGHT, WIDTH = (re.compile(rf"{name}(?<!\w{name})[= ](\d+)") for name in ("height", "width"))
LARGEST = (2048, 2048)  # of an EVT sensor: addresses have 11 bits


def decode(file: File) -> Decoded:
    """DAT or EVT, as the header says."""
    start, header = _header(file)
    version = EVT.search(header)
    if version is None:
        return _decode_dat(file, start, header)
    if version.group(1)[0] == "2" and version.group(1) != "2.1":
        return _decode_evt2(file, start, _size(header))
    if version.group(1)[0] == "3":
        return _decode_evt3(file, start, _size(header))
    raise file.error(f"it is EVT {version.group(1)}; read are EVT 2.0 and EVT 3.0", 0)


def encode_dat(events: Events) -> bytes:
    """The recording as DAT.

    Raises:
        ValueError: times that do not fit into 32 bits.
    """
    if len(events) and not (events.t[0] >= 0 and events.t[-1] < 1 << 32):
        raise ValueError(f"DAT holds times of 32 bits, got {events.t[0]} to {events.t[-1]} us")
    height, width = events.size
    records = np.empty(len(events), DAT_EVENT)
    records["t"] = events.t
    records["data"] = events.x | events.y.astype(np.uint32) << 14 | events.p.astype(np.uint32) << 28
    header = f"% Data file containing CD events.\n% Version 2\n% Height {height}\n% Width {width}\n% end\n"
    return header.encode() + bytes((12, 8)) + records.tobytes()


def _header(file: File) -> tuple[int, str]:
    """Where the binary part begins, and the lines before it, in small letters."""
    content = file.data[: 1 << 16].tobytes()
    start = 0
    while content.startswith(b"% ", start) or content.startswith(b"%\n", start):
        line_end = content.find(b"\n", start)
        if line_end < 0:
            raise file.error("its header has no end", len(content))
        line, start = content[start:line_end], line_end + 1
        if line.strip() == b"% end":
            break
    return start, content[:start].decode("latin1").lower()


def _size(header: str) -> tuple[int, int] | None:
    if found := GEOMETRY.search(header):
        return int(found.group(2)), int(found.group(1))
    height, width = HEIGHT.search(header), WIDTH.search(header)
    if height and width:
        return int(height.group(1)), int(width.group(1))
    return sensor_size(header)  # by the name of the camera's driver


def _decode_dat(file: File, start: int, header: str) -> Decoded:
    version = VERSION.search(header)
    if version is None or version.group(1) != "2":
        raise file.error(f"its header names {version.group() if version else 'no version'}; read is DAT version 2", 0)
    kind, width = (*file.data[start : start + 2].tolist(), -1, -1)[:2]
    if kind not in (0, 12) or width != DAT_EVENT.itemsize:
        raise file.error(f"its events are of type {kind} and {width} bytes; read is type 0 or 12 of 8 bytes", start)
    records = file.records(start + 2, DAT_EVENT)
    t, wraps = unwrap(records["t"], 32)
    file.passed_over("times that had run over", wraps)
    x, y, p = records["x"] & 0x3FFF, (records["data"] >> 14).astype(np.uint16) & 0x3FFF, records["p"] >> 4
    offset = lambda k: start + 2 + 8 * k  # noqa: E731
    if len(p) and p.max() > 1:
        impossible = p > 1
        first = int(impossible.argmax())
        problem = f"event {first:,} has polarity {p[first]}"
        file.drop("events with impossible polarity", np.count_nonzero(impossible), problem, offset(first))
        kept = np.flatnonzero(~impossible)
        t, x, y, p, offset = t[kept], x[kept], y[kept], p[kept], lambda k: start + 2 + 8 * int(kept[k])
    return Decoded(t, x, y, p, "DAT", offset, _size(header))


# EVT 2.0: words of 32 bits, the type in the upper four. Events carry 6 bits of time, EVT_TIME_HIGH the 28 above.
EVT2_OFF, EVT2_ON, EVT2_TIME_HIGH = 0x0, 0x1, 0x8
EVT2_OTHER = {0xA: "external triggers", 0xE: "other words", 0xF: "continued words"}


def _decode_evt2(file: File, start: int, size: tuple[int, int] | None) -> Decoded:
    words = file.records(start, np.dtype("<u4"))
    kind = (words >> 28).astype(np.uint8)
    _pass_over(file, kind, (EVT2_OFF, EVT2_ON, EVT2_TIME_HIGH), EVT2_OTHER, start, 4)
    clock, events = np.flatnonzero(kind == EVT2_TIME_HIGH), np.flatnonzero(kind <= EVT2_ON)
    early = events < _first(clock)
    file.passed_over("events before the first time", np.count_nonzero(early))
    events = events[~early]
    high, wraps = unwrap(words[clock] & 0x0FFFFFFF, 28)
    file.passed_over("times that had run over", wraps)
    word = words[events]
    t = (_last(clock, high, events) << 6) + (word >> 22 & 0x3F)
    x, y = (word >> 11 & 0x7FF).astype(np.uint16), (word & 0x7FF).astype(np.uint16)
    return Decoded(t, x, y, kind[events], "EVT2", lambda k: start + 4 * int(events[k]), size, LARGEST)


# EVT 3.0: words of 16 bits, the type in the upper four. A vector says by one bit each which of the next 12 or 8 columns
# have an event. The 24 bits of time come in two halves; where the upper one changes, the lower one is 0 until it comes.
EVT3_Y, EVT3_X, EVT3_BASE, EVT3_VECTOR12, EVT3_VECTOR8, EVT3_LOW, EVT3_HIGH = 0x0, 0x2, 0x3, 0x4, 0x5, 0x6, 0x8
EVT3_OTHER = {0x7: "continued words", 0xA: "external triggers", 0xE: "other words", 0xF: "continued words"}
EVT3_COLUMNS = np.zeros(16, np.int64)
EVT3_COLUMNS[[EVT3_VECTOR12, EVT3_VECTOR8]] = 12, 8


def _decode_evt3(file: File, start: int, size: tuple[int, int] | None) -> Decoded:
    words = file.records(start, np.dtype("<u2"))
    kind = (words >> 12).astype(np.uint8)
    known = (EVT3_Y, EVT3_X, EVT3_BASE, EVT3_VECTOR12, EVT3_VECTOR8, EVT3_LOW, EVT3_HIGH)
    _pass_over(file, kind, known, EVT3_OTHER, start, 2)
    rows, bases = np.flatnonzero(kind == EVT3_Y), np.flatnonzero(kind == EVT3_BASE)
    clock, time, wraps = _evt3_time(words, kind)
    file.passed_over("times that had run over", wraps)
    emitting = np.flatnonzero((kind == EVT3_X) | (kind == EVT3_VECTOR12) | (kind == EVT3_VECTOR8))
    word, columns = words[emitting], EVT3_COLUMNS[kind[emitting]]
    # One bit for each event of a word; an EVT_ADDR_X is one of its own column.
    mask = np.where(columns > 0, word & ((1 << columns) - 1), 1).astype("<u2")
    # Columns that vectors have passed since the last base: all passed before a word, less those before its base.
    passed = np.cumsum(columns) - columns
    passed_before_base = np.append(passed, columns.sum())[np.searchsorted(emitting, bases)]
    early = emitting < max(_first(clock), _first(rows))
    early |= (columns > 0) & (emitting < _first(bases))
    file.passed_over("events before the first time, row or column", np.unpackbits(mask[early].view(np.uint8)).sum())
    emitting, word, columns, mask, passed = (a[~early] for a in (emitting, word, columns, mask, passed))
    t, y = _last(clock, time, emitting), _last(rows, words[rows] & 0x7FF, emitting)
    x, p = (word & 0x7FF).astype(np.int64), (word >> 11 & 1).astype(np.uint8)
    vector = np.flatnonzero(columns)
    x[vector] = _last(bases, (words[bases] & 0x7FF) - passed_before_base, emitting[vector]) + passed[vector]
    p[vector] = _last(bases, words[bases] >> 11 & 1, emitting[vector])
    bits = np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little"))
    at, bit = bits >> 4, bits & 15
    return Decoded(t[at], x[at] + bit, y[at], p[at], "EVT3", lambda k: start + 2 * int(emitting[at[k]]), size, LARGEST)


def _evt3_time(words: NDArray, kind: NDArray) -> tuple[NDArray, NDArray[np.int64], int]:
    """Positions of the words that set the time once its upper half is known, the time from each on, and wraps."""
    clock = np.flatnonzero((kind == EVT3_LOW) | (kind == EVT3_HIGH))
    clock = clock[clock >= _first(clock[kind[clock] == EVT3_HIGH])]
    upper, value = kind[clock] == EVT3_HIGH, words[clock] & 0xFFF
    high, wraps = unwrap(value[upper], 12)
    high_now = high[np.cumsum(upper) - 1] if len(clock) else high
    changed = upper & (np.diff(high_now, prepend=-1) != 0)
    # An upper half that repeats the last one leaves the lower half as it was set before.
    is_set = np.where(~upper | changed, np.arange(len(clock)), 0)
    low = np.where(upper, 0, value)[np.maximum.accumulate(is_set)]
    return clock, (high_now << 12) + low, wraps


def _pass_over(
    file: File, kind: NDArray, known: tuple[int, ...], other: dict[int, str], start: int, width: int
) -> None:
    """Counts the words that are no events, and complains about types that the format has not."""
    counts = np.bincount(kind, minlength=16).tolist()
    for code, count in enumerate(counts):
        if code in other:
            file.passed_over(other[code], count)
        elif code not in known and count:
            first = start + width * int((kind == code).argmax())
            file.drop("words of unknown type", count, f"there is a word of unknown type {code:#x}", first)


def _first(positions: NDArray) -> int | float:
    return positions[0] if len(positions) else np.inf


def _last(where: NDArray, values: NDArray, at: NDArray) -> NDArray:
    """At each of the positions `at`, none before the first of `where`, the value last set at one of `where`."""
    return np.repeat(values, np.diff(np.searchsorted(at, where), append=len(at)))
