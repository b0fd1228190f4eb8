"""A data set of raw recordings as it lies on disk, before it is converted."""

import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eisnn.data.errors import DataError, reading
from eisnn.data.memory import fits

from .files import decode, read
from .recording import Events


@dataclass(frozen=True)
class RawFile:
    """One raw recording.

    Attributes:
        name: unique in its data set.
        path: of the file, or of the zip archive that holds it.
        archive: that archive, open, if it lies in one.
        member: its name in there.
    """

    name: str
    path: Path
    archive: zipfile.ZipFile | None = None
    member: str = ""

    @property
    def nbytes(self) -> int:
        """Size, not compressed."""
        return self.archive.getinfo(self.member).file_size if self.archive else self.path.stat().st_size

    @property
    def label(self) -> Path:
        """How messages call it."""
        return self.path / self.member

    def read(self, size: tuple[int, int] | None) -> Events:
        """The recording, of a sensor of `size`; raises DataError."""
        if self.archive is None:
            return read(self.path, size=size)
        if not fits(self.nbytes):
            raise DataError(f"{self.label} grows to {self.nbytes:,} bytes, more than there is room for")
        with reading(self.label):
            content = self.archive.read(self.member)  # checks the CRC
        return decode(self.label, np.frombuffer(content, np.uint8), size=size)


class Trial(NamedTuple):
    """A recording of the data set: all of a raw file, or a part of it."""

    name: str
    label: int
    events: Events


@dataclass(frozen=True)
class Layout:
    """Raw recordings that have been found but not read.

    Attributes:
        root: where they lie.
        files: in the order of the data set.
        size: height and width of the sensor, pixels.
        classes: names.
        recordings: reads a raw file and cuts it into the recordings of the data set; raises DataError.
        others: files that it reads besides, such as tables of labels.
    """

    root: Path
    files: tuple[RawFile, ...]
    size: tuple[int, int]
    classes: tuple[str, ...]
    recordings: Callable[[RawFile], Iterable[Trial]]
    others: tuple[Path, ...] = ()

    def fingerprint(self) -> str:
        """Identifies the content, by the names, sizes and modification times of the files."""
        digest = sha256()
        for path in dict.fromkeys((*(file.path for file in self.files), *self.others)):
            state = path.stat()
            digest.update(f"{path.relative_to(self.root)}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
        for file in self.files:
            digest.update(f"{file.name}\n".encode())
        return digest.hexdigest()


def in_archive(path: Path, suffix: str) -> list[RawFile]:
    """The files of a zip archive that end in `suffix`, sorted; their names are their last two parts, as CLASS/NAME."""
    with reading(path):
        archive = zipfile.ZipFile(path)
    members = sorted(name for name in archive.namelist() if name.endswith(suffix) and "__MACOSX" not in name)
    return [RawFile("/".join(Path(name).with_suffix("").parts[-2:]), path, archive, name) for name in members]


def in_folder(path: Path, suffix: str) -> list[RawFile]:
    """The files `path/CLASS/NAME` that end in `suffix`, likewise."""
    files = sorted(path.glob(f"*/[!.]*{suffix}"))
    return [RawFile("/".join(file.with_suffix("").parts[-2:]), file) for file in files]
