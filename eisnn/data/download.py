"""Fetching official files whole or not at all."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import DataError
from .progress import byte_bar


@dataclass(frozen=True)
class Remote:
    """One file: where it is, what it is called here, and the MD5 sum that its publisher or many users report."""

    url: str
    name: str
    md5: str


def download(remotes: Sequence[Remote], folder: Path) -> None:
    """Fetches files into `folder`.

    A file is written under a temporary name and moved to its own only when its checksum is right, so a failure
    leaves neither a part of a file nor harms one that was there.

    Raises:
        DataError: a file cannot be fetched, or is not what it should be.
    """
    import pooch

    for remote in remotes:
        with byte_bar(remote.name) as progress:
            downloader = pooch.HTTPDownloader(progressbar=_Bar(progress), chunk_size=1 << 16)
            try:
                pooch.retrieve(remote.url, f"md5:{remote.md5}", remote.name, folder, downloader=downloader)
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
