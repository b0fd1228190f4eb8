"""AEDAT4, written by iniVation's DV: a header, then compressed packets of one stream each.

Header and packets are flatbuffers: a table says where its fields lie. The header's XML says what each stream is and how
large its sensor. Packets of events are decoded, the others are passed over by their size and counted. After the packets
there may be a table of them, which is not needed.
"""

import struct
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from eisnn.data.errors import DAMAGE
from eisnn.libraries import library

from .recording import Decoded, File

MAGIC = b"#!AER-DAT4.0"
HEADER = len(MAGIC) + 2  # after the end of the line
PACKET = struct.Struct("<iI")  # stream, bytes of the compressed content
MOST = 1 << 28  # bytes that a packet may grow to by Zstandard, far above DV's of 10 ms; LZ4 grows by 255 at most
EVENT = np.dtype(
    {"names": ["t", "x", "y", "on"], "formats": ["<i8", "<u2", "<u2", "u1"], "offsets": [0, 8, 10, 12], "itemsize": 16}
)
EVENTS = "EVTS"
OTHERS = {"FRME": "frame packets", "IMUS": "IMU packets", "TRIG": "trigger packets"}
Streams = dict[int, tuple[str, tuple[int, int] | None]]


def decode(file: File) -> Decoded:
    """Raises: ImportError without the package that the file's compression needs (extra `events`)."""
    start, end, decompress, streams = _header(file)
    packets, places, size = [np.empty(0, EVENT)], [start], None
    for place, stream, content in _packets(file, start, end):
        if stream not in streams:
            raise file.error(f"there is no packet: it is of stream {stream}, and the header names {[*streams]}", place)
        kind, sensor = streams[stream]
        if kind != EVENTS:
            file.passed_over(OTHERS.get(kind, f"packets of type {kind}"), 1)
            continue
        if size not in (None, sensor):
            raise file.error(f"it has events of several cameras, of sizes {size} and {sensor}", place)
        size = sensor
        try:
            packets.append(_events(decompress(content)))
        except (MemoryError, *DAMAGE) as error:
            file.drop("bytes of damaged packets", len(content), f"a packet cannot be decoded ({error})", place)
            continue
        places.append(place)
    first = np.cumsum([0, *map(len, packets)])
    t, x, y, p = (np.concatenate([packet[name] for packet in packets]) for name in EVENT.names or ())
    if len(t) and (t.min() < 0 or p.max() > 1):
        k = int(((t < 0) | (p > 1)).argmax())
        raise file.error(f"event {k:,} has time {t[k]} and polarity {p[k]}", _place(k, first, places))
    return Decoded(t, x, y, p, "AEDAT4", lambda k: _place(k, first, places), size)


def _place(event: int, first: NDArray, places: list[int]) -> int:
    return places[int(np.searchsorted(first, event, "right")) - 1]


def _header(file: File) -> tuple[int, int, Callable[[memoryview], bytes], Streams]:
    """Where the packets begin and end, what decompresses them, and type and size of the sensor of each stream."""
    try:
        content = file.data[HEADER:].data
        length = _number("<I", content, 0)
        if 4 + length > len(content):
            raise ValueError(f"it has {length:,} bytes")
        content, start = content[: 4 + length], HEADER + 4 + length
        compression, end, info = (_field(content, b"IOHE", k) for k in range(3))
        decompress = _decompressor(_number("<i", content, compression) if compression else 0)
        last = _number("<q", content, end) if end else -1
        streams = _streams(_vector(content, info, 1))
    except (LookupError, *DAMAGE) as error:
        raise file.error(f"its header cannot be decoded ({error!r})", HEADER) from error
    if last < 0:  # the recording was not closed
        return start, len(file.data), decompress, streams
    if last < start:
        raise file.error(f"its header says that the packets end at byte {last:,}", HEADER)
    missing = max(last - len(file.data), 0)
    file.drop("truncated bytes", missing, f"it ends inside the packets, {missing:,} bytes early", len(file.data))
    return start, min(last, len(file.data)), decompress, streams


def _streams(xml: memoryview) -> Streams:
    streams: Streams = {}
    for node in ElementTree.fromstring(bytes(xml)).iterfind("node[@name='outInfo']/node"):
        attributes = {attribute.get("key"): attribute.text or "" for attribute in node.iter("attr")}
        size = (int(attributes["sizeY"]), int(attributes["sizeX"])) if "sizeX" in attributes else None
        streams[int(node.get("name", ""))] = attributes["typeIdentifier"], size
    return streams


def _packets(file: File, start: int, end: int) -> Iterator[tuple[int, int, memoryview]]:
    """Place, stream and compressed content of each packet."""
    content = file.data.data
    while start < end:
        body = start + PACKET.size
        stream, length = PACKET.unpack_from(content, start) if body <= end else (0, end)
        if body + length > end:
            file.drop("truncated bytes", end - start, "it ends inside a packet", start)
            return
        yield start, stream, content[body : body + length]
        start = body + length


def _events(packet: bytes) -> NDArray:
    return np.frombuffer(_vector(packet, _field(packet, b"EVTS", 0), EVENT.itemsize), EVENT)


# Flatbuffers: a length, the position of the root table, four letters, and in the table the distance to a list of where
# in it each field lies, 0 if it is absent. A field that is a vector holds the distance to its number of elements.


def _field(buffer: bytes | memoryview, identifier: bytes, index: int) -> int:
    """Where a field of the root table lies, 0 if it is absent."""
    if buffer[8:12] != identifier:
        raise ValueError(f"it begins with {bytes(buffer[:12])!r}")
    table = 4 + _number("<I", buffer, 4)
    places = table - _number("<i", buffer, table)
    place = 4 + 2 * index
    offset = _number("<H", buffer, places + place) if place < _number("<H", buffer, places) else 0
    return table + offset if offset else 0


def _vector(buffer: bytes | memoryview, field: int, width: int) -> memoryview:
    """The bytes of a field's vector, none if the field is absent."""
    if not field:
        return memoryview(b"")
    start = field + _number("<I", buffer, field)
    length = width * _number("<I", buffer, start)
    if start + 4 + length > len(buffer):
        raise ValueError(f"a vector of {length:,} bytes in {len(buffer):,}")
    return memoryview(buffer)[start + 4 : start + 4 + length]


def _number(kind: str, buffer: bytes | memoryview, place: int) -> int:
    if place < 0:
        raise ValueError(f"a field lies at byte {place}")
    return struct.unpack_from(kind, buffer, place)[0]


def _decompressor(kind: int) -> Callable[[memoryview], bytes]:
    if kind == 0:
        return bytes
    if kind in (1, 2):
        return library("lz4.frame", "events").decompress
    if kind in (3, 4):
        return partial(_zstd, library("zstandard", "events"))
    raise ValueError(f"its compression is {kind}; known are none, LZ4 and Zstandard, 0 to 4")


def _zstd(zstandard: Any, packet: memoryview) -> bytes:
    try:
        if zstandard.frame_content_size(packet) > MOST:
            raise ValueError(f"it would grow to more than {MOST:,} bytes")
        return zstandard.ZstdDecompressor().decompress(packet, MOST)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error
