"""Where a data set was found on disk, and how to read it."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from .dataset import Dataset


@dataclass(frozen=True)
class Source:
    """A data set on disk that has been found but not read.

    Attributes:
        root: the archive or folder.
        files: all files that are read; their names, sizes and times say whether a decoded copy is still good.
        read: reads and checks them; raises `DataError`.
        convert: instead of the decoded copy that `load` keeps of images: opens what it has itself converted and keeps
            in the folder that it is given, and converts it if need be; the second argument says to do so anew.
    """

    root: Path
    files: tuple[Path, ...]
    read: Callable[[], Dataset]
    convert: Callable[[Path, bool], Dataset] | None = None

    def key(self, options: Mapping[str, Any]) -> str:
        """Identifies the place, and the options where the result depends on them: what a source has converted itself
        serves all. A source that changes keeps its key."""
        said = "" if self.convert else repr(sorted(options.items()))
        return sha256(os.fsencode(self.root.resolve()) + b"\0" + said.encode()).hexdigest()[:16]

    def fingerprint(self) -> str:
        """Identifies the state of the files, by their names, sizes and times; the time of the last change of any kind
        (ctime) cannot be set back, as that of the content can."""
        digest = sha256()
        for file in self.files:
            state = file.stat()
            name = os.path.relpath(file, self.root)
            digest.update(os.fsencode(f"{name}\0{state.st_size}\0{state.st_mtime_ns}\0{state.st_ctime_ns}\n"))
        return digest.hexdigest()[:16]
