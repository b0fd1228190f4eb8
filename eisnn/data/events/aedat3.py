"""AEDAT 3.1, written by cAER: a text header, then little-endian packets of events of one type each.

A packet begins with 28 bytes. Only polarity packets are decoded, the others are passed over by their size and counted.
Times have 31 bits; the packet says how often they have run over.
"""

import re
import struct

import numpy as np

from .recording import Decoded, File
from .sensors import sensor_size

MAGIC = b"#!AER-DAT3.1"
END_OF_HEADER = b"#!END-HEADER\r\n"
# Type, source, size of an event, offset of its time, overflows, then events: capacity, number, number that is valid.
PACKET = struct.Struct("<HHIIIIII")
POLARITY = 1
NAMES = {
    0: "special", 1: "polarity", 2: "frame", 3: "IMU6", 4: "IMU9", 5: "sample", 6: "ear", 7: "configuration",
    8: "point1D", 9: "point2D", 10: "point3D", 11: "point4D", 12: "spike", 13: "matrix4x4",
}  # fmt: skip
SIZES = {0: 8, 1: 8, 3: 36, 4: 48, 5: 8, 6: 8, 7: 12, 12: 8}  # bytes of an event, where the type fixes it
EVENT = np.dtype([("data", "<u4"), ("t", "<u4")])
SOURCE = re.compile(r"#Source \d+: (\w+)")


def decode(file: File) -> Decoded:
    content = file.data.tobytes()
    ended = content.find(END_OF_HEADER)
    if ended < 0:
        raise file.error("its header has no end (#!END-HEADER)", len(content))
    header = content[:ended]
    if (layout := re.search(rb"#Format: ([^\r\n]*)", header)) and layout.group(1).strip() != b"RAW":
        name = layout.group(1).decode(errors="replace")
        raise file.error(f"its packets are {name}, read are RAW ones", layout.start())
    packets, overflows, places = _packets(file, ended + len(END_OF_HEADER))
    events = np.concatenate(packets) if packets else np.empty(0, EVENT)
    counts = [len(packet) for packet in packets]
    first_of_packet = np.cumsum([0, *counts])
    data, t = events["data"], events["t"].astype(np.int64)
    if (t >> 31).any():
        k = int((t >> 31).argmax())
        raise file.error(f"event {k:,} has a negative time", _place(k, first_of_packet, places))
    t += np.repeat(np.array(overflows, np.int64) << 31, counts)
    valid = data & 1 == 1
    kept = np.arange(len(data)) if valid.all() else np.flatnonzero(valid)
    file.passed_over("events marked as not valid", len(data) - len(kept))
    data, t = data[kept], t[kept]
    sensor = sensor_size(" ".join(SOURCE.findall(header.decode("latin1"))))
    x, y, p = (data >> 17).astype(np.uint16), (data >> 2 & 0x7FFF).astype(np.uint16), (data >> 1 & 1).astype(np.uint8)
    return Decoded(t, x, y, p, "AEDAT 3.1", lambda k: _place(int(kept[k]), first_of_packet, places), sensor)


def _place(event: int, first_of_packet: np.ndarray, places: list[int]) -> int:
    packet = int(np.searchsorted(first_of_packet, event, "right")) - 1
    return places[packet] + 8 * (event - int(first_of_packet[packet]))


def _packets(file: File, start: int) -> tuple[list[np.ndarray], list[int], list[int]]:
    """Events, overflows and place of each polarity packet; the loop is over packets of thousands of events."""
    packets, overflows, places = [], [], []
    end = len(file.data)
    while start < end:
        if start + PACKET.size > end:
            file.drop("truncated bytes", end - start, "it ends inside the header of a packet", start)
            break
        kind, _, size, _, overflow, capacity, number, valid = PACKET.unpack_from(file.data.data, start)
        body = start + PACKET.size
        if kind not in NAMES or not 0 < size == SIZES.get(kind, size) or not valid <= number <= capacity:
            raise file.error(
                f"there is no packet of events: type {kind}, {size} bytes an event, {valid} valid of {number} of "
                f"{capacity}",
                start,
            )
        length = size * number
        if body + length > end:
            whole = (end - body) // size
            problem = f"a packet announces {number:,} {NAMES[kind]} events, but the file ends after {whole:,}"
            file.drop("truncated bytes", end - body - whole * size * (kind == POLARITY), problem, start)
            number, length = whole, end - body
        if kind == POLARITY:
            packets.append(file.data[body : body + 8 * number].view(EVENT))
            overflows.append(overflow)
            places.append(body)
        else:
            file.passed_over(f"{NAMES[kind]} events", number)
        start = body + length
    return packets, overflows, places
