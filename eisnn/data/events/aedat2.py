"""AEDAT 2.0, written by jAER: a text header, then big-endian pairs of 32 bits, address and time in us.

What an address means depends on the chip, which the header may name (`AEChip`); without a name it is a DVS128, as in
CIFAR10-DVS and MNIST-DVS. jAER's conventions hold: addresses count from the lower right corner, and the polarity bit of
a DVS128 is 1 for OFF, that of a DAVIS 1 for ON. We turn both to x from the left, y from the top, 1 for ON.
"""

import re
from dataclasses import dataclass

import numpy as np

from .recording import Decoded, Events, File, unwrap
from .sensors import sensor_size

MAGIC = b"#!AER-DAT2.0"
RECORD = np.dtype([("address", ">u4"), ("t", ">u4")])
END_OF_HEADER = re.compile(rb"#\s*End Of ASCII Header[^\n]*\n")
CHIP = re.compile(rb"#\s*AEChip:\s*(?:[\w$]+\.)*(\w+)")


@dataclass(frozen=True)
class _Chip:
    """Where an address of a chip has what. `other` are bits that mark samples of images, IMU or external signals."""

    size: tuple[int, int]
    x: tuple[int, int]  # lowest bit, number of bits
    y: tuple[int, int]
    polarity: int
    on: int
    other: int
    unused: int = 0


DVS128 = _Chip((128, 128), x=(1, 7), y=(8, 7), polarity=0, on=0, other=1 << 15, unused=0xFFFF0000)


def decode(file: File) -> Decoded:
    start = _header_end(file)
    chip = _chip(file, start)
    records = file.records(start, RECORD)
    address = records["address"].astype(np.uint32)
    t, wraps = unwrap(records["t"], 32)
    file.passed_over("times that had run over", wraps)
    unused, other = (address & np.uint32(bits) != 0 for bits in (chip.unused, chip.other))
    first = int(unused.argmax()) if len(unused) else 0
    problem = f"record {first:,} has address {address[first : first + 1]}, which no DVS128 has"
    file.drop("records with impossible addresses", np.count_nonzero(unused), problem, start + 8 * first)
    file.passed_over("records that are no polarity events", np.count_nonzero(other & ~unused))
    kept = np.flatnonzero(~(unused | other))
    address, t = address[kept], t[kept]
    height, width = chip.size
    x, y = (address >> shift & ((1 << bits) - 1) for shift, bits in (chip.x, chip.y))
    p = (address >> chip.polarity & 1) == chip.on
    return Decoded(
        t, width - 1 - x.astype(np.int16), height - 1 - y.astype(np.int16), p, "AEDAT 2.0",
        lambda k: start + 8 * int(kept[k]), chip.size,
    )  # fmt: skip


def encode(events: Events) -> bytes:
    """A recording of 128 x 128 pixels as jAER writes one of a DVS128.

    Raises:
        ValueError: another size, or times that do not fit into 32 bits.
    """
    if events.size != DVS128.size:
        raise ValueError(f"AEDAT 2.0 is written for a DVS128, 128 x 128 pixels; the recording has size {events.size}")
    if len(events) and not (events.t[0] >= 0 and events.t[-1] < 1 << 32):
        raise ValueError(f"AEDAT 2.0 holds times of 32 bits, got {events.t[0]} to {events.t[-1]} us")
    records = np.empty(len(events), RECORD)
    x, y = 127 - events.x.astype(np.uint32), 127 - events.y.astype(np.uint32)
    records["address"] = y << 8 | x << 1 | (events.p == 0)
    records["t"] = events.t
    header = (
        b"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n"
        b"# Data format is int32 address, int32 timestamp (8 bytes total), repeated for each event\r\n"
        b"# Timestamps tick is 1 us\r\n# AEChip: DVS128\r\n#End Of ASCII Header\r\n"
    )
    return header + records.tobytes()


def _header_end(file: File) -> int:
    content = file.data.tobytes()
    if ended := END_OF_HEADER.search(content):
        return ended.end()
    start = 0
    while content.startswith(b"#", start):
        line_end = content.find(b"\n", start)
        if line_end < 0:
            raise file.error("its header is cut off", len(content))
        start = line_end + 1
    return start


def _chip(file: File, header_end: int) -> _Chip:
    named = CHIP.search(file.data[:header_end].tobytes())
    name = named.group(1).decode() if named else "DVS128"
    size = sensor_size(name)
    if size == DVS128.size and "davis" not in name.lower():
        return DVS128
    if size is not None and "davis" in name.lower():
        return _Chip(size, x=(12, 10), y=(22, 9), polarity=11, on=1, other=1 << 31 | 1 << 10)
    raise file.error(f"it was recorded by a chip {name!r}; read are DVS128 and DAVIS", named.start() if named else 0)
