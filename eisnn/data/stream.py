"""Batches of pixels from memory or disk to the device, read one step ahead."""

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor


def stream(pixels: Tensor, batches: Iterable[Tensor], device: torch.device) -> Iterator[Tensor]:
    """For each of `batches` its images on `device`; while one is in use, a thread gathers the next.

    To a CUDA device they go through pinned memory, and nothing waits for the copy: what uses them is queued behind it.

    Args:
        pixels: [N, ...] on the CPU, in memory or mapped from a file.
        batches: of indices, int64 on the CPU.
    """
    with ThreadPoolExecutor(1) as reader:
        ahead: Future[Tensor] | None = None
        for indices in batches:
            # Made here, as a new thread would take the first CUDA device for its own.
            room = torch.empty(len(indices), *pixels.shape[1:], dtype=pixels.dtype, pin_memory=device.type == "cuda")
            gathered, ahead = ahead, reader.submit(torch.index_select, pixels, 0, indices, out=room)
            if gathered is not None:
                yield gathered.result().to(device, non_blocking=True)
        if ahead is not None:
            yield ahead.result().to(device, non_blocking=True)
