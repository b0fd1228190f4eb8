"""Data sets by name: each registers itself; `load` finds its files, fetches them if asked, and decodes them once."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from . import events, images, tasks
from .dataset import Dataset
from .download import Remote
from .download import download as fetch_files
from .errors import DataError, reading
from .memory import data_folder
from .source import Source
from .store import load_stored

Locate = Callable[..., Source | None]
L = TypeVar("L", bound=Locate)


@dataclass(frozen=True)
class Entry:
    """A data set of the catalog; see `register`."""

    locate: Locate
    expected: str
    remotes: tuple[Remote, ...]
    places: tuple[Path, ...]
    bundled: Path | None

    @property
    def options(self) -> list[str]:
        """What `locate` takes besides the path."""
        return list(inspect.signature(self.locate).parameters)[1:]


ENTRIES: dict[str, Entry] = {}


def register(
    name: str,
    expected: str = "",
    *,
    remotes: Sequence[Remote] = (),
    places: Sequence[Path] = (),
    bundled: Path | None = None,
) -> Callable[[L], L]:
    """Enters a data set into the catalog: decorates the function that finds its files.

    The function is called with a path that exists, and gives a `Source`, or None if the path does not hold the data
    set. What it takes besides the path are options of `load`: `size` and `time_steps`, which every training run gives,
    and others of its own, which are keywords with a default.

    Args:
        name: what `load` calls it.
        expected: what the path may be, for messages.
        remotes: the official files on the network, with checksums, if they may be downloaded.
        places: to look in besides the data folder.
        bundled: where it lies if it comes with a package; it then takes no path.

    Raises:
        ValueError: another data set has this name.
    """

    def enter(locate: L) -> L:
        known = ENTRIES.get(name)
        if known is not None and known.locate.__module__ != locate.__module__:
            raise ValueError(f"there is already a data set {name!r}, of {known.locate.__module__}; give another name")
        ENTRIES[name] = Entry(locate, expected, tuple(remotes), tuple(places), bundled)
        return locate

    return enter


def entries() -> dict[str, Entry]:
    """All data sets by name, those of the package among them."""
    for folder in (images, events, tasks):
        for module in pkgutil.iter_modules(folder.__path__, f"{folder.__name__}."):
            importlib.import_module(module.name)
    return ENTRIES


def list_datasets() -> list[str]:
    """The names `load` takes."""
    return sorted(entries())


def load(
    name: str,
    path: str | Path | None = None,
    *,
    download: bool = False,
    cache: bool = True,
    rebuild: bool = False,
    size: int | None = None,
    time_steps: int | None = None,
    **options: Any,
) -> Dataset:
    """Opens a data set, decoded.

    The samples come from the decoded copy on disk, which is mapped into memory: what is used is read, and the system
    may drop it again. So a data set may be larger than the memory, and the processes of a machine share one copy of it.

    Args:
        name: one of `list_datasets()`. `cifar10-sample` (5,000 + 1,000 images) comes with the package; `folder` is
            any image folder or zip archive and needs `path`.
        path: the official archive or folder; None looks in the data folder: the environment variable `EISNN_DATA`,
            else the cache folder of the platform. Trials of tasks are made, from no files.
        download: fetch the official files to the data folder if they are not there.
        cache: keep the decoded samples in the data folder for the next time.
        rebuild: decode again, and replace the copy that was kept.
        size: pixels; smaller images are padded with zeros to it, centred. Larger ones stay as they are, to be
            cropped or resized batch by batch, but in a `folder`.
        time_steps: frames of a sequence of events, or steps of a trial; images have none.
        **options: others that the data set takes.

    Returns:
        The training and test split, on the CPU.

    Raises:
        DataError: the name or an option is unknown, the files are not found, incomplete or damaged, or the download
            failed.
    """
    if name not in list_datasets():
        raise DataError(f"there is no data set {name!r}; known are {', '.join(list_datasets())}")
    if size is not None and size < 1:
        raise DataError(f"size is {size}, expected at least 1 pixel")
    entry = ENTRIES[name]
    if unknown := sorted(set(options) - set(entry.options)):
        raise DataError(f"the data set '{name}' has no options {unknown}; it takes {entry.options or 'none'}")
    for key, value in (("size", size), ("time_steps", time_steps)):
        if key in entry.options:
            options[key] = value
    source = _find(name, entry, path, download, options)
    if cache and entry.bundled is None:
        place = data_folder() / "cache" / f"{name}-{source.key(options)}"
        dataset = source.convert(place, rebuild) if source.convert else load_stored(place, source, rebuild)
    else:
        dataset = source.read()
    dataset = replace(dataset, name=name)
    return dataset if size is None else dataset.padded(size)


def _find(name: str, entry: Entry, path: str | Path | None, fetch: bool, options: dict[str, Any]) -> Source:
    def locate(place: Path) -> Source | None:
        with reading(place):
            return entry.locate(place, **options)

    if entry.bundled is not None:
        if path is not None:
            raise DataError(f"{name} comes with the package and takes no path, got {path}")
        places: tuple[Path, ...] = (entry.bundled,)
    elif path is not None:
        path = Path(path).expanduser()
        with reading(path):
            there = path.exists()
        if not there:
            raise DataError(f"{path} does not exist; for {name} give {entry.expected}")
        if (source := locate(path)) is None:
            raise DataError(f"{path} does not hold the data set '{name}'; expected {entry.expected}")
        return source
    elif not entry.remotes and not entry.places:
        raise DataError(f"the data set '{name}' needs a path (--data-path): {entry.expected}")
    else:
        places = (data_folder() / name, data_folder(), *entry.places)
    for attempt in range(2 if fetch and entry.remotes else 1):
        if attempt:
            fetch_files(entry.remotes, data_folder() / name)
        for place in places:
            if place.is_dir() and (source := locate(place)) is not None:
                return source
    raise DataError(
        f"{name} was not found in {', '.join(map(str, places))}. Give the path of {entry.expected}, or download it "
        f"once: eisnn.data.load('{name}', download=True), or eisnn train with --download. The environment variable "
        "EISNN_DATA names another data folder."
    )
