"""Fashion-MNIST as four idx files, compressed or not, in one folder.

An idx file is big-endian: two zero bytes, the type (8: uint8), the number of axes, their lengths as int32, the data.
Source: https://github.com/zalandoresearch/fashion-mnist
"""

import math
import struct
from pathlib import Path

import torch
from torch import Tensor

from eisnn.data.catalog import register
from eisnn.data.dataset import Dataset, Images
from eisnn.data.download import Remote
from eisnn.data.errors import DataError, read_file
from eisnn.data.source import Source

FILES = {  # with the checksums of their compressed form
    "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
}
COUNTS = {"train": 60_000, "t10k": 10_000}
SIDE = 28  # pixels
# Where Debian's package dataset-fashion-mnist puts them: the first in version 0.0~git20200523.
DEBIAN = (Path("/usr/share/datasets/fashion-mnist"), Path("/usr/share/dataset-fashion-mnist"))
CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


@register(
    "fashion-mnist",
    "the folder of the four idx files (train-images-idx3-ubyte and so on, .gz or not)",
    remotes=[
        Remote(f"https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/{name}.gz", f"{name}.gz", md5)
        for name, md5 in FILES.items()
    ],
    places=DEBIAN,
)
def locate(path: Path) -> Source | None:
    """Fashion-MNIST in the folder `path`, or None if none of its files is there."""
    present = tuple(file for name in FILES for file in (path / name, path / f"{name}.gz") if file.is_file())
    return Source(path, present, lambda: read(path)) if present else None


def read(path: Path) -> Dataset:
    """Checks and decodes the four files: pixels uint8 [N, 1, 28, 28].

    Raises:
        DataError: a file is missing, damaged, or not what its name says.
    """
    train, test = (_read_split(path, split) for split in COUNTS)
    return Dataset("fashion-mnist", CLASSES, train, test)


def _read_split(folder: Path, split: str) -> Images:
    count = COUNTS[split]
    pixels = _read_idx(folder, f"{split}-images-idx3-ubyte", (count, SIDE, SIDE))
    labels = _read_idx(folder, f"{split}-labels-idx1-ubyte", (count,)).long()
    if labels.max() >= len(CLASSES):
        raise DataError(f"{split}-labels-idx1-ubyte in {folder} has label {labels.max()}, expected 0 to 9")
    return Images(pixels.unsqueeze(1), labels)


def _read_idx(folder: Path, name: str, shape: tuple[int, ...]) -> Tensor:
    """The array in `name` or `name.gz` (the uncompressed file goes first), which must be uint8 of `shape`."""
    file = folder / name
    file = file if file.is_file() else folder / f"{name}.gz"
    header = struct.pack(f">HBB{len(shape)}i", 0, 8, len(shape), *shape)
    expected = len(header) + math.prod(shape)
    content = read_file(file, expected, compressed=file.suffix == ".gz")
    if content[: len(header)] != header:
        raise DataError(f"{file} does not begin with the idx header of a uint8 array of shape {shape}")
    if len(content) != expected:
        raise DataError(f"{file} holds {len(content):,} bytes (uncompressed), expected {expected:,}")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=len(header)).view(shape)
