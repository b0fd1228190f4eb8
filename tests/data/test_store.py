"""The decoded copy: used when good, rebuilt when not, never in the way."""

import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import random_images, same, write_mosaics
from filelock import FileLock

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


def start(program: str, *arguments: object) -> subprocess.Popen:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(program: str, *arguments: object) -> subprocess.CompletedProcess:
    process = start(program, *arguments)
    output, errors = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


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


def test_a_file_of_the_same_size_and_time_is_noticed(source: Path, decodings: list[Path]) -> None:
    before = load("cifar10", source)
    file, other = (source / "train" / f"{name}.webp" for name in ("cat", "dog"))
    state, content = file.stat(), file.read_bytes()
    file.write_bytes(content)
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert file.stat().st_mtime_ns == state.st_mtime_ns
    assert load("cifar10", source).fingerprint == before.fingerprint
    assert len(decodings) == 2
    file.rename(source / "away")
    other.rename(file)
    (source / "away").rename(other)
    swapped = load("cifar10", source)
    assert len(decodings) == 3
    assert torch.equal(swapped.train.pixels.sort(0).values, before.train.pixels.sort(0).values)
    assert swapped.fingerprint != before.fingerprint


def test_rebuild_decodes_again(source: Path, decodings: list[Path], tmp_path: Path) -> None:
    first = load("cifar10", source)
    (copy,) = copies(tmp_path)
    written = (copy / "meta.json").stat().st_ino
    again = load("cifar10", source, rebuild=True)
    assert len(decodings) == 2
    assert (copy / "meta.json").stat().st_ino != written
    assert again.fingerprint == first.fingerprint
    assert copies(tmp_path) == [copy]


@pytest.mark.parametrize(("what", "fits"), [("labels", True), ("labels", False), ("images", True), ("classes", True)])
def test_what_changes_places_in_the_copy_is_noticed(
    what: str, fits: bool, source: Path, decodings: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eisnn.data.store.fits", lambda *_: fits)  # into memory: else pixels are not read
    expected = load("cifar10", source)
    (copy,) = copies(tmp_path)
    if what == "classes":
        file = copy / "meta.json"
        changed = file.read_text().replace('"cat", "deer"', '"deer", "cat"').encode()
    else:
        file = copy / f"train.{'labels' if what == 'labels' else 'pixels'}.npy"
        array = np.load(file)
        array[[0, 39]] = array[[39, 0]]
        buffer = io.BytesIO()
        np.save(buffer, array)
        changed = buffer.getvalue()
    assert len(changed) == file.stat().st_size
    assert changed != file.read_bytes()
    file.unlink()
    file.write_bytes(changed)
    again = load("cifar10", source)
    assert len(decodings) == 2
    assert same(again.train, expected.train)
    assert again.classes == expected.classes


def test_unwritable_cache_is_gone_without(source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "home").write_text("a file where the data folder should be")
    with caplog.at_level(logging.WARNING):
        assert len(load("cifar10", source).train) == 40
    assert "cannot be written" in caplog.text


def test_a_full_disk_costs_the_copy_only(tmp_path: Path, source: Path) -> None:
    """Whatever file no longer fits; then everything fits."""
    program = (
        "import resource, signal, sys; from eisnn.data import load\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "for limit in (0, 200, 1000, 100_000):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))\n"
        "    assert int(load('cifar10', sys.argv[1]).train.pixels.sum()) == int(sys.argv[2])\n"
    )
    total = int(mosaic.read(source).train.pixels.sum())
    done = run(program, source, total)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("cannot be written") == 4
    assert copies(tmp_path) == []
    load("cifar10", source)
    assert len(copies(tmp_path)) == 1


def test_what_a_killed_process_has_begun_is_removed(source: Path, tmp_path: Path, decodings: list[Path]) -> None:
    """But not what a living one is writing."""
    program = (
        "import os, sys, time; import numpy as np; from eisnn.data import load\n"
        "save = np.save\n"
        "def stop(*arguments):\n"
        "    save(*arguments)\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(60)\n"
        "np.save = stop\n"
        "load('cifar10', sys.argv[1])\n"
    )
    others = [tmp_path / name for name in ("killed", "living")]
    processes = []
    for other in others:
        write_mosaics(other)
        processes.append(start(program, other))
        assert processes[-1].stdout.readline() == "writing\n"
    killed, living = processes
    killed.kill()
    killed.wait()
    assert sorted(file.suffix for file in copies(tmp_path)) == [".tmp", ".tmp"]
    load("cifar10", source)
    kept = copies(tmp_path)
    assert sorted(file.suffix for file in kept) == ["", ".tmp"]
    living.kill()
    living.wait()
    load("cifar10", others[1])
    assert sorted(file.suffix for file in copies(tmp_path)) == ["", ""]
    assert len(decodings) == 2


def test_one_process_decodes_and_the_others_wait_for_it(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; import torch\n"
        "from eisnn.data import Dataset, Images, Source; from eisnn.data.store import load_stored\n"
        "def read():\n"
        "    with open(sys.argv[1] + '/decoded', 'a') as file: file.write('x')\n"
        "    time.sleep(0.5)\n"
        "    images = Images(torch.arange(12).byte().view(1, 3, 2, 2), torch.zeros(1, dtype=torch.int64))\n"
        "    return Dataset('x', ('a',), images, images)\n"
        "folder = Path(sys.argv[1])\n"
        "assert load_stored(folder / 'copy', Source(folder, (), read), False).train.pixels.sum() == 66\n"
    )
    for process in [start(program, tmp_path) for _ in range(3)]:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert (tmp_path / "decoded").read_text() == "x"


def test_a_good_copy_needs_no_lock(source: Path, tmp_path: Path, decodings: list[Path]) -> None:
    """It may lie where nothing can be written."""
    load("cifar10", source)
    (lock,) = (tmp_path / "home" / "cache").glob("*.lock")
    with FileLock(lock):
        load("cifar10", source)
    assert len(decodings) == 1


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
    for process in [start(program, source, tmp_path / "home", total) for _ in range(3)]:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert len(copies(tmp_path)) == 1
