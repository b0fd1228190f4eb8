"""Memory that training steps need."""

import gc
import threading
from typing import Any

import psutil
import torch

from eisnn.bench.subjects import Subject
from eisnn.process import release_memory


def peak_memory(arguments: dict[str, Any], threads: int) -> int:
    """Bytes that training steps need beyond the built network. On a CPU to be called in a process of its own; a GPU's
    memory is counted, and not seen from outside."""
    torch.set_num_threads(threads)
    subject = Subject(**arguments)
    if subject.device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        for _ in range(3):
            subject.step()
        return torch.cuda.max_memory_allocated() - before
    with ResidentMemory() as memory:
        for _ in range(3):
            subject.step()
    return memory.growth


class ResidentMemory:
    """Growth of the resident memory of this process inside a `with` block, sampled every millisecond.

    `getrusage` cannot say it: its peak includes what building the network and importing torch needed once. What was
    freed before is given back first: used again, it would not show.
    """

    def __enter__(self) -> "ResidentMemory":
        gc.collect()
        release_memory()
        self._process = psutil.Process()
        self._before = self._peak = self._process.memory_info().rss
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def _sample(self) -> None:
        while not self._done.wait(0.001):
            self._peak = max(self._peak, self._process.memory_info().rss)

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()

    @property
    def growth(self) -> int:
        """Bytes by which the peak lay above the beginning."""
        return self._peak - self._before
