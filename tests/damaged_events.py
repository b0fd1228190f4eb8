"""Damages recordings, tables and stores of events and counts what their readers make of them; see `damage`.

    python tests/damaged_events.py --count 60

Formats of fixed structure are written by `event_files` and compared with the slow readers of `event_loops`, which say
what a damaged file holds, if anything: `right`, the events that the slow reader finds; `refused`, as it does;
`unknown`, refused by a format without a header, which is told by its first records; and, a fault, `wrong`. Others are
compared with the undamaged file.
"""

import argparse
import os
import shutil
import tempfile
import unittest.mock
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import damage
import numpy as np
from damage import Kind, outcomes
from event_files import FORMATS, Format, random_events, table, write_dvs_gesture, write_nmnist
from event_loops import Damaged
from event_samples import SAMPLES
from mutants import mutations

from eisnn.data import DataError, load
from eisnn.data.events import read, write
from eisnn.data.events.recordings import Recordings

FAULTS = (*damage.FAULTS, "wrong")


def read_like_the_slow_reader(format: Format, folder: Path, count: int, seed: int = 0) -> Counter[str]:
    """What became of `count` damaged copies of a file of the format; its header stays whole."""
    file, found = folder / "recording", Counter()
    whole = format.header + format.body(np.random.default_rng(seed))
    for what, content in mutations(whole, seed, count, start=len(format.header)):
        file.write_bytes(content)
        try:
            expected = format.expected(content[len(format.header) :])
        except Damaged:
            expected = None
        try:
            outcome = "right" if table(read(file)) == expected else "wrong"
        except DataError as error:
            unknown = not format.header and "no known format" in str(error)
            outcome = "unnamed" if str(file) not in str(error) else "unknown" if unknown else "refused"
            outcome = "wrong" if outcome == "refused" and expected is not None else outcome
        except Exception as error:
            print(f"{format.name}, {what}: {type(error).__name__}: {error}")
            outcome = "crash"
        found[outcome] += 1
    return found


@contextmanager
def event_kinds(root: Path) -> Iterator[list[Kind]]:
    """Recordings of other programs, data sets, and the store of one, in `root`."""
    with unittest.mock.patch.dict(os.environ, {"EISNN_DATA": str(root / "home")}):
        yield list(_event_kinds(root))


def _event_kinds(root: Path) -> Iterator[Kind]:
    if SAMPLES.exists():
        with zipfile.ZipFile(SAMPLES) as archive:
            for name in ("tonic_sample.aedat4", "tonic_sample_stmnist.mat", "tonic_sample_ncars.dat"):
                yield _recording(Path(archive.extract(name, root)))
    write(random_events(np.random.default_rng(0), 400, (34, 34)), root / "recording.npz")
    yield _recording(root / "recording.npz")
    folders = write_nmnist(root / "nmnist")
    yield Kind("N-MNIST, .bin", folders / "Train/3/00003.bin", _loaded("nmnist", folders), digest=False)
    archives = root / "archives"
    for split in ("Train", "Test"):
        shutil.make_archive(str(archives / split), "zip", folders, split)
    yield Kind("N-MNIST, .zip", archives / "Train.zip", _loaded("nmnist", archives), digest=True)
    file = root / "subset.npz"
    parts = {split: random_events(np.random.default_rng(0), 60, (34, 34)) for split in ("train", "test")}
    arrays = {f"{split}_{name}": getattr(part, name) for split, part in parts.items() for name in "txyp"}
    np.savez_compressed(
        file, **arrays, **{f"{split}_offsets": [0, 25, 60] for split in parts}, train_label=[0, 1], test_label=[1, 7]
    )
    yield Kind("N-MNIST, .npz", file, _loaded("nmnist", file), digest=True)
    trials = [(label, 5_000_000 + 10_000 * label, 5_009_000 + 10_000 * label) for label in range(1, 12)]
    gesture = write_dvs_gesture(root / "gesture", {"train": ["user01_led"], "test": ["user24_lab"]}, trials)
    for name in ("user01_led.aedat", "user01_led_labels.csv", "trials_to_train.txt"):
        yield Kind(f"DVS Gesture, {name}", gesture / name, _loaded("dvs-gesture", gesture), digest=False)
    kept = _loaded("nmnist", shutil.copytree(folders, root / "kept"), cache=True)
    kept()
    for file in sorted(root.glob("home/cache/nmnist-*/[!.]*")):
        yield Kind(f"store, {file.name}", file, kept, digest=True)


def _recording(file: Path) -> Kind:
    return Kind(file.name, file, lambda: table(read(file)), digest=False)


def _loaded(name: str, path: Path, cache: bool = False) -> Callable[[], Any]:
    """Reads a data set; what is compared are its recordings and labels."""

    def split(recordings: Any) -> list[Any]:
        assert isinstance(recordings, Recordings)
        return [(table(recordings.recording(k)), int(recordings.labels[k])) for k in range(len(recordings))]

    def content() -> Any:
        dataset = load(name, path, cache=cache, time_steps=2)
        return dataset.classes, split(dataset.train), split(dataset.test)

    return content


def counted(count: int, seed: int = 0) -> dict[str, Counter[str]]:
    """Outcomes of `count` damaged copies of every kind of file."""
    with tempfile.TemporaryDirectory() as root, event_kinds(Path(root)) as kinds:
        formats = {name: read_like_the_slow_reader(one, Path(root), count, seed) for name, one in FORMATS.items()}
        return formats | outcomes(kinds, count, seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=60, help="damaged copies of each kind of file")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rows = counted(arguments.count, arguments.seed)
    total = sum(rows.values(), Counter())
    for name, counts in [*rows.items(), (f"{total.total():,} in all", total)]:
        print(f"{name:36}", ", ".join(f"{number} {outcome}" for outcome, number in sorted(counts.items())))
    faults = sum(total[fault] for fault in FAULTS)
    raise SystemExit(f"{faults} faults" if faults else 0)


if __name__ == "__main__":
    main()
