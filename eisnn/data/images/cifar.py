"""CIFAR-10 and CIFAR-100 in the official binary version, as the archive or the extracted folder.

A record is its label bytes (one for CIFAR-10; coarse, then fine for CIFAR-100) and 3072 pixel bytes, channel by
channel, row by row. Source: https://www.cs.toronto.edu/~kriz/cifar.html
"""

import io
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from eisnn.data.catalog import register
from eisnn.data.dataset import Dataset, Images
from eisnn.data.download import Remote
from eisnn.data.errors import DataError, read_file, reading
from eisnn.data.source import Source

from . import mosaic

HOME = "https://www.cs.toronto.edu/~kriz"
PIXELS = 3 * 32 * 32  # bytes


@dataclass(frozen=True)
class Layout:
    """What the official files are called and hold; `train` and `test` give the records in each file."""

    name: str
    archive: str
    folder: str
    train: dict[str, int]
    test: dict[str, int]
    names: str
    classes: int
    label_bytes: int  # of which the last is the label

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.train, *self.test, self.names)

    @property
    def nbytes(self) -> int:
        """Of all records, and room for what lies beside them."""
        return (sum(self.train.values()) + sum(self.test.values())) * (self.label_bytes + PIXELS) + (1 << 20)


CIFAR10 = Layout(
    name="cifar10",
    archive="cifar-10-binary.tar.gz",
    folder="cifar-10-batches-bin",
    train={f"data_batch_{k}.bin": 10_000 for k in range(1, 6)},
    test={"test_batch.bin": 10_000},
    names="batches.meta.txt",
    classes=10,
    label_bytes=1,
)
CIFAR100 = Layout(
    name="cifar100",
    archive="cifar-100-binary.tar.gz",
    folder="cifar-100-binary",
    train={"train.bin": 50_000},
    test={"test.bin": 10_000},
    names="fine_label_names.txt",
    classes=100,
    label_bytes=2,
)


@register(
    "cifar10",
    "cifar-10-binary.tar.gz, the folder of its .bin files, or a folder of mosaics {train,test}/CLASS.webp",
    remotes=[Remote(f"{HOME}/cifar-10-binary.tar.gz", "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530")],
)
def locate_cifar10(path: Path) -> Source | None:
    """CIFAR-10 at `path`: the archive, the extracted files, a folder with either, or a folder of mosaics."""
    return _locate(CIFAR10, path) or mosaic.locate(path)


@register(
    "cifar100",
    "cifar-100-binary.tar.gz or the folder of its .bin files",
    remotes=[Remote(f"{HOME}/cifar-100-binary.tar.gz", "cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8")],
)
def locate_cifar100(path: Path) -> Source | None:
    """CIFAR-100 at `path`: the archive, the extracted files, or a folder with either."""
    return _locate(CIFAR100, path)


def _locate(layout: Layout, path: Path) -> Source | None:
    for place in (path, path / layout.folder, path / layout.archive):
        if place.is_file():
            return Source(place, (place,), partial(_read_archive, layout, place))
        files = tuple(place / name for name in layout.files)
        if any(file.is_file() for file in files):
            present = tuple(file for file in files if file.is_file())
            return Source(place, present, partial(read, layout, partial(_read_file, place, layout)))
    return None


def read(layout: Layout, content: Callable[[str], tuple[str, bytes]]) -> Dataset:
    """Checks and decodes the official files.

    Args:
        layout: which of the two data sets.
        content: gives, for the name of an official file, what to call it in messages and its bytes.

    Raises:
        DataError: a file is missing, has another size, or a label that does not exist.
    """
    label, text = content(layout.names)
    classes = tuple(text.decode(errors="replace").split())
    if len(set(classes)) != layout.classes:
        raise DataError(f"{label} names {len(set(classes))} classes, expected {layout.classes}")
    train = [_records(layout, *content(name), count) for name, count in layout.train.items()]
    test = [_records(layout, *content(name), count) for name, count in layout.test.items()]
    return Dataset(layout.name, classes, _join(train), _join(test))


def _records(layout: Layout, label: str, content: bytes, count: int) -> Images:
    size = layout.label_bytes + PIXELS
    if len(content) != count * size:
        raise DataError(f"{label} has {len(content):,} bytes, expected {count * size:,}: {count:,} records of {size}")
    records = torch.frombuffer(bytearray(content), dtype=torch.uint8).view(count, size)
    labels = records[:, layout.label_bytes - 1].long()
    if labels.max() >= layout.classes:
        raise DataError(f"{label} has label {labels.max()}, expected 0 to {layout.classes - 1}: the file is damaged")
    return Images(records[:, layout.label_bytes :].reshape(count, 3, 32, 32), labels)


def _join(parts: list[Images]) -> Images:
    return Images(torch.cat([part.pixels for part in parts]), torch.cat([part.labels for part in parts]))


def _read_archive(layout: Layout, archive: Path) -> Dataset:
    return read(layout, _extract(layout, archive))


def _read_file(folder: Path, layout: Layout, name: str) -> tuple[str, bytes]:
    return str(folder / name), read_file(folder / name, layout.nbytes)


def _extract(layout: Layout, archive: Path) -> Callable[[str], tuple[str, bytes]]:
    """Reads the wanted members."""
    content, found = read_file(archive, layout.nbytes, compressed=True), {}
    with reading(archive), tarfile.open(fileobj=io.BytesIO(content)) as tar:
        for member in tar:
            name = Path(member.name).name
            if name in layout.files and (opened := tar.extractfile(member)) is not None:
                found[name] = opened.read()
    missing = [name for name in layout.files if name not in found]
    if missing:
        raise DataError(f"{archive} lacks {missing}: expected the binary version, {layout.archive}")
    return lambda name: (f"{name} in {archive}", found[name])
