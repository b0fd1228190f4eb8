"""Converted recordings on disk: packed events of a whole data set in one mapped file, beside a log that is its index.

`events.bin` holds 32 bits an event (see `packing`). `recordings.jsonl` has a first line about the data set, a line for
each raw file, written when its events are, and a last line that says the conversion is complete; each begins with its
own CRC-32. A conversion that was killed goes on after the last line whose events are there.
"""

import json
import logging
import os
import zlib
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eisnn.data.errors import DataError
from eisnn.data.memory import fits
from eisnn.data.progress import byte_bar

from .layout import Layout, RawFile
from .packing import Packed, Packing

try:
    import fcntl
except ImportError:  # not on Windows: there, two processes that convert the same data are not noticed
    fcntl = None  # type: ignore[assignment]

VERSION = 2  # raise it when events are packed or cut differently
EVENTS, LOG = "events.bin", "recordings.jsonl"
AHEAD = 4  # raw files for each thread that may be converted but not yet written
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Store:
    """A converted data set of N recordings; label k means `classes[k]`.

    Attributes:
        folder: where it lies.
        packing: of the events.
        classes: names.
        names: of the recordings, N of them.
        labels: int64 [N].
        offsets: int64 [N + 1]; recording k has the events from `offsets[k]` to `offsets[k + 1]`.
        gaps: int64 [G, 2], index of an event of the whole store and microseconds, see `Packed`; in order.
        starts: int64 [N], time of each first event, microseconds.
        raw_bytes: size of the raw files.
        repairs: what was mended in the raw files, and how often.
        checksums: uint32 [N], CRC-32 of each recording's packed events.
    """

    folder: Path
    packing: Packing
    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: NDArray[np.int64]
    offsets: NDArray[np.int64]
    gaps: NDArray[np.int64]
    starts: NDArray[np.int64]
    raw_bytes: int
    repairs: dict[str, int]
    checksums: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def events(self) -> NDArray[np.uint32]:
        """uint32, all events, mapped from the file."""
        return np.memmap(self.folder / EVENTS, "<u4", "r")

    @property
    def nbytes(self) -> int:
        """Size on disk."""
        return sum((self.folder / name).stat().st_size for name in (EVENTS, LOG))

    def packed(self, k: int) -> Packed:
        """Recording k."""
        begin, end = self.offsets[k], self.offsets[k + 1]
        low, high = np.searchsorted(self.gaps[:, 0], (begin, end))
        return Packed(self.events[begin:end], self.gaps[low:high] - (begin, 0), int(self.starts[k]))


def open_store(layout: Layout, folder: Path, *, rebuild: bool = False) -> Store:
    """The recordings of `layout` as converted in `folder`; converts those that are not there yet, or with `rebuild`
    all.

    Raises:
        DataError: a raw file is damaged, or the folder cannot be written.
    """
    header = {
        "version": VERSION,
        "fingerprint": layout.fingerprint(),
        "size": list(layout.size),
        "classes": list(layout.classes),
    }
    try:
        with _alone(folder):
            lines = [] if rebuild else _whole_lines(folder, header)
            if not _complete(lines):
                _convert(layout, folder, header, lines)
                lines = _whole_lines(folder, header)
            return _store(folder, lines)
    except OSError as error:
        raise DataError(
            f"{folder} cannot hold the converted recordings: {error.strerror or error}. The environment variable "
            "EISNN_DATA names another folder."
        ) from error


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Other processes that want the same data wait until this one is done."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a") as file:
        if fcntl is not None:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _complete(lines: list[dict[str, Any]]) -> bool:
    return bool(lines) and "raw_bytes" in lines[-1]


def _whole_lines(folder: Path, header: dict[str, Any]) -> list[dict[str, Any]]:
    """The lines of the log, as far as their events are on the disk and right; none if they are of other data."""
    lines: list[dict[str, Any]] = []
    if not (folder / LOG).exists() or not (folder / EVENTS).exists():
        return lines
    room = (folder / EVENTS).stat().st_size // 4
    events = np.memmap(folder / EVENTS, "<u4", "r", shape=(room,)) if room and fits(4 * room) else None
    begin = 0
    for line in (folder / LOG).read_bytes().splitlines(keepends=True):
        entry = _entry(line)
        if entry is None or (not lines and entry != header):
            break
        end = _checked(events, begin, entry.get("recordings", ()))
        if end is None or end > room:
            _logger.warning("%s is damaged from byte %d on and is converted anew", folder / EVENTS, 4 * begin)
            break
        lines.append(entry)
        begin = end
    return lines


def _line(entry: dict[str, Any]) -> str:
    said = json.dumps(entry)
    return f"[{zlib.crc32(said.encode())}, {said}]\n"


def _entry(line: bytes) -> dict[str, Any] | None:
    """What a line of the log says; None if it is cut off or damaged."""
    try:
        _, entry = json.loads(line)
        return entry if _line(entry).encode() == line else None
    except (ValueError, TypeError):
        return None


def _checked(events: NDArray[np.uint32] | None, begin: int, recordings: Iterable[dict[str, Any]]) -> int | None:
    """The end of the recordings that begin at event `begin`, or None if their events are not what was written."""
    for recording in recordings:
        end = begin + recording["events"]
        if events is not None and zlib.crc32(events[begin:end].data) != recording["crc"]:
            return None
        begin = end
    return begin


def _convert(layout: Layout, folder: Path, header: dict[str, Any], lines: list[dict[str, Any]]) -> None:
    """Converts the raw files that `lines` lack, in threads, and writes them in order."""
    kept = "".join(map(_line, lines or [header]))
    done = max(len(lines) - 1, 0)
    written = sum(recording["events"] for line in lines[1:] for recording in line["recordings"])
    if not lines:
        (folder / EVENTS).unlink(missing_ok=True)  # another process may have mapped the file of older data
    (folder / EVENTS).touch()
    os.truncate(folder / EVENTS, 4 * written)
    (folder / LOG).write_text(kept)
    sizes = [file.nbytes for file in layout.files]
    with (
        open(folder / EVENTS, "ab") as events,
        open(folder / LOG, "a") as log,
        byte_bar(f"Converting {layout.root.name}") as bar,
    ):
        bar.update(bar.task_ids[0], total=sum(sizes), completed=sum(sizes[:done]))
        for size, (entry, packed) in zip(sizes[done:], _packed(layout, layout.files[done:]), strict=True):
            for recording in packed:
                events.write(recording.events.astype("<u4", copy=False).data)
            events.flush()
            log.write(_line(entry))
            log.flush()
            bar.advance(bar.task_ids[0], size)
        os.fsync(events.fileno())
        log.write(_line({"raw_bytes": sum(sizes)}))
        log.flush()
        os.fsync(log.fileno())


def _packed(layout: Layout, files: Iterable[RawFile]) -> Iterator[tuple[dict[str, Any], list[Packed]]]:
    """Line of the log and events of each file, in order; as many are read ahead as there are threads for it."""
    workers = os.cpu_count() or 1
    remaining = iter(files)
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[Future] = deque(pool.submit(_pack, layout, f) for f in islice(remaining, AHEAD * workers))
        try:
            while ahead:
                yield ahead.popleft().result()
                ahead.extend(pool.submit(_pack, layout, file) for file in islice(remaining, 1))
        finally:
            for future in ahead:
                future.cancel()


def _pack(layout: Layout, file: RawFile) -> tuple[dict[str, Any], list[Packed]]:
    packing = Packing(layout.size)
    lines, packed = [], []
    repairs = {}  # by what they are of: recordings cut from one raw file share them
    for name, label, events in layout.recordings(file):
        if not len(events):
            raise DataError(f"{file.label}: the recording {name} has no events")
        one = packing.pack(events)
        packed.append(one)
        repairs[id(events.repairs)] = events.repairs
        about = {"name": name, "label": label, "events": len(events), "start": one.start, "gaps": one.gaps.tolist()}
        lines.append(about | {"crc": zlib.crc32(one.events.data)})
    total: Counter[str] = Counter()
    for each in repairs.values():
        total.update(each)
    return {"file": file.name, "recordings": lines, "repairs": total}, packed


def _store(folder: Path, lines: list[dict[str, Any]]) -> Store:
    header, files, last = lines[0], lines[1:-1], lines[-1]
    recordings = [recording for line in files for recording in line["recordings"]]
    offsets = np.cumsum([0, *(recording["events"] for recording in recordings)])
    gaps = [
        (begin + at, more) for begin, r in zip(offsets.tolist(), recordings, strict=False) for at, more in r["gaps"]
    ]
    repairs: Counter[str] = Counter()
    for line in files:
        repairs.update(line["repairs"])
    return Store(
        folder,
        Packing(tuple(header["size"])),
        tuple(header["classes"]),
        tuple(recording["name"] for recording in recordings),
        np.array([recording["label"] for recording in recordings], np.int64),
        offsets.astype(np.int64),
        np.array(gaps, np.int64).reshape(-1, 2),
        np.array([recording["start"] for recording in recordings], np.int64),
        last["raw_bytes"],
        dict(repairs),
        np.array([recording["crc"] for recording in recordings], np.uint32),
    )
