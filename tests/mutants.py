"""Damaged copies of a file, for readers that must neither crash nor be wrong without a word."""

import random
from collections.abc import Iterator


def mutations(data: bytes, seed: int, count: int = 40, start: int = 0) -> Iterator[tuple[str, bytes]]:
    """`count` copies of `data` with one kind of damage each, at a random place from byte `start` on, and what was done.

    They are the same for the same seed; those that equal `data` are left out.
    """
    rng = random.Random(seed)
    for k in range(count):
        at = rng.randrange(start, len(data))
        length = rng.randint(1, max(1, min(64, len(data) - at)))
        block, noise = data[at : at + length], rng.randbytes(length)
        before, after = data[:at], data[at + length :]
        first, second = sorted((at, rng.randrange(start, len(data))))
        size = min(length, second - first, len(data) - second)
        name, damaged = (
            ("a bit flipped", before + bytes((data[at] ^ 1 << rng.randrange(8),)) + data[at + 1 :]),
            ("another byte", before + noise[:1] + data[at + 1 :]),
            ("the end lost", before),
            ("a block lost", before + after),
            ("a block twice", before + block + block + after),
            ("noise in between", before + noise + data[at:]),
            ("zeros", before + bytes(length) + after),
            ("ones", before + b"\xff" * length + after),
            ("a block in reverse", before + block[::-1] + after),
            ("noise at the end", data + noise),
            (
                "two blocks swapped",
                data[:first]
                + data[second : second + size]
                + data[first + size : second]
                + data[first : first + size]
                + data[second + size :],
            ),
            ("the last byte lost", data[:-1]),
            ("everything lost", b""),
        )[k % 13]
        if damaged != data:
            yield f"{name} at byte {at}", damaged
