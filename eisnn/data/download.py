"""The official files on the network, and fetching them whole or not at all."""

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


_KRIZ = "https://www.cs.toronto.edu/~kriz"
_FASHION = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion"

REMOTES: dict[str, tuple[Remote, ...]] = {
    "cifar10": (
        Remote(f"{_KRIZ}/cifar-10-binary.tar.gz", "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"),
    ),
    "cifar100": (
        Remote(f"{_KRIZ}/cifar-100-binary.tar.gz", "cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8"),
    ),
    "tiny-imagenet": (
        Remote(
            "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
            "tiny-imagenet-200.zip",
            "90528d7ca1a48142e341f4ef8d21d0de",
        ),
    ),
    "fashion-mnist": tuple(
        Remote(f"{_FASHION}/{name}", name, md5)
        for name, md5 in (
            ("train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
            ("train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"),
            ("t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"),
            ("t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"),
        )
    ),
}


def download(name: str, folder: Path) -> None:
    """Fetches the files of data set `name` into `folder`.

    A file is written under a temporary name and moved to its own only when its checksum is right, so a failure
    leaves neither a part of a file nor harms one that was there.

    Raises:
        DataError: a file cannot be fetched, or is not what it should be.
    """
    import pooch

    for remote in REMOTES[name]:
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
