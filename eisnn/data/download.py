"""Fetching official files whole or not at all."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from .errors import DataError
from .progress import byte_bar


@dataclass(frozen=True)
class Remote:
    """One file: where it is, what it is called here, and the MD5 sum that its publisher or many users report."""

    url: str
    name: str
    md5: str


def download(remotes: Sequence[Remote], folder: Path) -> None:
    """Fetches files into `folder`, those that are not there yet; other processes that want the same wait.

    A file is written into a folder of its own and moved to its place only when its checksum is right, so a failure
    leaves neither a part of a file nor harms one that was there.

    Raises:
        DataError: a file cannot be fetched, or is not what it should be.
    """
    import pooch

    for remote in remotes:
        file, part = folder / remote.name, folder / ".part"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".lock"), byte_bar(remote.name) as progress:
                if file.is_file() and pooch.file_hash(file, "md5") == remote.md5:
                    continue
                downloader = pooch.HTTPDownloader(progressbar=_Bar(progress), chunk_size=1 << 16)
                try:
                    pooch.retrieve(remote.url, f"md5:{remote.md5}", remote.name, part, downloader=downloader)
                    os.replace(part / remote.name, file)
                finally:
                    shutil.rmtree(part, ignore_errors=True)  # also what a process left that was killed
        except (OSError, ValueError) as error:  # requests' errors are OSError, a wrong checksum is ValueError
            raise DataError(
                f"{remote.url} could not be downloaded to {folder}: {error}. "
                "Try again later, or fetch it by other means and give its path."
            ) from error


class _Bar:
    """The progress bar of `byte_bar` in the shape that pooch asks for."""

    def __init__(self, progress: Any) -> None:
        self._progress = progress

    @property
    def total(self) -> float | None:
        return self._progress.tasks[0].total

    @total.setter
    def total(self, total: int) -> None:
        self._progress.update(self._progress.tasks[0].id, total=total)

    def update(self, count: int) -> None:
        self._progress.advance(self._progress.tasks[0].id, count)

    def reset(self) -> None:
        self._progress.update(self._progress.tasks[0].id, completed=0)

    def close(self) -> None:
        pass
