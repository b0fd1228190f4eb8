"""Damaged copies of a file, for tests of everything that reads one: the same for the same seed."""

from collections.abc import Iterator

import numpy as np

HEADER = 64  # bytes, where most formats say what they hold


def mutations(data: bytes, seed: int) -> Iterator[tuple[str, bytes]]:
    """Damaged copies of `data`, each with a name that says what was done; none equals `data`."""
    rng = np.random.default_rng(seed)
    size = len(data)

    def place(limit: int = size) -> int:
        return int(rng.integers(max(min(limit, size), 1)))

    def block() -> slice:
        begin = place()
        return slice(begin, begin + 1 + place(max(size // 8, 1)))

    def flipped(at: int) -> bytes:
        changed = bytearray(data)
        if changed:
            changed[at] ^= 1 << int(rng.integers(8))
        return bytes(changed)

    def replaced(where: slice, by: bytes) -> bytes:
        return data[: where.start] + by + data[where.stop :]

    def made() -> Iterator[tuple[str, bytes]]:
        for at in (place(HEADER), place(HEADER), place(), size - 1):
            yield f"a bit of byte {at} flipped", flipped(at)
        for keep in (0, 1, place(), size - 1):
            yield f"cut after {keep} bytes", data[:keep]
        where = block()
        yield f"zeros at {where.start}..{where.stop}", replaced(where, bytes(len(data[where])))
        where = block()
        yield f"noise at {where.start}..{where.stop}", replaced(where, rng.bytes(len(data[where])))
        where = block()
        yield f"{where.start}..{where.stop} taken out", replaced(where, b"")
        first, second = sorted((place(), place()))
        length = min(second - first, size - second, 64)
        swapped = replaced(slice(first, first + length), data[second : second + length])
        swapped = swapped[:second] + data[first : first + length] + swapped[second + length :]
        yield f"{length} bytes at {first} and {second} swapped", swapped
        yield "zeros appended", data + bytes(1 + place(1000))
        yield "itself appended", data + data
        yield "noise instead", rng.bytes(size)

    yield from ((name, changed) for name, changed in made() if changed != data)
