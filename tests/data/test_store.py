"""The decoded copy: used when good, rebuilt when not, never in the way."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from data_files import random_images, same, write_mosaics

from eisnn.data import DataError, Dataset, Source, load
from eisnn.data.images import mosaic
from eisnn.data.store import load_stored


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EISNN_DATA", str(tmp_path / "home"))
    write_mosaics(tmp_path / "source")
    return tmp_path / "source"


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Grows by one with each decoding from the source."""
    calls: list[Path] = []
    read = mosaic.read

    def counting(path: Path) -> Dataset:
        calls.append(path)
        return read(path)

    monkeypatch.setattr(mosaic, "read", counting)
    return calls


def copies(tmp_path: Path) -> list[Path]:
    """What is kept, apart from the locks."""
    return [file for file in (tmp_path / "home" / "cache").iterdir() if file.suffix != ".lock"]


def test_second_load_is_the_same_without_decoding(source: Path, decodings: list[Path], tmp_path: Path) -> None:
    first, second = load("cifar10", source), load("cifar10", source)
    assert len(decodings) == 1
    assert same(first.train, second.train)
    assert same(first.test, second.test)
    assert (first.name, first.classes) == (second.name, second.classes)
    (copy,) = copies(tmp_path)
    assert len(list(copy.iterdir())) == 5


def test_cache_false_neither_reads_nor_writes(source: Path, decodings: list[Path], tmp_path: Path) -> None:
    load("cifar10", source, cache=False)
    assert not (tmp_path / "home").exists()
    load("cifar10", source)
    load("cifar10", source, cache=False)
    assert len(decodings) == 3


def test_changed_source_is_decoded_again_and_replaces_the_old_copy(
    source: Path, decodings: list[Path], tmp_path: Path
) -> None:
    load("cifar10", source)
    pixels = write_mosaics(source, rows=3)
    assert torch.equal(load("cifar10", source).train.pixels, pixels["train"])
    os.utime(source / "train" / "cat.webp", (0, 0))
    load("cifar10", source)
    assert len(decodings) == 3
    assert len(copies(tmp_path)) == 1


def test_damaged_cache_is_rebuilt_with_a_warning(
    source: Path, decodings: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = load("cifar10", source)
    count = 1
    for name in ("train.pixels.npy", "train.labels.npy", "test.pixels.npy", "test.labels.npy", "meta.json"):
        (copy,) = copies(tmp_path)
        whole = (copy / name).read_bytes()
        flipped = bytearray(whole)
        flipped[-len(whole) // 3] ^= 1
        for broken in (b"", whole[: len(whole) // 2], whole[:-1], b"x" * 100, bytes(flipped), None):
            (copy / name).unlink()  # a new file, as who has mapped the old one keeps it
            if broken is not None:
                (copy / name).write_bytes(broken)
            caplog.clear()
            with caplog.at_level(logging.WARNING):
                again = load("cifar10", source)
            assert same(again.train, expected.train)
            assert again.classes == expected.classes
            assert f"{copy} cannot be used" in caplog.text
            count += 1
            assert len(decodings) == count, (name, broken)
    load("cifar10", source)
    assert len(decodings) == count  # the last one is good again


def test_unwritable_cache_is_gone_without(source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "home").write_text("a file where the data folder should be")
    with caplog.at_level(logging.WARNING):
        assert len(load("cifar10", source).train) == 40
    assert "cannot be written" in caplog.text


def test_damaged_source_leaves_no_cache(source: Path, tmp_path: Path) -> None:
    (source / "test" / "cat.webp").write_bytes(b"RIFF")
    with pytest.raises(DataError):
        load("cifar10", source)
    assert copies(tmp_path) == []


def test_odd_sizes_views_and_class_names_survive(tmp_path: Path) -> None:
    both = random_images(12, 2, (1, 5, 7))
    dataset = Dataset("x", ("Ånt, \n", '"b"'), both[:3], both[3:], {"size": 7})
    for _ in range(2):
        again = load_stored(tmp_path / "copy", Source(tmp_path, (), lambda: dataset), rebuild=False)
        assert again is not dataset
        assert (again.classes, again.preprocessing) == (dataset.classes, {"size": 7})
        assert again.fingerprint == dataset.fingerprint
        assert same(again.train, dataset.train)
        assert same(again.test, dataset.test)


def test_processes_that_start_together_all_succeed(source: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from eisnn.data import load\n"
        "for _ in range(20):\n"
        "    for copy in __import__('pathlib').Path(sys.argv[2]).glob('cache/*/meta.json'):\n"
        "        copy.unlink(missing_ok=True)\n"
        "    assert int(load('cifar10', sys.argv[1]).train.pixels.sum()) == int(sys.argv[3])\n"
    )
    total = int(mosaic.read(source).train.pixels.sum())
    command = [sys.executable, "-c", program, str(source), str(tmp_path / "home"), str(total)]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in running:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert len(copies(tmp_path)) == 1
