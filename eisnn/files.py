"""Files that are there whole or not at all."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Names `path` where the disk is full or fails."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{path} could not be written: {error.strerror or error}") from error


def require_writable(path: Path) -> None:
    """To be called before work whose result is to be written to `path`; makes its folder.

    Raises: OSError naming `path` if that is a folder, or nothing can be written where it lies.
    """
    with writing(path):
        if path.parent.is_file():
            raise NotADirectoryError(errno.ENOTDIR, f"{path.parent} is a file; name a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder; name a file")
        with tempfile.TemporaryFile(dir=path.parent):
            pass


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to a temporary file beside `path`, flush it to the disk, and rename it into place.

    Raises: OSError naming `path`, which is then as it was before.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with writing(path):
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
