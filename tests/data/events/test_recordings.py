"""Data sets of recordings through `load` and `Loader`, as a training run uses them."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from event_files import batch_of, random_events, write_cifar10_dvs, write_dvs_gesture, write_nmnist
from torch import Tensor

from eisnn.data import Augmentation, DataError, Loader, load
from eisnn.data.events import EventAugmentation, cifar10_dvs, read, store, write
from eisnn.data.events.frames import count_frames
from eisnn.data.events.recordings import Recordings

AUGMENTATION = EventAugmentation(temporal_deletion=2, resized_crop=(0.7, 1.0), flip=True, roll=3, rotation=20)


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("EISNN_DATA", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def nmnist(tmp_path: Path) -> Path:
    return write_nmnist(tmp_path / "nmnist", {"Train": 3, "Test": 1})


def epoch(split: Recordings, number: int = 0, **options: Any) -> list[tuple[Tensor, Tensor]]:
    loader = Loader(split, 8, shuffle=True, seed=3, **options)
    return [(batch.images, batch.labels) for batch in loader.epoch(number)]


def same(one: list[tuple[Tensor, Tensor]], other: list[tuple[Tensor, Tensor]]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b) and torch.equal(k, m) for (a, k), (b, m) in zip(one, other, strict=True)
    )


def test_recordings_become_frames_in_their_order(nmnist: Path) -> None:
    dataset = load("nmnist", nmnist, time_steps=5)
    assert (len(dataset.train), len(dataset.test)) == (30, 10)
    assert dataset.classes == tuple(map(str, range(10)))
    assert (dataset.channels, dataset.image_size) == (2, (34, 34))
    batches = list(Loader(dataset.train, 8).epoch())
    assert [list(batch.images.shape) for batch in batches] == [[5, 8, 2, 34, 34]] * 3 + [[5, 6, 2, 34, 34]]
    events = [read(nmnist / f"Train/{k // 3}/{10 * (k % 3) + k // 3:05}.bin", size=(34, 34)) for k in range(30)]
    expected = count_frames(batch_of(events, 5))
    assert torch.equal(torch.cat([batch.images for batch in batches], 1), expected)
    assert torch.cat([batch.labels for batch in batches]).tolist() == np.repeat(range(10), 3).tolist()
    one = dataset.train[torch.tensor([4, 7])].recording(1)
    np.testing.assert_array_equal(one.t, events[7].t - events[7].t[0])
    np.testing.assert_array_equal(one.x, events[7].x)


@pytest.mark.parametrize("bins", ["count", "time"])
@pytest.mark.parametrize("scaling", ["average", "sum"])
def test_options_of_frames(nmnist: Path, bins: str, scaling: str) -> None:
    dataset = load("nmnist", nmnist, time_steps=5, bins=bins, scaling=scaling)
    assert dataset.preprocessing == {"time_steps": 5, "bins": bins, "scaling": scaling}
    frames = next(Loader(dataset.test, 10, size=17).epoch()).images
    events = [read(nmnist / f"Test/{k}/{k:05}.bin", size=(34, 34)) for k in range(10)]
    whole = count_frames(batch_of(events, 5, bins))
    expected = whole.unflatten(-1, (17, 2)).unflatten(-3, (17, 2)).sum((-3, -1))
    torch.testing.assert_close(frames, expected if scaling == "sum" else expected / 4)


def test_the_batches_are_the_same_from_memory_and_from_disk(nmnist: Path) -> None:
    train = load("nmnist", nmnist, time_steps=4).train
    resident = epoch(train, augmentation=AUGMENTATION, size=20)
    assert same(resident, epoch(train, augmentation=AUGMENTATION, size=20, resident=False))
    assert not same(resident, epoch(train, 1, augmentation=AUGMENTATION, size=20))
    loader = Loader(train, 8, shuffle=True, seed=3, augmentation=AUGMENTATION, size=20)
    later = [(batch.images, batch.labels) for batch in loader.epoch(0, start=2)]
    assert same(resident[2:], later)


def test_a_device_gathers_what_the_cpu_reads(nmnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `to` moves to a GPU, and how batches are gathered there, on the CPU."""
    part = load("nmnist", nmnist, time_steps=4, bins="time").train[torch.arange(5, 25)]
    index = torch.tensor([7, 0, 19])
    expected = count_frames(part._select(index))
    moved = replace(part, events=part.events.clone())  # another place than that of the mapped file
    monkeypatch.setattr(torch.Tensor, "is_cpu", False)
    moved = moved.to(torch.device("cpu", 0))
    assert len(moved.events) == int(part.counts.sum())
    assert torch.equal(count_frames(moved._select(index)), expected)


def test_several_processes_share_a_batch(nmnist: Path) -> None:
    train = load("nmnist", nmnist, time_steps=4).train
    alone = epoch(train, augmentation=AUGMENTATION)
    parts = [epoch(train, augmentation=AUGMENTATION, rank=rank, world_size=3) for rank in range(3)]
    joined = [
        (torch.cat([frames for frames, _ in shares], 1), torch.cat([labels for _, labels in shares]))
        for shares in zip(*parts, strict=True)
    ]
    assert same(alone, joined)


def test_subsets_and_held_out_recordings(nmnist: Path) -> None:
    dataset = load("nmnist", nmnist, time_steps=4)
    held = dataset.hold_out(1 / 3, seed=0)
    assert (len(held.train), len(held.test)) == (20, 10)
    assert torch.bincount(held.test.labels).tolist() == [1] * 10
    fewer = held.subset(10, None, seed=0)
    assert torch.bincount(fewer.train.labels).tolist() == [1] * 10
    assert len({dataset.fingerprint, held.fingerprint, fewer.fingerprint}) == 3
    with_time = load("nmnist", nmnist, time_steps=5)
    assert with_time.fingerprint != dataset.fingerprint
    assert with_time.content == dataset.content


def test_content_notices_other_events_and_labels(nmnist: Path) -> None:
    before = load("nmnist", nmnist, time_steps=4).content
    assert load("nmnist", nmnist, time_steps=4, rebuild=True).content == before
    one, other = nmnist / "Train/3/00003.bin", nmnist / "Train/4/00004.bin"
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    assert load("nmnist", nmnist, time_steps=4).content != before


def test_all_options_share_one_conversion(nmnist: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load("nmnist", nmnist, time_steps=4)
    monkeypatch.setattr(store, "_convert", None)
    load("nmnist", nmnist, time_steps=9, bins="time", scaling="sum")
    assert len(list((home / "cache").glob("*/events.bin"))) == 1
    monkeypatch.undo()
    assert len(load("nmnist", nmnist, time_steps=4, cache=False).train) == 30


def test_long_pauses_survive(tmp_path: Path) -> None:
    """Bins by time of recordings with pauses that the packed bits cannot hold, in any order of the batch."""
    rng, events = np.random.default_rng(0), []
    for k in range(4):
        one = random_events(rng, 50, (720, 1280))
        one.t[20 + k :] += 5_000_000
        events.append(one)
        for split in ("train", "test"):
            write(one, tmp_path / "set" / split / "a" / f"{k}.npz")
    dataset = load("event-folder", tmp_path / "set", time_steps=3, bins="time")
    assert len(dataset.train.gaps) >= 8
    order = torch.tensor([3, 1, 0, 2])
    (batch,) = dataset.train.batches(order, [slice(0, 4)], None)
    assert torch.equal(count_frames(batch), count_frames(batch_of([events[k] for k in order], 3, "time")))


def test_cifar10_dvs_and_its_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar10_dvs, "EACH", 10)
    monkeypatch.setattr(cifar10_dvs, "HELD_BACK", 2)
    monkeypatch.setattr(cifar10_dvs, "SPLIT", tmp_path / "split.txt")
    (tmp_path / "split.txt").write_text("# which are held back\n8\n9\n")
    root = write_cifar10_dvs(tmp_path / "cifar", 10)
    paper, random = (load("cifar10-dvs", root, time_steps=2, split_seed=seed) for seed in (None, 7))
    for dataset in (paper, random):
        assert torch.bincount(dataset.train.labels).tolist() == [8] * 10
        assert torch.bincount(dataset.test.labels).tolist() == [2] * 10
    assert paper.preprocessing["split"] == "first 900 file names of each class"
    assert random.preprocessing["split"] == "random, seed 7"
    assert paper.fingerprint != random.fingerprint
    frames = next(Loader(paper.test, 20).epoch()).images.sum((0, 2))
    raw = read(root / "airplane/cifar10_airplane_9.aedat")
    assert torch.equal(frames[1].nonzero(), torch.from_numpy(np.unique(np.stack((raw.x, raw.y), 1), axis=0)).long())


def test_dvs_gesture_keeps_its_lists(tmp_path: Path) -> None:
    trials = [(label, 5_000_000 + 10_000 * label, 5_009_000 + 10_000 * label) for label in range(1, 12)]
    root = write_dvs_gesture(tmp_path / "DvsGesture", {"train": ["user01_led"], "test": ["user24_lab"]}, trials)
    dataset = load("dvs-gesture", tmp_path, time_steps=16)
    assert dataset.train.labels.tolist() == dataset.test.labels.tolist() == list(range(11))
    assert dataset.classes[7] == "arm_roll"
    assert next(Loader(dataset.test, 4, size=48).epoch()).images.shape == (16, 4, 2, 48, 48)
    shutil.rmtree(root)
    with pytest.raises(DataError, match=r"expected the folder DvsGesture that DvsGesture\.tar\.gz extracts to"):
        load("dvs-gesture", tmp_path, time_steps=16)


def test_what_is_missing_is_said(tmp_path: Path, nmnist: Path) -> None:
    with pytest.raises(DataError, match="give time_steps, the frames to make of each"):
        load("nmnist", nmnist)
    with pytest.raises(DataError, match=r"does not hold the data set 'nmnist'; expected the folder of Train\.zip and"):
        load("nmnist", tmp_path, time_steps=3)
    with pytest.raises(DataError, match=r"cifar10-dvs was not found in .*airplane\.zip \.\.\. truck\.zip"):
        load("cifar10-dvs", time_steps=3)
    with pytest.raises(DataError, match=r"no options \['split_seed'\]; it takes \['time_steps', 'bins', 'scaling'\]"):
        load("nmnist", nmnist, time_steps=3, split_seed=1)
    train = load("nmnist", nmnist, time_steps=3).train
    with pytest.raises(DataError, match=r"augmentation is Augmentation.*but that of Recordings is EventAugmentation"):
        Loader(train, 4, augmentation=Augmentation())
