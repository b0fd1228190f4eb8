"""Reading a recording in any format, recognised from its content, and writing one."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eisnn.data.errors import DataError, reading
from eisnn.files import require_writable, write_atomically

from . import aedat2, aedat3, aedat4, event_stream, five_bytes, npz, prophesee, st_mnist
from .recording import Decoded, Events, File, finish

_READERS: dict[bytes, Callable[[File], Decoded]] = {
    aedat2.MAGIC: aedat2.decode,
    aedat3.MAGIC: aedat3.decode,
    aedat4.MAGIC: aedat4.decode,
    event_stream.MAGIC: event_stream.decode,
    st_mnist.MAGIC: st_mnist.decode,
    npz.MAGIC: npz.decode,
    b"% ": prophesee.decode,
}
_UNREAD = {b"#!AER-DAT": "AEDAT in a version that is not read", b"\x89HDF": "HDF5, which is not read"}
_WRITERS: dict[str, Callable[[Events], bytes]] = {
    ".aedat": aedat2.encode,
    ".bin": five_bytes.encode,
    ".dat": prophesee.encode_dat,
    ".npz": npz.encode,
}
EXPECTED = "AEDAT 2.0, 3.1 or 4, EVT 2.0 or 3.0, DAT, N-MNIST .bin, SLAYER .bs2, Event Stream .es, ST-MNIST .mat, .npz"


def read(path: str | Path, *, size: tuple[int, int] | None = None, repair: bool = False) -> Events:
    """Reads a recording of an event camera; the format is recognised from the content, whatever the name.

    x counts from the left, y from the top, p is 1 for ON. Times that have run over are continued, events that come a
    little late are sorted, and what is no valid polarity event is passed over: `Events.repairs` counts all of it.

    Args:
        path: the file.
        size: height and width of the sensor in pixels, for formats that do not say it (N-MNIST's is 34, 34). Without
            it the sensor is as large as the events need.
        repair: drop what is damaged (a truncated end, events off the sensor, impossible records) and count it in
            `Events.repairs`, rather than raise.

    Returns:
        The events, at least one.

    Raises:
        DataError: naming the file and the byte: truncated, damaged, without events, or of no known format. Or the size
            is not above 0.
        ImportError: AEDAT4 without the packages lz4 and zstandard, ST-MNIST without SciPy (extra `events`).
    """
    if size is not None and min(size) < 1:
        raise DataError(f"the sensor is said to have height and width {size}, expected numbers above 0")
    # Not by np.fromfile and pathlib: a data set may have 70,000 files of 20 kB, of which they take a third of the time.
    with reading(path), open(os.path.expanduser(path), "rb", buffering=0) as opened:
        data = np.frombuffer(opened.read(), np.uint8)
    return decode(path, data, size=size, repair=repair)


def decode(
    path: str | Path, data: NDArray[np.uint8], *, size: tuple[int, int] | None = None, repair: bool = False
) -> Events:
    """As `read`, of the bytes of a file that `path` names in messages."""
    file = File(path, data, repair)
    if not len(data):
        raise file.error("it is empty", 0)
    return finish(file, _reader(file)(file), size)


def _reader(file: File) -> Callable[[File], Decoded]:
    start = file.data[:32].tobytes()
    for magic, reader in _READERS.items():
        if start.startswith(magic):
            return reader
    for magic, what in _UNREAD.items():
        if start.startswith(magic):
            raise file.error(f"it is {what}; give {EXPECTED}", 0)
    if five_bytes.recognise(file.data):
        return five_bytes.decode
    raise file.error(f"no known format begins with {start[:12]!r}; give {EXPECTED}", 0)


def write(events: Events, path: str | Path) -> None:
    """Writes a recording, in the format of the name's end: .aedat (AEDAT 2.0, of a DVS128), .bin (N-MNIST), .dat, .npz.

    Raises:
        DataError: another ending, or a recording that the format cannot hold.
        OSError: the file cannot be written.
    """
    path = Path(path).expanduser()
    encode = _WRITERS.get(path.suffix.lower())
    if encode is None:
        raise DataError(f"{path}: no format is written to {path.suffix!r}; known are {', '.join(_WRITERS)}")
    try:
        content = encode(events)
    except ValueError as error:
        raise DataError(f"{path}: {error}; .npz holds any recording") from error
    require_writable(path)
    write_atomically(path, content)
