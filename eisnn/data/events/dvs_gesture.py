"""DVS128 Gesture (Amir et al. 2017): 29 people make eleven gestures before a DVS128, in 122 recordings.

Official files: what `DvsGesture.tar.gz` extracts to: recordings `userNN_LIGHT.aedat` (AEDAT 3.1), a table of the trials
in each, `userNN_LIGHT_labels.csv` (class from 1 on, first and last time in us), and the lists `trials_to_train.txt` and
`trials_to_test.txt`. They give 1,176 and 288 trials.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from eisnn.data.catalog import register
from eisnn.data.errors import DataError, reading
from eisnn.data.source import Source

from .frames import Bins, Scaling
from .layout import Layout, RawFile, Trial
from .recordings import source

SIZE = (128, 128)
CLASSES = (
    "hand_clapping", "right_hand_wave", "left_hand_wave", "right_arm_clockwise", "right_arm_counter_clockwise",
    "left_arm_clockwise", "left_arm_counter_clockwise", "arm_roll", "air_drums", "air_guitar", "other_gestures",
)  # fmt: skip
LISTS = {"train": "trials_to_train.txt", "test": "trials_to_test.txt"}
COLUMNS = ["class", "startTime_usec", "endTime_usec"]


@register(
    "dvs-gesture",
    "the folder DvsGesture that DvsGesture.tar.gz extracts to (by hand from https://research.ibm.com/dvsgesture; it "
    "holds trials_to_train.txt)",
)
def locate(
    path: Path, time_steps: int | None = None, bins: Bins = "count", scaling: Scaling = "average"
) -> Source | None:
    """DVS128 Gesture in the folder `path` or in `path/DvsGesture`, or None if it is not there."""
    return source(find(path), time_steps, bins, scaling)


def find(path: Path) -> Layout | None:
    """Its raw files.

    Raises:
        DataError: a recording of the lists or its table is missing.
    """
    folder = next((f for f in (path, path / "DvsGesture") if (f / LISTS["train"]).is_file()), None)
    if folder is None:
        return None
    files: list[RawFile] = []
    for split, name in LISTS.items():
        with reading(folder / name):
            listed = list(filter(None, map(str.strip, (folder / name).read_text().splitlines())))
        if not listed:
            raise DataError(f"{folder / name} lists no recordings")
        for recording in listed:
            file = RawFile(f"{split}/{Path(recording).stem}", folder / recording)
            if missing := [path for path in (file.path, _table(file)) if not path.is_file()]:
                raise DataError(f"{missing[0]} is missing, though {name} lists {recording}")
            files.append(file)
    return Layout(folder, tuple(files), SIZE, CLASSES, _trials, tuple(map(_table, files)))


def _table(file: RawFile) -> Path:
    return file.path.with_name(f"{file.path.stem}_labels.csv")


def _trials(file: RawFile) -> Iterator[Trial]:
    """The trials that the table cuts from a recording: events from the first time on, before the last."""
    events, table = file.read(SIZE), _table(file)
    with reading(table):
        header, *rows = csv.reader(table.read_text().splitlines())
    if header != COLUMNS:
        raise DataError(f"{table} begins with {header}, expected the columns {COLUMNS}")
    for k, row in enumerate(rows):
        try:
            label, start, end = map(int, row)
        except ValueError as error:
            raise DataError(f"{table}, line {k + 2}: {row} is not a class and two times in us") from error
        if not (1 <= label <= len(CLASSES) and start < end):
            raise DataError(f"{table}, line {k + 2}: class {label} from {start} to {end} us, expected 1 to 11, forward")
        first, last = np.searchsorted(events.t, (start, end))
        if first == last:
            raise DataError(f"{table}, line {k + 2}: {file.path} has no events from {start} to {end} us")
        yield Trial(f"{file.name}/{k:02}", label - 1, events[first:last])
