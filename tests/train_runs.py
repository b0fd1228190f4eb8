"""A tiny image folder, a tiny run on it, and ways to end a run early and to compare two, for the tests of training."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from eisnn import files
from eisnn.data import Augmentation
from eisnn.train import Run, TrainConfig, checkpoint, engine
from eisnn.train.checkpoint import load_checkpoint

TIMING = ("seconds", "images_per_second")
TRAIN_IMAGES, TEST_IMAGES, SIZE = 67, 24, 16


def write_images(folder: Path) -> Path:
    """67 training and 24 test images of 3 colours with noise; with batches of 16 the last one holds 3."""
    rng = np.random.default_rng(0)
    for split, count in (("train", TRAIN_IMAGES), ("test", TEST_IMAGES)):
        for k in range(count):
            pixels = rng.integers(0, 120, (SIZE, SIZE, 3))
            pixels[..., k % 3] += 120
            file = folder / split / "rgb"[k % 3] / f"{k:03}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(file)
    return folder


def tiny(images: Path, **changes: Any) -> TrainConfig:
    """Five steps an epoch, two epochs; about a tenth of a second."""
    fields: dict[str, Any] = {
        "model": "convnet3",
        "width": 0.25,
        "time_steps": 2,
        "dataset": "folder",
        "data_path": str(images),
        "image_size": SIZE,
        "augmentation": Augmentation(crop_padding=2, flip=True, cutout="rectangle"),
        "epochs": 2,
        "batch_size": 16,
        "lr": 0.05,
        "warmup_epochs": 0.5,
        "accelerator": "cpu",
        "log_steps": 2,
        "checkpoint_seconds": 1e6,
    }
    return TrainConfig(**(fields | changes))


def with_options(images: Path, out: Path, **changes: Any) -> TrainConfig:
    """A run with options that need care in several processes, taught by the run `plain` in `out`."""
    return tiny(
        images,
        precision="64",
        average=0.8,
        teacher=str(out / "plain"),
        adaptive_clipping=0.1,
        loss="tet",
        augmentation=Augmentation(flip=True, cutmix=1.0, mixup=0.5),
        **changes,
    )


def records(run_dir: Path) -> list[dict[str, Any]]:
    """All records of the log without the two fields that measure time."""
    lines = [json.loads(line) for line in Run(run_dir).metrics_file.read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMING} for line in lines]


def assert_same_checkpoint(one: Path, other: Path) -> None:
    (tensors, metadata), (others, other_metadata) = load_checkpoint(one), load_checkpoint(other)
    assert tensors.keys() == others.keys()
    for name in tensors:
        assert tensors[name].dtype == others[name].dtype
        assert torch.equal(tensors[name], others[name]), name
    for data in (metadata, other_metadata):
        data["config"]["output"].pop("checkpoint_seconds")
        for name in ("log_size", "log_digest"):  # the timing differs
            data.get("progress", {}).pop(name, None)
    assert metadata == other_metadata


def assert_same_run(one: Path, other: Path) -> None:
    """Metrics, weights, optimizer and random state of two runs, bit for bit; and no stray files."""
    assert records(one) == records(other)
    assert_same_checkpoint(Run(one).last, Run(other).last)
    assert_same_checkpoint(Run(one).best, Run(other).best)
    for run in (one, other):
        names = {file.name for file in run.iterdir()}
        assert names - {".lock"} == {"config.json", "metrics.jsonl", "last.safetensors", "best.safetensors"}


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it, and nothing is written after it."""


def count_writes(monkeypatch: pytest.MonkeyPatch, action: Callable[[int, str], None]) -> Callable[[], int]:
    """Call `action(n, kind)` before the n-th time that a run makes something durable; returns the number so far.

    Kinds: "fsync" of a file or folder, "rename" of a finished temporary file. These are the only moments at which the
    state on the disk changes.
    """
    seen = 0
    real_replace, real_fsync = files.os.replace, files.os.fsync

    def watch(kind: str, real: Callable[..., None]) -> Callable[..., None]:
        def call(*args: Any) -> None:
            nonlocal seen
            seen += 1
            action(seen, kind)
            real(*args)

        return call

    monkeypatch.setattr(files.os, "replace", watch("rename", real_replace))
    monkeypatch.setattr(files.os, "fsync", watch("fsync", real_fsync))
    return lambda: seen


def interrupt_at(monkeypatch: pytest.MonkeyPatch, query: int) -> Callable[[], int]:
    """Ctrl-C that comes just before the loop looks for it for the `query`-th time; returns how often it has looked."""
    looked = 0

    class Flag:
        @property
        def requested(self) -> bool:
            nonlocal looked
            looked += 1
            return looked >= query

    @contextmanager
    def catch() -> Iterator[Flag]:
        yield Flag()

    monkeypatch.setattr(engine, "catch_interrupt", catch)
    return lambda: looked


def keep_first_checkpoints(monkeypatch: pytest.MonkeyPatch, count: int = 2) -> None:
    """Copy the first checkpoints of a run, those after 0, 1, ... steps, to `step-0`, `step-1`, ... in its folder."""
    real, kept = checkpoint.save_checkpoint, 0

    def save(path: Path, *args: Any) -> None:
        nonlocal kept
        real(path, *args)
        if path.name == "last.safetensors" and kept < count:
            shutil.copy(path, path.with_name(f"step-{kept}"))
            kept += 1

    monkeypatch.setattr(checkpoint, "save_checkpoint", save)
