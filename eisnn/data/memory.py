"""Where decoded samples lie: in memory, or in files on disk where there are too many for it."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor

from .errors import DataError

SHARE = 1 / 4  # of the free memory that images may take: the network wants room too, and each process has its images


def data_folder() -> Path:
    """The environment variable `EISNN_DATA`, else the cache folder of the platform."""
    if chosen := os.environ.get("EISNN_DATA"):
        return Path(chosen).expanduser()
    import pooch

    return Path(pooch.os_cache("eisnn"))


def fits(size: int, device: torch.device | str = "cpu") -> bool:
    """Whether `size` bytes take at most a quarter of the memory that is free on `device`."""
    return size <= SHARE * free_memory(torch.device(device))


def free_memory(device: torch.device) -> int:
    """Bytes; on a CPU no more than this process may use."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min([psutil.virtual_memory().available, *_limits()])


def empty_pixels(*shape: int) -> Tensor:
    """An uint8 tensor on the CPU, to be filled; in a file without a name in the data folder if it does not fit into
    memory. The system writes and reads that file page by page, and drops it with the tensor.

    Raises:
        DataError: there is no room in the data folder either.
    """
    size = torch.Size(shape).numel()
    if fits(size):
        return torch.empty(shape, dtype=torch.uint8)
    folder = data_folder() / "cache"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            _reserve(file.fileno(), size)
            return torch.from_numpy(np.memmap(file, mode="r+", shape=shape))
    except OSError as error:
        raise DataError(
            f"{size:,} bytes of decoded images do not fit into memory, and {folder} cannot hold them: "
            f"{error.strerror or error}. The environment variable EISNN_DATA names another folder."
        ) from error


def _reserve(file: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)  # a full disk says so here, not by a signal in the middle of the work
    else:
        os.truncate(file, size)


def _limits() -> Iterator[int]:
    """Bytes that this process's control groups allow it: those of a container, or of a job in a batch system."""
    root = Path("/sys/fs/cgroup")
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        group = root / next(line for line in lines if line.startswith("0::")).removeprefix("0::/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(root) and (file := folder / "memory.max").exists():
                limit = file.read_text().strip()
                if limit != "max":
                    yield int(limit)
    except (OSError, StopIteration):
        return
