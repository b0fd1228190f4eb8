"""Conversion: once, exact, in order, continued after a kill, and done anew where the data or the store have changed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from eisnn.data import DataError
from eisnn.data.events import Events, store, write
from eisnn.data.events.layout import Layout, RawFile, Trial
from eisnn.data.events.store import open_store

SIZE, FILES = (34, 34), 12


def recording(seed: int, n: int = 400) -> Events:
    rng = np.random.default_rng(seed)
    pauses = rng.integers(0, 90, n)
    pauses[n // 2] = 3_000_000  # longer than the bits can say
    columns = (rng.integers(0, high, n).astype(kind) for high, kind in ((34, "u2"), (34, "u2"), (2, "u1")))
    return Events(np.cumsum(pauses), *columns, SIZE)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Twelve files, each cut into two recordings."""
    files = []
    for k in range(FILES):
        path = tmp_path / "raw" / f"{k:02}.bin"
        write(recording(k), path)
        files.append(RawFile(f"train/{k:02}", path))
    return Layout(tmp_path / "raw", tuple(files), SIZE, ("even", "odd"), halves)


def halves(file: RawFile) -> Iterator[Trial]:
    events, k = file.read(SIZE), int(file.path.stem)
    yield Trial(f"{file.name}/a", k % 2, events[:150])
    yield Trial(f"{file.name}/b", k % 2, events[150:])


def require_whole(opened: store.Store) -> None:
    assert len(opened) == 2 * FILES
    assert opened.classes == ("even", "odd")
    assert opened.names[:3] == ("train/00/a", "train/00/b", "train/01/a")
    assert opened.labels.tolist() == [k // 2 % 2 for k in range(2 * FILES)]
    for k in range(2 * FILES):
        expected = recording(k // 2)[slice(150) if k % 2 == 0 else slice(150, None)]
        again = opened.packing.unpack(opened.packed(k))
        for field in ("t", "x", "y", "p"):
            np.testing.assert_array_equal(getattr(again, field), getattr(expected, field))


def test_conversion_is_exact_and_happens_once(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_store(layout, tmp_path / "store")
    require_whole(first)
    assert first.raw_bytes == FILES * 400 * 5
    assert first.nbytes < 1.3 * FILES * 400 * 4 + 100 * 2 * FILES
    monkeypatch.setattr(store, "_convert", None)
    require_whole(open_store(layout, tmp_path / "store"))


def count_files(layout: Layout) -> tuple[Layout, list[str]]:
    read: list[str] = []

    def counted(file: RawFile) -> Iterator[Trial]:
        read.append(file.name)
        yield from halves(file)

    return Layout(layout.root, layout.files, layout.size, layout.classes, counted), read


@pytest.mark.parametrize("lines", [0, 1, 2, 7, FILES, FILES + 1])
@pytest.mark.parametrize("tail", [b"", b'{"file": "half a li'])
def test_a_conversion_goes_on_after_its_last_whole_line(
    layout: Layout, tmp_path: Path, lines: int, tail: bytes
) -> None:
    """The log cut after every kind of line; events that no line tells of are dropped."""
    folder = tmp_path / "store"
    open_store(layout, folder)
    log = folder / "recordings.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:lines]) + tail)
    again, read = count_files(layout)
    require_whole(open_store(again, folder))
    assert read == [file.name for file in layout.files[max(lines - 1, 0) :]]


def test_lost_events_are_converted_again(layout: Layout, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    open_store(layout, folder)
    os.truncate(folder / "events.bin", 4 * 400 * 3 + 10)
    again, read = count_files(layout)
    require_whole(open_store(again, folder))
    assert len(read) == FILES - 3


def test_a_flipped_bit_is_noticed(layout: Layout, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "store"
    open_store(layout, folder)
    content = bytearray((folder / "events.bin").read_bytes())
    content[4 * 400 * 5 + 1] ^= 4
    (folder / "events.bin").write_bytes(content)
    again, read = count_files(layout)
    require_whole(open_store(again, folder))
    assert len(read) == FILES - 5
    assert "events.bin is damaged from byte 8000 on" in caplog.text


def test_another_label_in_the_log_is_noticed(layout: Layout, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    open_store(layout, folder)
    log = folder / "recordings.jsonl"
    assert log.read_bytes().count(b'"label": 1') == FILES
    log.write_bytes(log.read_bytes().replace(b'"label": 1', b'"label": 0'))
    again, read = count_files(layout)
    require_whole(open_store(again, folder))
    assert len(read) == FILES - 1  # the first has the label 0


def test_other_data_are_converted_anew(layout: Layout, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    before = open_store(layout, folder)
    mapped = before.events[:10].copy()
    os.utime(layout.files[3].path, ns=(0, 0))
    again, read = count_files(layout)
    require_whole(open_store(again, folder))
    assert len(read) == FILES
    np.testing.assert_array_equal(before.events[:10], mapped)  # who has mapped the old file keeps it


def test_what_cannot_be_converted_is_named(layout: Layout, tmp_path: Path) -> None:
    layout.files[5].path.write_bytes(layout.files[5].path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"05\.bin: it ends inside a record"):
        open_store(layout, tmp_path / "store")
    write(recording(5), layout.files[5].path)
    os.utime(layout.files[5].path, ns=(0, 0))
    require_whole(open_store(layout, tmp_path / "store"))


def test_a_folder_that_cannot_be_written(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(DataError, match="EISNN_DATA names another folder"):
        open_store(layout, tmp_path / "store")


KILLED = """
import sys, time
from pathlib import Path
import test_store
from eisnn.data.events.layout import Layout, RawFile
from eisnn.data.events.store import open_store

def slowly(file):
    time.sleep(0.02)
    return test_store.halves(file)

root = Path(sys.argv[1])
files = tuple(RawFile(f"train/{k:02}", root / "raw" / f"{k:02}.bin") for k in range(test_store.FILES))
open_store(Layout(root / "raw", files, test_store.SIZE, ("even", "odd"), slowly), root / "store")
"""


def test_a_killed_conversion_is_resumed(layout: Layout, tmp_path: Path) -> None:
    """SIGKILL in the middle, as soon as some of the recordings are written."""
    log = tmp_path / "store/recordings.jsonl"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], env=environment)
    while not log.exists() or log.read_bytes().count(b"\n") < 4:
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    written = log.read_bytes().count(b"\n") - 1
    assert written < FILES
    again, read = count_files(layout)
    require_whole(open_store(again, tmp_path / "store"))
    assert len(read) == FILES - written
