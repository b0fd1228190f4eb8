"""Small recordings in the formats of event cameras, written as they are published."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import event_loops as naive
import numpy as np

from eisnn.data.events import Events, cifar10_dvs, frames, write
from eisnn.data.events.frames import EventBatch
from eisnn.data.events.recording import MAX_DISORDER

SIZE = (100, 120)  # height and width of the sensor of most of them
N = 300


@dataclass(frozen=True)
class Format:
    """How a format's header looks, what a body of it may be, and its slow reader."""

    name: str
    header: bytes
    body: Callable[[np.random.Generator], bytes]
    naive: Callable[[bytes], list[naive.Event]]
    size: tuple[int, int] | None = None  # of the sensor, where the header says it

    def expected(self, body: bytes) -> list[naive.Event]:
        """The slow reader's events in order; `Damaged` for what no reader may accept."""
        events = self.naive(body)
        latest = -MAX_DISORDER
        height, width = self.size or (1 << 16, 1 << 16)
        for t, x, y, _ in events:
            latest = max(latest, t)
            if latest - t > MAX_DISORDER or x >= width or y >= height:
                raise naive.Damaged
        if not events or (self.name == "N-MNIST" and not _runs_on([event[0] for event in events])):
            raise naive.Damaged
        return in_order(events)


def _runs_on(times: list[int]) -> bool:
    forward = sum(b >= a for a, b in pairwise(times))
    return len(times) >= 20 and forward >= 0.9 * (len(times) - 1)


def in_order(events: list[naive.Event]) -> list[naive.Event]:
    return sorted(events, key=lambda event: event[0])


def table(events: Events) -> list[naive.Event]:
    return list(zip(*(array.tolist() for array in (events.t, events.x, events.y, events.p)), strict=True))


def _events(rng: np.random.Generator, n: int = N, t0: int = 0, size: tuple[int, int] = SIZE) -> list[tuple[int, ...]]:
    """Random events; three of the first are late."""
    t = t0 + np.cumsum(rng.integers(0, 200, n))
    t[[10, 20, 30]] -= 400
    return list(zip(t.tolist(), *(rng.integers(0, high, n).tolist() for high in (size[1], size[0], 2)), strict=True))


def aedat2_body(rng: np.random.Generator) -> bytes:
    near_the_end = (1 << 32) - 10_000  # of the counter, which runs over
    records = [(y << 8 | x << 1 | p, t % (1 << 32)) for t, x, y, p in _events(rng, t0=near_the_end, size=(128, 128))]
    records.insert(7, (1 << 15, records[6][1]))  # an external signal
    return b"".join(struct.pack(">II", *record) for record in records)


def packet(kind: int, size: int, events: bytes, number: int, *, overflow: int = 0, valid: int | None = None) -> bytes:
    """A packet of AEDAT 3.1."""
    valid = number if valid is None else valid
    return struct.pack("<HHIIIIII", kind, 1, size, 4, overflow, number, number, valid) + events


def aedat3_body(rng: np.random.Generator) -> bytes:
    """A packet of every type; polarity packets before and after the time has run over."""
    events = _events(rng, t0=(1 << 31) - 9_000)
    parts = [packet(0, 8, struct.pack("<II", 1 << 1 | 1, 5), 1)]
    for overflow in (0, 1):
        mine = [event for event in events if event[0] >> 31 == overflow]
        packed = b"".join(
            struct.pack("<II", x << 17 | y << 2 | p << 1 | (k % 50 != 0), t & 0x7FFFFFFF)
            for k, (t, x, y, p) in enumerate(mine)
        )
        invalid = len(range(0, len(mine), 50))
        parts.append(packet(1, 8, packed, len(mine), overflow=overflow, valid=len(mine) - invalid))
        for kind, size in ((2, 44), (3, 36), (4, 48), (5, 8), (6, 8), (7, 12), (8, 12), (9, 16), (10, 20), (11, 24)):
            parts.append(packet(kind, size, rng.bytes(2 * size), 2))
        parts += [packet(12, 8, rng.bytes(8), 1), packet(13, 80, rng.bytes(80), 1)]
    return b"".join(parts)


def flatbuffer(identifier: bytes, fields: list[bytes], vector: bytes) -> bytes:
    """A table of such fields, and a vector as its last one."""
    places = np.cumsum([4, *map(len, fields)]).astype("<u2")
    ends = struct.pack("<HH", 4 + 2 * len(places), places[-1] + 4) + places.tobytes()
    table = struct.pack("<i", len(ends)) + b"".join(fields) + struct.pack("<I", 4) + vector
    content = struct.pack("<I", 8 + len(ends)) + identifier + ends + table
    return struct.pack("<I", len(content)) + content


def aedat4_header(compression: int = 0, end: int = -1) -> bytes:
    """The header of a camera's events, stream 0, and its IMU, stream 1; packets end at byte `end`, if it is known."""
    attributes = '<attr key="{}">{}</attr>'.format
    streams = "".join(
        f'<node name="{k}">{attributes("compression", "?")}{attributes("typeIdentifier", kind)}<node name="info">'
        f"{attributes('sizeX', SIZE[1])}{attributes('sizeY', SIZE[0])}</node></node>"
        for k, kind in enumerate(("EVTS", "IMUS"))
    )
    xml = f'<dv version="2.0"><node name="outInfo">{streams}</node></dv>'.encode()
    fields = [struct.pack("<i", compression), struct.pack("<q", end)]
    return b"#!AER-DAT4.0\r\n" + flatbuffer(b"IOHE", fields, struct.pack("<I", len(xml)) + xml)


def aedat4_packets(events: list[tuple[int, ...]], compress: Callable[[bytes], bytes] = bytes) -> bytes:
    """Packets of 20 events, and one of the IMU."""
    contents = [(1, b"anything")]
    for k in range(0, len(events), 20):
        packed = b"".join(struct.pack("<qHHBxxx", *event) for event in events[k : k + 20])
        contents.append((0, compress(flatbuffer(b"EVTS", [], struct.pack("<I", len(packed) // 16) + packed))))
    return b"".join(struct.pack("<iI", stream, len(content)) + content for stream, content in contents)


def aedat4_body(rng: np.random.Generator) -> bytes:
    return aedat4_packets(_events(rng))


def five_bytes_body(rng: np.random.Generator) -> bytes:
    rows = [(x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255) for t, x, y, p in _events(rng)]
    rows.insert(100, (0, 240, *rows[99][2:]))  # a mark that the time has run over
    return np.array(rows, np.uint8).tobytes()


def dat_body(rng: np.random.Generator) -> bytes:
    return bytes((12, 8)) + b"".join(struct.pack("<II", t, x | y << 14 | p << 28) for t, x, y, p in _events(rng))


def evt2_body(rng: np.random.Generator) -> bytes:
    words, high = [0x1 << 28 | 5], None  # an event before any time
    for t, x, y, p in _events(rng, t0=(1 << 34) - 9_000):
        t %= 1 << 34
        if t >> 6 != high:
            high = t >> 6
            words.append(0x8 << 28 | high)
        words.append(p << 28 | (t & 63) << 22 | x << 11 | y)
        if rng.random() < 0.05:
            words.append(int(rng.choice([0xA, 0xE, 0xF])) << 28 | int(rng.integers(1 << 28)))
    return struct.pack(f"<{len(words)}I", *words)


def evt3_body(rng: np.random.Generator) -> bytes:
    """Words that a sensor might send: time, rows, single events and vectors."""
    words, time = [0x2005, 0x4FFF], (1 << 24) - 9_000  # events before any state
    while len(words) < 2 * N:
        time += int(rng.integers(200))
        words += [0x8000 | (time >> 12) % (1 << 12), 0x6000 | time % (1 << 12), int(rng.integers(SIZE[0]))]
        for _ in range(int(rng.integers(4))):
            polarity = int(rng.integers(2)) << 11
            if rng.random() < 0.5:
                words.append(0x2000 | polarity | int(rng.integers(SIZE[1])))
            else:
                vectors = [0x4000 | int(rng.integers(1 << 12)), 0x5000 | int(rng.integers(1 << 8))]
                words += [0x3000 | polarity | int(rng.integers(SIZE[1] - 20)), *vectors[:: int(rng.choice([-1, 1]))]]
        if rng.random() < 0.1:
            words += [0xA000, int(rng.choice([0xE000, 0xF000, 0x7000])) | int(rng.integers(1 << 12))]
    return struct.pack(f"<{len(words)}H", *words)


def event_stream_body(rng: np.random.Generator) -> bytes:
    body, before = bytearray(b"\xfe"), 0
    for t, x, y, p in _events(rng, size=(255, 255)):  # the bytes of x and y may look like those of an overflow
        overflows, rest = divmod(max(0, t - before), 127)
        before = max(before, t)
        body += b"\xff" * overflows + struct.pack("<BHH", rest << 1 | p, x, y)
    return bytes(body)


RAW_HEADER = "% Date 2026-01-01 00:00:00\n% evt {}\n% geometry 120x100\n% end\n"
FORMATS = {
    format.name: format
    for format in (
        Format("AEDAT 2.0", b"#!AER-DAT2.0\r\n# created by a test\r\n", aedat2_body, naive.aedat2, (128, 128)),
        Format(
            "AEDAT 3.1",
            b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#Start-Time: 2026-01-01\r\n#!END-HEADER\r\n",
            aedat3_body,
            naive.aedat3,
            (128, 128),
        ),
        Format("AEDAT4", aedat4_header(), aedat4_body, naive.aedat4, SIZE),
        Format("N-MNIST", b"", five_bytes_body, naive.five_bytes),
        Format("DAT", b"% Version 2\n% Height 100\n% Width 120\n", dat_body, naive.dat, SIZE),
        Format("EVT2", RAW_HEADER.format("2.0").encode(), evt2_body, naive.evt2, SIZE),
        Format("EVT3", RAW_HEADER.format("3.0").encode(), evt3_body, naive.evt3, SIZE),
        Format(
            "Event Stream",
            b"Event Stream\x02\x00\x00\x01" + struct.pack("<HH", 255, 255),
            event_stream_body,
            naive.event_stream,
            (255, 255),
        ),
    )
}


def random_events(rng: np.random.Generator, n: int, size: tuple[int, int]) -> Events:
    """A recording of `n` events, about 100 us apart."""
    columns = (rng.integers(0, high, n).astype(kind) for high, kind in ((size[1], "u2"), (size[0], "u2"), (2, "u1")))
    return Events(np.cumsum(rng.integers(0, 200, n)), *columns, size)


def write_nmnist(folder: Path, counts: dict[str, int] | None = None) -> Path:
    """N-MNIST's folders, so many recordings of each digit of Train and Test."""
    rng = np.random.default_rng(0)
    for split, count in (counts or {"Train": 2, "Test": 1}).items():
        for digit in range(10):
            for k in range(count):
                write(random_events(rng, 60, (34, 34)), folder / split / str(digit) / f"{10 * k + digit:05}.bin")
    return folder


def write_cifar10_dvs(folder: Path, each: int) -> Path:
    rng = np.random.default_rng(0)
    for name in cifar10_dvs.CLASSES:
        for k in range(each):
            write(random_events(rng, 50, (128, 128)), folder / name / f"cifar10_{name}_{k}.aedat")
    return folder


def write_dvs_gesture(folder: Path, recordings: dict[str, list[str]], trials: list[tuple[int, int, int]]) -> Path:
    """Recordings of 2,000 events from 5 s on, all with the same table of trials (class, start, end)."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    header = FORMATS["AEDAT 3.1"].header
    for split, names in recordings.items():
        (folder / f"trials_to_{split}.txt").write_text("".join(f"{name}.aedat\n" for name in names))
        for name in names:
            events = random_events(rng, 2000, (128, 128))
            data = events.x.astype(np.uint32) << 17 | events.y << 2 | events.p << 1 | 1
            packed = np.stack((data, 5_000_000 + events.t), 1).astype("<u4").tobytes()
            (folder / f"{name}.aedat").write_bytes(header + packet(1, 8, packed, 2000))
            table = "".join(f"{label},{start},{end}\n" for label, start, end in trials)
            (folder / f"{name}_labels.csv").write_text("class,startTime_usec,endTime_usec\n" + table)
    return folder


def batch_of(recordings: list[Events], time_steps: int, bins: str = "count", scaling: str = "average") -> EventBatch:
    return frames.batch_of(recordings, time_steps, frames.FrameSettings(bins=bins, scaling=scaling))
