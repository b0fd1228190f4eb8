"""Damaged copies of a file, for readers that must neither crash nor be wrong without a word."""

import random
from collections.abc import Iterator


def mutations(data: bytes, seed: int, count: int = 40, start: int = 0) -> Iterator[bytes]:
    """`count` copies of `data`, each with one kind of damage at a random place from byte `start` on."""
    rng = random.Random(seed)
    for k in range(count):
        at = rng.randrange(start, len(data))
        length = rng.randint(1, max(1, min(64, len(data) - at)))
        block, noise = data[at : at + length], rng.randbytes(length)
        after = data[at + length :]
        yield data[:at] + (
            bytes((data[at] ^ 1 << rng.randrange(8),)) + data[at + 1 :],  # a flipped bit
            noise[:1] + data[at + 1 :],  # another byte
            b"",  # the end is lost
            after,  # a block is lost
            block + block + after,  # a block came twice
            noise + data[at:],  # something came in between
            bytes(length) + after,  # a block of zeros
            b"\xff" * length + after,  # or of ones
            block[::-1] + after,  # a block in the wrong order
            data[at:] + noise,  # rubbish at the end
        )[k % 10]  # fmt: skip
