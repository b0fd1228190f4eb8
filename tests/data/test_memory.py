"""Data that does not fit into memory: decoded into a file, mapped from it, and the same in every other respect."""

import logging
import os
from pathlib import Path

import pytest
import torch
from data_files import random_images, same
from train_runs import assert_same_run, tiny, write_images

from eisnn.data import DataError, Dataset, Loader, Source, load, memory
from eisnn.data.config import keeps_resident
from eisnn.data.memory import empty_pixels, fits
from eisnn.data.store import load_stored
from eisnn.interop import evaluate
from eisnn.train import Run, fit

CPU = torch.device("cpu")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EISNN_DATA", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def little_memory(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: 4000)


def mapped(tensor: torch.Tensor) -> str:
    """The file in which the memory of a tensor lies, "" for none."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        area, _, _, _, _, *name = line.split(maxsplit=5)
        first, last = (int(end, 16) for end in area.split("-"))
        if first <= tensor.data_ptr() < last:
            return name[0] if name and name[0].startswith("/") else ""
    raise AssertionError("no such memory")


def test_a_quarter_of_the_free_memory_is_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: 4000)
    assert fits(1000)
    assert not fits(1001)


def test_free_memory_is_that_which_a_control_group_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < memory.free_memory(CPU) <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    monkeypatch.setattr(memory, "_limits", lambda: iter([10**15, 12345]))
    assert memory.free_memory(CPU) == 12345


def test_what_fits_lies_in_memory_and_what_does_not_in_a_file_without_a_name(home: Path, little_memory: None) -> None:
    small, large = empty_pixels(10, 100), empty_pixels(11, 100)
    assert mapped(small) == ""
    assert mapped(large).startswith(str(home / "cache"))
    assert list((home / "cache").iterdir()) == []
    large.fill_(7)
    assert large.shape == (11, 100)
    assert bool((large == 7).all())


def test_no_room_on_the_disk_either_is_an_error_that_names_the_folder(home: Path, little_memory: None) -> None:
    home.write_text("a file where the data folder should be")
    with pytest.raises(DataError, match=r"2,000 bytes of decoded images .*home/cache cannot hold them: .*EISNN_DATA"):
        empty_pixels(20, 100)


def test_data_larger_than_memory_loads_the_same_from_its_mapped_copy(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = write_images(tmp_path / "source")
    expected = load("folder", source, cache=False, size=20)
    monkeypatch.setattr(memory, "free_memory", lambda device: 4000)
    with caplog.at_level(logging.WARNING):
        for dataset in (load("folder", source, size=16), load("folder", source, size=16)):
            (copy,) = (folder for folder in (home / "cache").iterdir() if folder.is_dir())
            assert mapped(dataset.train.pixels) == str(copy / "train.pixels.npy")
            assert mapped(dataset.test.pixels) == str(copy / "test.pixels.npy")
            assert dataset.classes == expected.classes
    assert caplog.text == ""
    padded = load("folder", source, size=20)
    assert same(padded.train, expected.train)
    assert same(padded.test, expected.test)
    assert mapped(padded.train.pixels)


def test_a_decoded_copy_larger_than_memory_is_not_read_through(
    tmp_path: Path, little_memory: None, caplog: pytest.LogCaptureFixture
) -> None:
    """So a changed pixel stays unnoticed; a short file does not."""
    dataset = Dataset("x", ("a", "b"), random_images(20, 2), random_images(6, 2))
    source = Source(tmp_path, (), lambda: dataset)
    load_stored(tmp_path / "copy", source, rebuild=False)
    (file,) = tmp_path.glob("copy-*/train.pixels.npy")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.unlink()  # a new file, as who has mapped the old one keeps it
    file.write_bytes(content)
    changed = load_stored(tmp_path / "copy", source, rebuild=False)
    assert caplog.text == ""
    assert (changed.train.pixels != dataset.train.pixels).sum() == 1
    assert changed.fingerprint == dataset.fingerprint
    file.unlink()
    file.write_bytes(content[:-1])
    again = load_stored(tmp_path / "copy", source, rebuild=False)
    assert same(again.train, dataset.train)
    assert "cannot be used" in caplog.text


def test_hold_out_of_data_larger_than_memory_is_the_same(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Dataset("x", ("a", "b"), random_images(20, 2), random_images(6, 2))
    expected = dataset.hold_out(0.25, seed=1)
    monkeypatch.setattr(memory, "free_memory", lambda device: 4000)
    held = dataset.hold_out(0.25, seed=1)
    assert same(held.train, expected.train)
    assert same(held.test, expected.test)
    assert mapped(held.train.pixels).startswith(str(home))
    assert mapped(expected.train.pixels) == ""


def test_where_images_stay_follows_from_the_configuration_and_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = random_images(1, 1)  # 3,072 bytes
    for free, there in ((8 * 3072, True), (8 * 3072 - 4, False)):
        monkeypatch.setattr(memory, "free_memory", lambda device, free=free: free)
        assert keeps_resident(tiny(tmp_path).data, CPU, split, split) is there
        assert keeps_resident(tiny(tmp_path, data_on_device=True).data, CPU, split, split) is True
        assert keeps_resident(tiny(tmp_path, data_on_device=False).data, CPU, split, split) is False


def test_a_run_on_data_larger_than_memory_is_the_same_bit_for_bit(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(write_images(tmp_path / "images"), hold_out=0.25)
    seen: list[bool] = []
    make = Loader.__init__

    def watch(self: Loader, *args: object, **options: object) -> None:
        make(self, *args, **options)  # type: ignore[arg-type]
        seen.append(self.resident)

    monkeypatch.setattr(Loader, "__init__", watch)
    fit(config, tmp_path / "resident", quiet=True)
    assert seen == [True, True]
    monkeypatch.setattr(memory, "free_memory", lambda device: 4000)
    fit(config, tmp_path / "streamed", quiet=True)
    assert seen[2:] == [False, False]
    assert_same_run(tmp_path / "resident", tmp_path / "streamed")
    assert evaluate(tmp_path / "streamed")["accuracy"] == Run(tmp_path / "resident").metrics()[-1]["test_accuracy"]
    assert seen[4:] == [False]
