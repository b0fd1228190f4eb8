"""The decoded copy: used when good, rebuilt when not, never in the way."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from data_files import random_images, same, write_mosaics

from eisnn.data import DataError, Dataset, load, mosaic
from eisnn.data.cache import read_cache, write_cache


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


def cached(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "home" / "cache").iterdir())


def test_second_load_is_the_same_without_decoding(source: Path, decodings: list[Path], tmp_path: Path) -> None:
    first, second = load("cifar10", source), load("cifar10", source)
    assert len(decodings) == 1
    assert same(first.train, second.train)
    assert same(first.test, second.test)
    assert (first.name, first.classes) == (second.name, second.classes)
    assert [file.suffix for file in cached(tmp_path)] == [".safetensors"]


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
    assert len(cached(tmp_path)) == 1


def test_damaged_cache_is_rebuilt_with_a_warning(
    source: Path, decodings: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = load("cifar10", source)
    (file,) = cached(tmp_path)
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for count, broken in enumerate((b"", whole[: len(whole) // 2], whole[:-1], b"x" * 100, bytes(flipped)), 2):
        file.unlink()  # a new file, as who has mapped the old one keeps it
        file.write_bytes(broken)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            again = load("cifar10", source)
        assert same(again.train, expected.train)
        assert "cannot be used" in caplog.text
        assert len(decodings) == count
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
    assert not (tmp_path / "home").exists()


def test_odd_sizes_and_class_names_survive(tmp_path: Path) -> None:
    dataset = Dataset("x", ("Ånt, \n", '"b"'), random_images(3, 2, (1, 5, 7)), random_images(1, 2, (1, 5, 7)))
    write_cache(tmp_path / "c", "print", dataset)
    again = read_cache(tmp_path / "c", "print")
    assert again is not None
    assert again.classes == dataset.classes
    assert same(again.train, dataset.train)
    assert read_cache(tmp_path / "c", "other print") is None


def test_a_split_may_begin_at_any_byte(tmp_path: Path) -> None:
    both = random_images(12, 2, (1, 5, 7))
    dataset = Dataset("x", ("a", "b"), both[:3], both[3:])
    write_cache(tmp_path / "c", "print", dataset)
    again = read_cache(tmp_path / "c", "print")
    assert again is not None
    assert same(again.train, dataset.train)
    assert same(again.test, dataset.test)


def test_processes_that_start_together_all_succeed(source: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from eisnn.data import load\n"
        "for _ in range(20):\n"
        "    for file in __import__('pathlib').Path(sys.argv[2]).glob('cache/*.safetensors'):\n"
        "        file.unlink(missing_ok=True)\n"
        "    assert int(load('cifar10', sys.argv[1]).train.pixels.sum()) == int(sys.argv[3])\n"
    )
    total = int(mosaic.read(source).train.pixels.sum())
    command = [sys.executable, "-c", program, str(source), str(tmp_path / "home"), str(total)]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in running:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert all(not file.name.endswith(".tmp") for file in cached(tmp_path))
