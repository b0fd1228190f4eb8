"""The one error users of `eisnn.data` see, and how failures of the file libraries become it."""

import gzip
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# What NumPy, Pillow, gzip, tarfile and zipfile raise on damaged or unreadable files (Pillow's are OSError, SyntaxError
# for PNG, ValueError; an encrypted zip is a RuntimeError).
DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    SyntaxError,
    RuntimeError,
    struct.error,
    zlib.error,
    tarfile.TarError,
    zipfile.BadZipFile,
)


class DataError(ValueError):
    """Data that cannot be used as given; the message says what was wrong, where, and what would be right."""


@contextmanager
def reading(source: Path | str) -> Iterator[None]:
    """Turns a failure to read `source` inside the `with` block into a `DataError` that names it."""
    try:
        yield
    except DataError:
        raise
    except PermissionError as error:
        raise DataError(f"{source} may not be read: {error.strerror or error}. Check its permissions.") from error
    except FileNotFoundError as error:
        raise DataError(f"{source} is missing: there is no such file") from error
    except IsADirectoryError as error:
        raise DataError(f"{source} is a folder, expected a file") from error
    except DAMAGE as error:
        raise DataError(
            f"{source} is truncated, damaged or of another format ({type(error).__name__}: {error}). "
            "Replace it with a complete copy."
        ) from error


def read_file(file: Path, limit: int, *, compressed: bool = False) -> bytes:
    """The content of `file`, decompressed by gzip if it is `compressed`.

    Raises:
        DataError: it cannot be read, or has more than `limit` bytes: a small file may grow without end.
    """
    with reading(file), (gzip.open if compressed else open)(file, "rb") as opened:
        content = opened.read(limit + 1)  # beyond the end, where gzip's checksum is
    if len(content) > limit:
        raise DataError(f"{file} has more than {limit:,} bytes, which is too much for what it should be")
    return content
