"""Data sets by name: find the files, fetch them if asked, decode them once."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from . import cifar, fashion_mnist, folder, mosaic, tiny_imagenet
from .cache import read_cache, write_cache
from .dataset import Dataset, Images
from .download import REMOTES
from .download import download as fetch_files
from .errors import DataError, reading
from .source import Source
from .storage import data_folder, empty_pixels

SAMPLE = Path(__file__).parent / "sample"


@dataclass(frozen=True)
class _Entry:
    locate: Callable[[Path, int | None], Source | None]
    expected: str  # what `path` may be, for messages
    places: tuple[Path, ...] = ()  # to look in besides the data folder


_ENTRIES = {
    "cifar10": _Entry(
        lambda path, _: cifar.locate_cifar10(path),
        "cifar-10-binary.tar.gz, the folder of its .bin files, or a folder of mosaics {train,test}/CLASS.webp",
    ),
    "cifar100": _Entry(
        lambda path, _: cifar.locate_cifar100(path), "cifar-100-binary.tar.gz or the folder of its .bin files"
    ),
    "tiny-imagenet": _Entry(
        lambda path, _: tiny_imagenet.locate(path), "tiny-imagenet-200.zip or the folder it extracts to"
    ),
    "fashion-mnist": _Entry(
        lambda path, _: fashion_mnist.locate(path),
        "the folder of the four idx files (train-images-idx3-ubyte and so on, .gz or not)",
        fashion_mnist.DEBIAN,
    ),
    "folder": _Entry(folder.locate, "a folder or .zip of SPLIT/CLASS/NAME.png with SPLIT train and test (or val)"),
}


def list_datasets() -> list[str]:
    """The names `load` takes."""
    return [*_ENTRIES, "cifar10-sample"]


def load(
    name: str, path: str | Path | None = None, *, download: bool = False, cache: bool = True, size: int | None = None
) -> Dataset:
    """Opens a data set, decoded.

    The images come from the decoded copy on disk, which is mapped into memory: what is used is read, and the system may
    drop it again. So a data set may be larger than the memory, and the processes of a machine share one copy of it.

    Args:
        name: one of `list_datasets()`. `cifar10-sample` (5,000 + 1,000 images) comes with the package; `folder` is
            any image folder or zip archive and needs `path`.
        path: the official archive or folder; None looks in the data folder: the environment variable `EISNN_DATA`,
            else the cache folder of the platform.
        download: fetch the official files to the data folder if they are not there.
        cache: keep the decoded images in the data folder for the next time.
        size: pixels; smaller images are padded with zeros to it, centred. Larger ones stay as they are, to be
            cropped or resized batch by batch. Images of a `folder` that differ in size are brought to it.

    Returns:
        The training and test split, uint8, on the CPU.

    Raises:
        DataError: the name is unknown, the files are not found, incomplete or damaged, or the download failed.
    """
    if name not in list_datasets():
        raise DataError(f"there is no data set {name!r}; known are {', '.join(list_datasets())}")
    if size is not None and size < 1:
        raise DataError(f"size is {size}, expected at least 1 pixel")
    if name == "cifar10-sample":
        if path is not None:
            raise DataError(f"cifar10-sample comes with the package and takes no path, got {path}")
        dataset = replace(mosaic.read(SAMPLE), name=name)
    else:
        dataset = _decode(name, _find(name, path, download, size), cache)
    if size is None:
        return dataset
    return replace(dataset, train=_pad(dataset.train, size), test=_pad(dataset.test, size))


def _find(name: str, path: str | Path | None, fetch: bool, size: int | None) -> Source:
    entry = _ENTRIES[name]
    if path is not None:
        path = Path(path).expanduser()
        if not path.exists():
            raise DataError(f"{path} does not exist; for {name} give {entry.expected}")
        with reading(path):
            source = entry.locate(path, size)
        if source is not None:
            return source
        raise DataError(f"{path} does not hold the data set '{name}'; expected {entry.expected}")
    if name not in REMOTES:
        raise DataError(f"the data set '{name}' needs a path (--data-path): {entry.expected}")
    home = data_folder()
    places = (home / name, home, *entry.places)
    for attempt in range(2 if fetch else 1):
        if attempt:
            fetch_files(name, home / name)
        for place in places:
            with reading(place):
                source = entry.locate(place, size) if place.is_dir() else None
            if source is not None:
                return source
    raise DataError(
        f"{name} was not found in {', '.join(map(str, places))}. Give the path of {entry.expected}, or download it "
        "(download=True; in a shell --download True); the environment variable EISNN_DATA names another data folder."
    )


def _decode(name: str, source: Source, cache: bool) -> Dataset:
    if not cache:
        return source.read()
    with reading(source.root):
        fingerprint = source.fingerprint()
    file = data_folder() / "cache" / f"{name}-{source.key()}.safetensors"
    dataset = read_cache(file, fingerprint)
    if dataset is None:
        dataset = source.read()
        write_cache(file, fingerprint, dataset)
        dataset = read_cache(file, fingerprint) or dataset  # the copy, if it could be written
    return dataset


def _pad(images: Images, size: int) -> Images:
    count, channels, height, width = images.pixels.shape
    if min(height, width) >= size:
        return images
    rows, columns = max(size - height, 0), max(size - width, 0)
    padded = empty_pixels(count, channels, height + rows, width + columns).zero_()
    padded[..., rows // 2 :, columns // 2 :][..., :height, :width] = images.pixels
    return Images(padded, images.labels)
