"""Downloads arrive whole and right, or not at all."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from data_files import same, serve, tar_folder, write_cifar, write_fashion

from eisnn.data import DataError, Images, Remote, catalog, load
from eisnn.data.download import _Bar, download
from eisnn.data.images import cifar, fashion_mnist
from eisnn.data.progress import byte_bar

NAME = "cifar-10-binary.tar.gz"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EISNN_DATA", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "home"


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Images]:
    """A CIFAR-10 archive in the folder to be served, and its training images."""
    ten = cifar.CIFAR10
    monkeypatch.setattr(cifar, "CIFAR10", replace(ten, train=dict.fromkeys(ten.train, 20), test={"test_batch.bin": 30}))
    train, _ = write_cifar(tmp_path / ten.folder, cifar.CIFAR10)
    (tmp_path / "web").mkdir()
    return tar_folder(tmp_path / ten.folder, tmp_path / "web" / NAME), train


def remotes(address: str, folder: Path) -> tuple[Remote, ...]:
    """The files in `folder`, from `address`."""
    return tuple(
        Remote(f"{address}/{file.name}", file.name, hashlib.md5(file.read_bytes()).hexdigest())
        for file in sorted(folder.iterdir())
    )


@pytest.fixture
def point_to(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, Path], None]:
    def point(name: str, address: str, folder: Path) -> None:
        """Lets the data set come from `address`, with the checksums of the files in `folder`."""
        entry = replace(catalog.entries()[name], remotes=remotes(address, folder), places=())
        monkeypatch.setitem(catalog.ENTRIES, name, entry)

    return point


def leftovers(home: Path) -> list[str]:
    return [file.name for file in home.rglob("*") if file.is_file() and file.name != ".lock"]


def test_download_then_read_then_no_more_network(home: Path, served, point_to) -> None:
    archive, train = served
    with serve(archive.parent) as address:
        point_to("cifar10", address, archive.parent)
        assert same(load("cifar10", download=True, cache=False).train, train)
    assert leftovers(home) == [NAME]
    # The server is gone: what is there is used, asked to download or not.
    assert same(load("cifar10", download=True, cache=False).train, train)
    assert same(load("cifar10", cache=False).train, train)


def test_fashion_mnist_fetches_four_files(home: Path, point_to, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(fashion_mnist, "COUNTS", {"train": 30, "t10k": 20})
    train, _ = write_fashion(tmp_path / "web", fashion_mnist.COUNTS)
    with serve(tmp_path / "web") as address:
        point_to("fashion-mnist", address, tmp_path / "web")
        assert same(load("fashion-mnist", download=True, cache=False).train, train)
    assert len(leftovers(home)) == 4


@pytest.mark.parametrize("failure", ["rubbish", "short", "404", "no server"])
def test_failed_download_says_so_and_leaves_nothing(failure: str, home: Path, served, point_to) -> None:
    archive, _ = served
    with serve(archive.parent, promise_more=failure == "short") as address:
        point_to("cifar10", "http://127.0.0.1:9" if failure == "no server" else address, archive.parent)
        if failure == "rubbish":
            archive.write_bytes(b"<html>moved</html>")
        if failure == "404":
            archive.unlink()
        with pytest.raises(DataError, match=rf"{NAME} could not be downloaded to .*cifar10: .*give its path"):
            load("cifar10", download=True)
    assert leftovers(home) == []


def test_what_a_killed_download_has_begun_is_removed(home: Path, served, point_to) -> None:
    archive, _ = served
    (home / "cifar10" / ".part").mkdir(parents=True)
    (home / "cifar10" / ".part" / "tmp123").write_bytes(archive.read_bytes()[:1000])
    with serve(archive.parent) as address:
        point_to("cifar10", address, archive.parent)
        load("cifar10", download=True, cache=False)
    assert leftovers(home) == [NAME]
    assert not (home / "cifar10" / ".part").exists()


def test_processes_that_start_together_fetch_once(home: Path, served) -> None:
    archive, _ = served
    asked: list[str] = []
    with serve(archive.parent, asked=asked) as address, ThreadPoolExecutor(3) as pool:
        wanted = remotes(address, archive.parent)
        list(pool.map(lambda _: download(wanted, home), range(3)))
    assert asked == [f"/{NAME}"]
    assert leftovers(home) == [NAME]


def test_good_copy_survives_a_server_of_rubbish(home: Path, served, point_to) -> None:
    archive, _ = served
    good = archive.read_bytes()
    with serve(archive.parent) as address:
        wanted = remotes(address, archive.parent)
        download(wanted, home)
        archive.write_bytes(b"rubbish")
        download(wanted, home)
        assert (home / NAME).read_bytes() == good
        # Even one that is not what is wanted any more stays until the right one is there.
        (home / NAME).write_bytes(b"an older version")
        with pytest.raises(DataError):
            download(wanted, home)
        assert (home / NAME).read_bytes() == b"an older version"
        archive.write_bytes(good)
        download(wanted, home)
        assert (home / NAME).read_bytes() == good
    assert leftovers(home) == [NAME]


def test_unwritable_data_folder_is_an_error(home: Path, served, point_to) -> None:
    archive, _ = served
    home.write_text("a file where the data folder should be")
    with serve(archive.parent) as address:
        point_to("cifar10", address, archive.parent)
        with pytest.raises(DataError, match="could not be downloaded"):
            load("cifar10", download=True)


def test_the_progress_bar_counts_bytes() -> None:
    with byte_bar("archive") as progress:
        bar = _Bar(progress)
        bar.total = 100
        bar.update(30)
        bar.update(12)
        assert (bar.total, progress.tasks[0].total, progress.tasks[0].completed) == (100, 100, 42)
        bar.reset()
        assert progress.tasks[0].completed == 0
        bar.close()


def test_every_remote_is_complete() -> None:
    for name, entry in catalog.entries().items():
        for remote in entry.remotes:
            assert remote.url.startswith(("https://", "http://cs231n.stanford.edu/")), name
            assert len(bytes.fromhex(remote.md5)) == 16
