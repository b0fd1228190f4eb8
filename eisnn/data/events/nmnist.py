"""N-MNIST (Orchard et al. 2015): 60,000 and 10,000 recordings of MNIST's digits, filmed by a camera in three saccades.

Official files: `Train.zip` and `Test.zip`, or the folders they extract to, `Train/DIGIT/NUMBER.bin`. A part of them may
also lie in one NumPy archive: for S in train, test the arrays `S_t`, `S_x`, `S_y`, `S_p` of all events, `S_offsets`,
where recordings begin and end, and `S_label`.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from eisnn.data.catalog import register
from eisnn.data.download import Remote
from eisnn.data.errors import DataError, reading
from eisnn.data.source import Source

from .frames import Bins, Scaling
from .layout import Layout, RawFile, Trial, in_archive, in_folder
from .npz import require_columns
from .recording import Decoded, File, finish
from .recordings import source

SIZE = (34, 34)
CLASSES = tuple(map(str, range(10)))
_MENDELEY = "https://data.mendeley.com/public-files/datasets/468j46mzdv/files"


@register(
    "nmnist",
    "the folder of Train.zip and Test.zip or of what they extract to, or an .npz archive of recordings",
    remotes=[
        Remote(f"{_MENDELEY}/{place}/file_downloaded", name, md5)
        for name, place, md5 in (
            ("Train.zip", "39c25547-014b-4137-a934-9d29fa53c7a0", "20959b8e626244a1b502305a9e6e2031"),
            ("Test.zip", "05a4d654-7e03-4c15-bdfa-9bb2bcbea494", "69ca8762b2fe404d9b9bad1103e97832"),
        )
    ],
)
def locate(
    path: Path, time_steps: int | None = None, bins: Bins = "count", scaling: Scaling = "average"
) -> Source | None:
    """N-MNIST in the folder or archive `path`, or None if it is not there."""
    return source(find(path), time_steps, bins, scaling)


def find(path: Path) -> Layout | None:
    """Its raw files."""
    if path.suffix == ".npz" and path.is_file():
        return Layout(path.parent, (RawFile("recordings", path),), SIZE, CLASSES, _of_npz)
    files: list[RawFile] = []
    for split in ("Train", "Test"):
        archive = path / f"{split}.zip"
        found = in_archive(archive, ".bin") if archive.is_file() else in_folder(path / split, ".bin")
        if not found:
            return None
        files += [replace(file, name=f"{split.lower()}/{file.name}") for file in found]
    return Layout(path, tuple(files), SIZE, CLASSES, _whole)


def _whole(file: RawFile) -> Iterator[Trial]:
    digit = file.name.split("/")[1]
    if digit not in CLASSES:
        raise DataError(f"{file.label}: it lies in the folder {digit!r}, expected a digit")
    yield Trial(file.name, int(digit), file.read(SIZE))


def _of_npz(file: RawFile) -> Iterator[Trial]:
    for split in ("train", "test"):
        yield from _split_of_npz(file, split)


def _split_of_npz(file: RawFile, split: str) -> Iterator[Trial]:
    names = [f"{split}_{name}" for name in ("t", "x", "y", "p", "offsets", "label")]
    with reading(file.path), np.load(file.path, allow_pickle=False) as stored:
        if missing := [name for name in names if name not in stored]:
            raise DataError(f"{file.path} lacks the arrays {', '.join(missing)}")
        t, x, y, p, offsets, labels = (stored[name] for name in names)
    source = File(file.path, np.empty(0, np.uint8))
    require_columns(source, t=t, x=x, y=y, p=p)
    whole = all(array.ndim == 1 and array.dtype.kind in "iu" for array in (offsets, labels))
    if not whole or len(offsets) != len(labels) + 1 or offsets[0] != 0 or (offsets[1:] <= offsets[:-1]).any():
        raise DataError(f"{file.path}: {split}_offsets do not rise from 0, one for each of {split}_label and the end")
    if offsets[-1] != len(t) or not np.isin(labels, range(10)).all():
        raise DataError(f"{file.path}: {split}_offsets do not end at {len(t):,} events, or its labels are not digits")
    for k, label in enumerate(labels.tolist()):
        part = slice(offsets[k], offsets[k + 1])
        decoded = Decoded(t[part], x[part], y[part], p[part], "N-MNIST", lambda _: 0, SIZE)
        yield Trial(f"{split}/{label}/{k:05}", label, finish(source, decoded, SIZE))
