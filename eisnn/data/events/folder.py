"""Any folder of recordings, `SPLIT/CLASS/NAME`, with splits train and test (or val), in any format that is read."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from eisnn.data.catalog import register
from eisnn.data.errors import DataError
from eisnn.data.progress import track
from eisnn.data.source import Source

from .frames import Bins, Scaling
from .layout import Layout, RawFile, Trial, in_folder
from .recordings import source


@register("event-folder", "a folder of SPLIT/CLASS/RECORDING with SPLIT train and test (or val), all of one sensor")
def locate(
    path: Path, time_steps: int | None = None, bins: Bins = "count", scaling: Scaling = "average"
) -> Source | None:
    """The recordings in the folder `path`, or None if it has no `train/`; classes are the folder names, sorted."""
    return source(find(path), time_steps, bins, scaling)


def find(path: Path) -> Layout | None:
    """The raw files.

    Raises:
        DataError: no other split, or splits that differ in their classes.
    """
    if not (path / "train").is_dir():
        return None
    test = "test" if (path / "test").is_dir() else "val"
    found = {split: in_folder(path / split, "") for split in ("train", test)}
    classes = {split: sorted({file.path.parent.name for file in files}) for split, files in found.items()}
    if not classes[test] or classes["train"] != classes[test]:
        raise DataError(
            f"{path} has classes {classes['train']} in train, {classes[test]} in {test}; expected the same in both"
        )
    files = tuple(
        RawFile(f"{'train' if split == 'train' else 'test'}/{file.path.parent.name}/{file.path.name}", file.path)
        for split, listed in found.items()
        for file in listed
    )
    size = _sensor(files)
    return Layout(path, files, size, tuple(classes["train"]), partial(_whole, tuple(classes["train"]), size))


def _sensor(files: tuple[RawFile, ...]) -> tuple[int, int]:
    """The size of the sensor: as the first file says, or else the smallest that holds the events of all."""
    first = files[0].read(None)
    if first.size_known:
        return first.size
    sizes = [file.read(None).size for file in track(files, "Looking through the recordings")]
    return max(height for height, _ in sizes), max(width for _, width in sizes)


def _whole(classes: tuple[str, ...], size: tuple[int, int], file: RawFile) -> Iterator[Trial]:
    yield Trial(file.name, classes.index(file.path.parent.name), file.read(size))
