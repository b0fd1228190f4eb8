"""What a program that trains sets for its whole process, before it does anything else. Functions of the package never
do: the process is the user's."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def keep_memory() -> None:
    """Let glibc keep the large buffers of a training step, which it would give back to the system and fetch again page
    by page, in every step: 5 to 8 % of an E-I network's."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:  # other C libraries lack it
        m_trim_threshold, m_mmap_threshold = -1, -3
        mallopt(m_mmap_threshold, 1 << 30)
        mallopt(m_trim_threshold, (1 << 31) - 1)


def release_memory() -> None:
    """Have glibc give back to the system what this process has freed."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


@contextmanager
def subnormals_flushed() -> Iterator[None]:
    """Inside, numbers below 1.2e-38 count as 0 (on this thread, and on those that torch starts from it).

    A processor takes up to a hundred times as long for them, and networks that have stopped learning are full of them:
    momenta and gradients that halve with every step.
    """
    import torch

    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
