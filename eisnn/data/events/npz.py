"""Recordings as NumPy archives (`.npz`): the arrays t, x, y, p and size; what `eisnn events convert` writes."""

import io
import zipfile

import numpy as np
from numpy.typing import NDArray

from eisnn.data.errors import DAMAGE, DataError
from eisnn.data.memory import fits

from .recording import Decoded, Events, File

MAGIC = b"PK\x03\x04"


def decode(file: File) -> Decoded:
    content = io.BytesIO(file.data.tobytes())
    try:
        with zipfile.ZipFile(content) as archive:
            grown = sum(member.file_size for member in archive.infolist())
        if not fits(grown):
            raise file.error(f"it grows to {grown:,} bytes, more than there is room for", 0)
        with np.load(content, allow_pickle=False) as stored:
            t, x, y, p, size = (stored[name] for name in ("t", "x", "y", "p", "size"))
    except DataError:
        raise
    except (KeyError, *DAMAGE) as error:
        raise file.error(f"it is damaged, or no archive of t, x, y, p and size ({error})", 0) from error
    require_columns(file, t=t, x=x, y=y, p=p)
    if size.shape != (2,) or size.dtype.kind not in "iu":
        raise file.error("its size is not height and width", 0)
    return Decoded(t, x, y, p, "npz", lambda _: 0, (int(size[0]), int(size[1])))


def require_columns(file: File, **columns: NDArray) -> None:
    """Raises DataError unless t, x, y and p are as many whole numbers >= 0, and p 0 or 1."""
    count = columns["t"].size
    for name, column in columns.items():
        if column.shape != (count,) or column.dtype.kind not in "iu" or (column < 0).any():
            raise file.error(
                f"its {name} is {column.dtype} {column.shape}, expected whole numbers >= 0, as many as of t", 0
            )
    if (columns["p"] > 1).any():
        raise file.error("its p is not 0 or 1 everywhere", 0)


def encode(events: Events) -> bytes:
    """The recording as a compressed archive."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, t=events.t, x=events.x, y=events.y, p=events.p, size=np.array(events.size))
    return buffer.getvalue()
