"""Recordings as NumPy archives (`.npz`): the arrays t, x, y, p and size; what `eisnn events convert` writes."""

import io
import zipfile

import numpy as np

from eisnn.data.errors import DataError
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
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise file.error(f"it is damaged, or no archive of t, x, y, p and size ({error})", 0) from error
    arrays = {"t": t, "x": x, "y": y, "p": p}
    for name, array in arrays.items():
        if array.ndim != 1 or array.dtype.kind not in "iu" or len(array) != len(t) or (array < 0).any():
            raise file.error(
                f"its {name} is {array.dtype} {array.shape}, expected whole numbers >= 0, as many as of t", 0
            )
    if size.shape != (2,) or size.dtype.kind not in "iu" or (p > 1).any():
        raise file.error("its size is not height and width, or its p not 0 or 1", 0)
    return Decoded(t, x, y, p, "npz", lambda _: 0, (int(size[0]), int(size[1])))


def encode(events: Events) -> bytes:
    """The recording as a compressed archive."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, t=events.t, x=events.x, y=events.y, p=events.p, size=np.array(events.size))
    return buffer.getvalue()
