"""A folder with a `train/` inside, on disk or in a zip archive, read the same way."""

import os
import re
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from eisnn.data.errors import DataError, read_file, reading

MAX_FILE = 1 << 28  # bytes
OTHER_SPLITS = {"test", "val"}
MAX_DEPTH = 6  # of folders: links may make circles


@dataclass(frozen=True)
class Tree:
    """Names (relative to the folder that holds `train/`, with `/`) of the visible files of `path`.

    Attributes:
        path: the folder, or the zip archive.
        prefix: of the names inside the archive.
        names: sorted.
        folders: names of the visible folders, also of empty ones; sorted.
    """

    path: Path
    prefix: str
    names: tuple[str, ...]
    folders: tuple[str, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """What lies on disk: the archive, or every file."""
        return (self.path,) if self.path.is_file() else tuple(self.path / name for name in self.names)

    def label(self, name: str) -> str:
        """How error messages call a file."""
        return f"{name} in {self.path}" if self.path.is_file() else str(self.path / name)

    @contextmanager
    def open(self, others: bool = False) -> Iterator[Callable[[str], bytes]]:
        """Gives the function that reads a file by its name; the archive is open only inside the `with` block.

        Args:
            others: at its end, check that the files which were not read have the names that the archive's directory
                says: a damaged name may have left out an image.
        """
        if not self.path.is_file():
            yield self._read_from_disk
            return
        with reading(self.path):
            archive = zipfile.ZipFile(self.path)
        unread = set(archive.namelist())

        def read(name: str) -> bytes:
            with reading(self.label(name)):
                member = archive.getinfo(self.prefix + name)
                if member.file_size > MAX_FILE:
                    raise DataError(f"{self.label(name)} grows to {member.file_size:,} bytes, more than an image has")
                unread.discard(member.filename)
                return archive.read(member)  # checks size and CRC

        with archive:
            yield read
            with reading(self.path):
                for name in unread if others else ():
                    archive.open(name).close()

    def _read_from_disk(self, name: str) -> bytes:
        return read_file(self.path / name, MAX_FILE)


def find_tree(path: Path, splits: tuple[str, ...]) -> Tree | None:
    """The tree of the folder `path`, or of the one `train/` anywhere in the zip archive `path`, or None.

    Args:
        path: of the folder or archive.
        splits: the subfolders to list, `train` among them.

    Raises:
        DataError: `path` is a file but no readable zip archive.
    """
    if path.is_file():
        return _find_in_archive(path, splits)
    if not (path / "train").is_dir():
        return None
    if any((path / "train" / s).is_dir() for s in OTHER_SPLITS) and not any((path / s).is_dir() for s in OTHER_SPLITS):
        return find_tree(path / "train", splits) or _on_disk(path, splits)  # the folder itself is called train
    return _on_disk(path, splits)


def _on_disk(path: Path, splits: tuple[str, ...]) -> Tree:
    names, folders = [], []
    for split in splits:
        for folder, subfolders, files in os.walk(path / split, followlinks=True):
            place = os.path.relpath(folder, path).replace(os.sep, "/")
            names += [f"{place}/{file}" for file in files]
            folders += [f"{place}/{subfolder}" for subfolder in subfolders]
            if place.count("/") == MAX_DEPTH:
                subfolders.clear()
    return Tree(path, "", *(tuple(sorted(filter(_visible, found), key=same_name)) for found in (names, folders)))


def _find_in_archive(path: Path, splits: tuple[str, ...]) -> Tree | None:
    with reading(path), path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise DataError(f"{path} is no complete zip archive; give a folder or a .zip")
        with zipfile.ZipFile(file) as archive:
            everything = [name for name in archive.namelist() if _visible(name)]
    entries = [name for name in everything if not name.endswith("/")]
    if any("\\" in name for name in entries):
        raise DataError(
            f"{path} has names with backslashes, such as {next(name for name in entries if chr(92) in name)!r}: the "
            "program that made it does not keep to the zip format; extract it where it was made and give the folder"
        )
    if len(set(entries)) < len(entries):
        twice = next(name for name, count in Counter(entries).items() if count > 1)
        raise DataError(f"{path} holds {twice!r} more than once; pack it anew")
    found = {name[: place.start()] for name in entries for place in re.finditer("(?<![^/])train/", name)}
    # A class or another folder in a split may be called train as well.
    prefixes = [one for one in found if not any(one.startswith(f"{other}{s}/") for other in found for s in splits)]
    if not prefixes:
        return None
    if len(prefixes) > 1:
        raise DataError(f"{path} holds more than one train/ folder: in {sorted(prefixes)[:5]}; expected one")
    prefix = _innermost(prefixes[0], entries)
    inside = [name.removeprefix(prefix) for name in everything if name.startswith(prefix)]
    inside = sorted((name for name in inside if name.split("/")[0] in splits), key=same_name)
    names = tuple(name for name in inside if not name.endswith("/"))
    folders = {name[:end] for name in inside for end, letter in enumerate(name) if letter == "/"}
    return Tree(path, prefix, names, tuple(sorted(folders, key=same_name)))


def _innermost(prefix: str, names: list[str]) -> str:
    """The folder that holds `train/`: where the folder that an archive was made of is called so itself, `train/train/`
    and `train/test/` in it and no other split beside it, that folder."""
    outer = f"{prefix}train/"
    splits = {name.removeprefix(prefix).split("/")[0] for name in names if name.startswith(prefix)} & OTHER_SPLITS
    inner = {name.removeprefix(outer).split("/")[0] for name in names if name.startswith(outer)}
    return _innermost(outer, names) if not splits and "train" in inner and inner & OTHER_SPLITS else prefix


def same_name(name: str) -> str:
    """The same for names that look the same: macOS writes accented letters as two characters, others as one."""
    return unicodedata.normalize("NFC", name)


def _visible(name: str) -> bool:
    """Leaves out what operating systems strew about, such as `.DS_Store` and `__MACOSX/`."""
    return not any(part.startswith((".", "__MACOSX")) for part in name.split("/"))
