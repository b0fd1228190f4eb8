"""32x32 images of one class as the tiles of one lossless WebP file: `{train,test}/CLASS.webp`, row by row."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eisnn.data.catalog import register
from eisnn.data.dataset import Dataset, Images
from eisnn.data.errors import DataError, read_file, reading
from eisnn.data.source import Source

from .decode import open_image
from .tree import MAX_FILE

SIDE = 32  # pixels, of a square tile
COLUMNS = {"train": 50, "test": 25}  # of the files we write; files are read with whatever width they have
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@register("cifar10-sample", bundled=Path(__file__).parents[1] / "sample")
def locate(path: Path) -> Source | None:
    """CIFAR-10 as mosaics in the folder `path`, or None if it holds no `.webp` files in `train/` or `test/`."""
    files = tuple(file for split in COLUMNS for file in sorted((path / split).glob("*.webp")))
    return Source(path, files, lambda: read(path)) if files else None


def read(path: Path) -> Dataset:
    """Reads CIFAR-10 from mosaics; label = index of the class in sorted order, which is the official one.

    Raises:
        DataError: a class file is missing, surplus, truncated, not RGB or not a whole number of tiles.
    """
    train, test = (_read_split(path / split) for split in COLUMNS)
    return Dataset("cifar10", CIFAR10, train, test)


def _read_split(folder: Path) -> Images:
    names = {file.stem for file in folder.glob("*.webp")}
    if names != set(CIFAR10):
        missing, surplus = sorted(set(CIFAR10) - names), sorted(names - set(CIFAR10))
        raise DataError(
            f"{folder} should hold one .webp file for each class of CIFAR-10: missing {missing}, surplus {surplus}"
        )
    pixels = [_read_tiles(folder / f"{name}.webp") for name in CIFAR10]
    counts = torch.tensor([len(tiles) for tiles in pixels])
    return Images(torch.cat(pixels), torch.arange(len(CIFAR10)).repeat_interleave(counts))


def _read_tiles(file: Path) -> Tensor:
    with reading(file), open_image(read_file(file, MAX_FILE), str(file)) as image:
        mode, pixels = image.mode, np.array(image)
    if mode != "RGB" or pixels.shape[0] % SIDE or pixels.shape[1] % SIDE:
        raise DataError(
            f"{file} is a {mode} image of {pixels.shape[1]}x{pixels.shape[0]} pixels, "
            f"expected RGB with width and height multiples of {SIDE}"
        )
    return untile(torch.from_numpy(pixels))


def untile(mosaic: Tensor) -> Tensor:
    """The tiles, row by row, of a mosaic uint8 [rows * 32, columns * 32, 3]: uint8 [rows * columns, 3, 32, 32]."""
    rows, columns = mosaic.shape[0] // SIDE, mosaic.shape[1] // SIDE
    tiles = mosaic.reshape(rows, SIDE, columns, SIDE, 3).permute(0, 2, 4, 1, 3)
    return tiles.reshape(rows * columns, 3, SIDE, SIDE)


def tile(pixels: Tensor, columns: int) -> Tensor:
    """The inverse of `untile`.

    Args:
        pixels: uint8 [N, 3, 32, 32].
        columns: tiles in a row.

    Raises:
        DataError: N is not a multiple of `columns`: a mosaic has no empty tiles.
    """
    if len(pixels) % columns:
        raise DataError(f"{len(pixels)} images do not fill rows of {columns}")
    tiles = pixels.reshape(-1, columns, 3, SIDE, SIDE).permute(0, 3, 1, 4, 2)
    return tiles.reshape(-1, columns * SIDE, 3)
