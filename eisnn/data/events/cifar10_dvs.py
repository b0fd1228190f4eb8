"""CIFAR10-DVS (Li et al. 2017): 1,000 recordings of each of CIFAR-10's classes, filmed from a screen by a DVS128.

Official files: ten archives `CLASS.zip`, or the folders they extract to, with `cifar10_CLASS_NUMBER.aedat` (AEDAT 2.0).
There is no official split; see `is_test`. The camera lay on its side: with x and y exchanged pictures are upright, as
in SpikingJelly (x = 127 - the y of the address, y = 127 - its x; polarity 1 where the address has 0).
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eisnn.data.errors import DataError

from .layout import Layout, RawFile, Trial, in_archive, in_folder

SIZE = (128, 128)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
EACH, HELD_BACK = 1000, 100  # recordings of a class, and those of them that are for evaluation
SPLIT = Path(__file__).with_name("cifar10_dvs_split.txt")
EXPECTED = "the folder of the ten archives airplane.zip ... truck.zip, or of what they extract to"


def locate(path: Path) -> Layout | None:
    """The data set in the folder `path`, or None if it is not there.

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
