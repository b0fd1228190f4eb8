"""Where a data set was found on disk, and how to read it."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from .dataset import Dataset


@dataclass(frozen=True)
class Source:
    """A data set on disk that has been found but not read.

    Attributes:
        root: the archive or folder.
        files: all files that are read; their names, sizes and times say whether a cached copy is still good.
        read: reads and checks them; raises `DataError`.
        variant: what else the result of `read` depends on.
    """

    root: Path
    files: tuple[Path, ...]
    read: Callable[[], Dataset]
    variant: str = ""

    def key(self) -> str:
        """Identifies the place: a source that changes keeps its key."""
        return sha256(os.fsencode(self.root.resolve()) + b"\0" + self.variant.encode()).hexdigest()[:16]

    def fingerprint(self) -> str:
        """Identifies the content, by the names, sizes and modification times of the files."""
        digest = sha256()
        for file in self.files:
            state = file.stat()
            name = os.path.relpath(file, self.root)
            digest.update(os.fsencode(f"{name}\0{state.st_size}\0{state.st_mtime_ns}\n"))
        return digest.hexdigest()
