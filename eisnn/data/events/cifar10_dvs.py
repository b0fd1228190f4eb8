"""CIFAR10-DVS (Li et al. 2017): 1,000 recordings of each of CIFAR-10's classes, filmed from a screen by a DVS128.

Official files: ten archives `CLASS.zip`, or the folders they extract to, with `cifar10_CLASS_NUMBER.aedat` (AEDAT 2.0).
There is no official split; see `is_test`. The camera lay on its side: with x and y exchanged pictures are upright, as
in SpikingJelly (x = 127 - the y of the address, y = 127 - its x; polarity 1 where the address has 0).
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eisnn.data.catalog import register
from eisnn.data.download import Remote
from eisnn.data.errors import DataError
from eisnn.data.source import Source

from .frames import Bins, Scaling
from .layout import Layout, RawFile, Trial, in_archive, in_folder
from .recordings import source

SIZE = (128, 128)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
EACH, HELD_BACK = 1000, 100  # recordings of a class, and those of them that are for evaluation
SPLIT = Path(__file__).with_name("cifar10_dvs_split.txt")
_FIGSHARE = {  # number and checksum of each archive
    "airplane": (7712788, "0afd5c4bf9ae06af762a77b180354fdd"),
    "automobile": (7712791, "8438dfeba3bc970c94962d995b1b9bdd"),
    "bird": (7712794, "a9c207c91c55b9dc2002dc21c684d785"),
    "cat": (7712812, "52c63c677c2b15fa5146a8daf4d56687"),
    "deer": (7712815, "b6bf21f6c04d21ba4e23fc3e36c8a4a3"),
    "dog": (7712818, "f379ebdf6703d16e0a690782e62639c3"),
    "frog": (7712842, "cad6ed91214b1c7388a5f6ee56d08803"),
    "horse": (7712851, "e7cbbf77bec584ffbf913f00e682782a"),
    "ship": (7712836, "41c7bd7d6b251be82557c6cce9a7d5c9"),
    "truck": (7712839, "89f3922fd147d9aeff89e76a2b0b70a7"),
}


@register(
    "cifar10-dvs",
    "the folder of the ten archives airplane.zip ... truck.zip, or of what they extract to",
    remotes=[
        Remote(f"https://ndownloader.figshare.com/files/{number}", f"{name}.zip", md5)
        for name, (number, md5) in _FIGSHARE.items()
    ],
)
def locate(
    path: Path,
    time_steps: int | None = None,
    bins: Bins = "count",
    scaling: Scaling = "average",
    split_seed: int | None = None,
) -> Source | None:
    """CIFAR10-DVS in the folder `path`, or None if it is not there; `split_seed` is that of `is_test`."""
    said = {"split": "first 900 file names of each class" if split_seed is None else f"random, seed {split_seed}"}
    return source(find(path), time_steps, bins, scaling, partial(is_test, seed=split_seed), **said)


def find(path: Path) -> Layout | None:
    """Its raw files.

    Raises:
        DataError: a class is missing or has not 1,000 recordings.
    """
    files: list[RawFile] = []
    extracted = in_folder(path, ".aedat")
    for name in CLASSES:
        archive = path / f"{name}.zip"
        found = in_archive(archive, ".aedat") if archive.is_file() else extracted
        files += sorted((file for file in found if file.name.startswith(f"{name}/")), key=_number)
    if not files:
        return None
    counts = {name: sum(file.name.startswith(f"{name}/") for file in files) for name in CLASSES}
    if wrong := {name: count for name, count in counts.items() if count != EACH}:
        raise DataError(f"{path} has not {EACH:,} recordings of every class of CIFAR10-DVS, but {wrong}")
    return Layout(path, tuple(files), SIZE, CLASSES, _upright)


def is_test(names: Sequence[str], seed: int | None) -> NDArray[np.bool_]:
    """Which recordings are for evaluation, 100 of each class.

    Args:
        names: of all recordings, `CLASS/cifar10_CLASS_NUMBER`.
        seed: of a random split; None is the one that programs take which train on the first 900 recordings of each
            class in the order of their file names (the paper's), written down in `cifar10_dvs_split.txt`.
    """
    if seed is None:
        lines = SPLIT.read_text().splitlines()
        held_back = {int(line) for line in lines if not line.startswith("#")}
        return np.array([_number(name) in held_back for name in names])
    rng = np.random.default_rng(seed)
    chosen = {name: set(rng.permutation(EACH)[:HELD_BACK].tolist()) for name in CLASSES}
    return np.array([_number(name) in chosen[name.split("/")[0]] for name in names])


def _upright(file: RawFile) -> Iterator[Trial]:
    events = file.read(SIZE)
    label = CLASSES.index(file.name.split("/")[0])
    yield Trial(file.name, label, replace(events, x=events.y, y=events.x))


def _number(file: RawFile | str) -> int:
    name = file if isinstance(file, str) else file.name
    number = name.rpartition("_")[2]
    if not number.isdigit() or int(number) >= EACH:
        raise DataError(f"{name}.aedat is no recording of CIFAR10-DVS: those are called cifar10_CLASS_NUMBER.aedat")
    return int(number)
