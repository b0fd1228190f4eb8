"""Event by event, as the formats are published: what the readers, which have no such loop, must agree with.

Each function takes the bytes after the header and returns the events (t, x, y, p) in the order of the file, from the
left and the top, 1 for ON. `Damaged` is raised where the readers must complain.
"""

import struct

Event = tuple[int, int, int, int]


class Damaged(Exception):
    """What no intact file holds."""


class Clock:
    """A counter of so many bits that may run over, from its last quarter to its first."""

    def __init__(self, bits: int) -> None:
        self.bits, self.value, self.wraps = bits, None, 0

    def __call__(self, value: int) -> int:
        quarter = 1 << (self.bits - 2)
        if self.value is not None and self.value >= 3 * quarter and value < quarter:
            self.wraps += 1
        self.value = value
        return value + (self.wraps << self.bits)


def split(body: bytes, layout: str) -> list[tuple[int, ...]]:
    if len(body) % struct.calcsize(layout):
        raise Damaged
    return list(struct.iter_unpack(layout, body))


def aedat2(body: bytes) -> list[Event]:
    events, clock = [], Clock(32)
    for address, time in split(body, ">II"):
        time = clock(time)
        if address > 0xFFFF:
            raise Damaged
        if not address & 0x8000:
            events.append((time, 127 - (address >> 1 & 127), 127 - (address >> 8 & 127), 1 - (address & 1)))
    return events


def aedat3(body: bytes) -> list[Event]:
    events: list[Event] = []
    at = 0
    while at < len(body):
        if at + 28 > len(body):
            raise Damaged
        kind, _, size, _, overflow, capacity, number, valid = struct.unpack_from("<HHIIIIII", body, at)
        sizes = {0: 8, 1: 8, 3: 36, 4: 48, 5: 8, 6: 8, 7: 12, 12: 8}
        if kind > 13 or size != sizes.get(kind, size) or size == 0 or not valid <= number <= capacity:
            raise Damaged
        at += 28
        for _ in range(number):
            if at + size > len(body):
                raise Damaged
            if kind == 1:
                data, time = struct.unpack_from("<II", body, at)
                if time >> 31:
                    raise Damaged
                if data & 1:
                    events.append((time + (overflow << 31), data >> 17, data >> 2 & 0x7FFF, data >> 1 & 1))
            at += size
    return events


def aedat4(body: bytes) -> list[Event]:
    """Packets without compression of the streams 0, events, and 1, other things."""
    events: list[Event] = []
    at = 0

    def number(layout: str, place: int) -> int:
        if not 0 <= place <= len(packet) - struct.calcsize(layout):
            raise Damaged
        return struct.unpack_from(layout, packet, place)[0]

    while at < len(body):
        if at + 8 > len(body):
            raise Damaged
        stream, length = struct.unpack_from("<iI", body, at)
        packet, at = body[at + 8 : at + 8 + length], at + 8 + length
        if at > len(body) or stream not in (0, 1):
            raise Damaged
        if stream == 1:
            continue
        if packet[8:12] != b"EVTS":
            raise Damaged
        table = 4 + number("<I", 4)
        fields = table - number("<i", table)
        offset = number("<H", fields + 4) if number("<H", fields) > 4 else 0
        if offset == 0:
            continue
        vector = table + offset + number("<I", table + offset)
        for k in range(number("<I", vector)):
            place = vector + 4 + 16 * k
            number("<16s", place)  # all of it is there
            time, x, y, on = (number(kind, place + at) for kind, at in (("<q", 0), ("<H", 8), ("<H", 10), ("<B", 12)))
            if time < 0 or on > 1:
                raise Damaged
            events.append((time, x, y, on))
    return events


def five_bytes(body: bytes) -> list[Event]:
    events, clock, overflow = [], Clock(23), 0
    for x, y, high, middle, low in split(body, "5B"):
        time = clock((high & 127) << 16 | middle << 8 | low)
        if y == 240:
            overflow += 1 << 13
        else:
            events.append((time + overflow, x, y, high >> 7))
    return events


def dat(body: bytes) -> list[Event]:
    """With the two bytes of type and size in front."""
    if len(body) < 2 or body[0] not in (0, 12) or body[1] != 8:
        raise Damaged
    events, clock = [], Clock(32)
    for time, data in split(body[2:], "<II"):
        if data >> 29:
            raise Damaged
        events.append((clock(time), data & 0x3FFF, data >> 14 & 0x3FFF, data >> 28))
    return events


def evt2(body: bytes) -> list[Event]:
    events: list[Event] = []
    clock, high = Clock(28), None
    for (word,) in split(body, "<I"):
        kind = word >> 28
        if kind == 8:
            high = clock(word & 0x0FFFFFFF)
        elif kind in (0, 1):
            if high is not None:
                events.append(((high << 6) + (word >> 22 & 63), word >> 11 & 0x7FF, word & 0x7FF, kind))
        elif kind not in (0xA, 0xE, 0xF):
            raise Damaged
    return events


def evt3(body: bytes) -> list[Event]:
    events: list[Event] = []
    clock, high, low = Clock(12), None, 0
    row = base = None
    polarity = 0
    for (word,) in split(body, "<H"):
        kind, value = word >> 12, word & 0xFFF
        ready = high is not None and row is not None
        if kind == 0:
            row = value & 0x7FF
        elif kind == 2:
            if ready:
                events.append(((high << 12) + low, value & 0x7FF, row, value >> 11))
        elif kind == 3:
            base, polarity = value & 0x7FF, value >> 11
        elif kind in (4, 5):
            width = 12 if kind == 4 else 8
            if base is not None:
                for bit in range(width):
                    if ready and value >> bit & 1:
                        events.append(((high << 12) + low, base + bit, row, polarity))
                base += width
        elif kind == 6:
            if high is not None:
                low = value
        elif kind == 8:
            before, high = high, clock(value)
            if high != before:
                low = 0
        elif kind not in (0x7, 0xA, 0xE, 0xF):
            raise Damaged
    return events


def event_stream(body: bytes) -> list[Event]:
    events: list[Event] = []
    time, at = 0, 0
    while at < len(body):
        if body[at] == 0xFF:
            time, at = time + 127, at + 1
        elif body[at] == 0xFE:
            at += 1
        else:
            if at + 5 > len(body):
                raise Damaged
            time += body[at] >> 1
            events.append((time, *struct.unpack_from("<HH", body, at + 1), body[at] & 1))
            at += 5
    return events
