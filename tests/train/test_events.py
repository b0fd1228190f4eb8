"""Recordings of events are trained on as images are: learning, resuming, evaluating, splitting, several processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from event_files import write_cifar10_dvs
from gesture_clips import write_clips
from train_runs import assert_same_run, interrupt_at, records

from eisnn.config import problems
from eisnn.data import load
from eisnn.data.events import EventAugmentation, Events, cifar10_dvs, write
from eisnn.interop import evaluate
from eisnn.nn.options import PLUS
from eisnn.train import Interrupted, Run, TrainConfig, fit, recipe, resume

CLIPS = Path(__file__).parents[3] / "shared/data/dvsgesture-10.npz"
STEPS, SIZE = 3, 8


def moving(label: int, rng: np.random.Generator) -> Events:
    """A spot that goes right (label 0) or down (1), and noise."""
    n = 150
    t = np.sort(rng.integers(0, 30_000, n))
    way, side = t * 15 // 30_000, rng.integers(6, 10, n)
    noise = rng.random(n) < 0.3
    x, y = (way, side) if label == 0 else (side, way)
    x, y = (np.where(noise, rng.integers(0, 16, n), at).astype("u2") for at in (x, y))
    return Events(t, x, y, rng.integers(0, 2, n).astype("u1"), (16, 16))


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EISNN_DATA", str(tmp_path_factory.mktemp("home")))
        yield Path(os.environ["EISNN_DATA"])


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """67 training and 24 test recordings; with batches of 16 the last one holds 3."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("clips")
    for split, count in (("train", 67), ("test", 24)):
        for k in range(count):
            write(moving(k % 2, rng), folder / split / ("right", "down")[k % 2] / f"{k:03}.npz")
    return folder


def tiny(clips: Path, **changes: Any) -> TrainConfig:
    fields: dict[str, Any] = {
        "model": "convnet3",
        "width": 0.25,
        "time_steps": STEPS,
        "dataset": "event-folder",
        "data_path": str(clips),
        "image_size": SIZE,
        "augmentation": EventAugmentation(temporal_deletion=1, resized_crop=(0.7, 1.0), roll=1, rotation=10),
        "epochs": 2,
        "batch_size": 16,
        "lr": 0.02,
        "warmup_epochs": 0.5,
        "accelerator": "cpu",
        "log_steps": 2,
        "checkpoint_seconds": 1e6,
    }
    return TrainConfig(**(fields | changes))


VARIANTS = {
    "paper": {},
    "plus": {"circuit_options": PLUS, "optimizer": "orthogonal", "decay": "feedforward"},
    "bn": {"circuit": "bn"},
    "resnet": {"model": "resnet18", "width": 0.0625, "image_size": 16},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_is_complete_and_resumes_bit_for_bit(
    variant: str, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(clips, **VARIANTS[variant])
    fit(config, tmp_path / "whole", quiet=True)
    for record in records(tmp_path / "whole"):
        if record["kind"] == "epoch":
            assert 0 < record["train_firing_rate"] < 1
            assert 0 < record["test_firing_rate"] < 1
    for query in (3, 7):
        with monkeypatch.context() as patch:
            interrupt_at(patch, query)
            with pytest.raises(Interrupted):
                (
                    fit(config, tmp_path / "pieces", quiet=True)
                    if query == 3
                    else resume(tmp_path / "pieces", quiet=True)
                )
    resume(tmp_path / "pieces", quiet=True)
    assert_same_run(tmp_path / "pieces", tmp_path / "whole")


def test_it_learns_and_evaluates_to_what_was_logged(clips: Path, tmp_path: Path) -> None:
    config = tiny(clips, **VARIANTS["plus"], epochs=12, warmup_epochs=1, augmentation=EventAugmentation())
    result = fit(config, tmp_path / "run", quiet=True)
    assert result.accuracy >= 90
    found = evaluate(tmp_path / "run")
    assert (found["accuracy"], found["images"]) == (result.accuracy, 24)


def test_data_that_stay_on_disk_give_the_same_run(clips: Path, tmp_path: Path) -> None:
    for name, resident in (("memory", True), ("disk", False)):
        fit(tiny(clips, data_on_device=resident), tmp_path / name, quiet=True)
    assert records(tmp_path / "memory") == records(tmp_path / "disk")


SEVERAL = """
import sys
from pathlib import Path
from test_events import tiny
from eisnn.train import fit
fit(tiny(Path(sys.argv[1]), devices=2, precision="64"), sys.argv[2], quiet=True)
"""


def test_two_processes_do_what_one_does(clips: Path, tmp_path: Path) -> None:
    launch = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_", "SLURM_")
    mine = {k: v for k, v in environment().items() if not k.startswith(launch)}
    (tmp_path / "script.py").write_text(SEVERAL)
    subprocess.run([sys.executable, tmp_path / "script.py", clips, tmp_path / "two"], env=mine, check=True)
    fit(tiny(clips, precision="64"), tmp_path / "one", quiet=True)
    for one, two in zip(records(tmp_path / "one"), records(tmp_path / "two"), strict=True):
        assert one.keys() == two.keys()
        for name, value in one.items():
            if isinstance(value, float):
                assert two[name] == pytest.approx(value, rel=1e-5), name  # frames are float32


def environment() -> dict[str, str]:
    """In which a process finds the modules of the tests."""
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}


KILLED = """
import sys
from pathlib import Path
from test_events import tiny
from eisnn.train import fit
fit(tiny(Path(sys.argv[1]), epochs=6, checkpoint_seconds=0), sys.argv[2], quiet=True)
"""


def test_a_killed_run_is_resumed_bit_for_bit(clips: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle of training, from the command line."""
    config = tiny(clips, epochs=6, checkpoint_seconds=0)
    fit(config, tmp_path / "whole", quiet=True)
    process = subprocess.Popen([sys.executable, "-c", KILLED, clips, tmp_path / "killed"], env=environment())
    log = Run(tmp_path / "killed").metrics_file
    while not log.exists() or log.read_bytes().count(b'"kind": "epoch"') < 2:
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert log.read_bytes().count(b'"kind": "epoch"') < 6
    resume(tmp_path / "killed", quiet=True)
    assert_same_run(tmp_path / "killed", tmp_path / "whole")


def test_a_run_records_its_split_and_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cifar10_dvs, "EACH", 10)
    monkeypatch.setattr(cifar10_dvs, "HELD_BACK", 2)
    root = write_cifar10_dvs(tmp_path / "cifar", 10)
    config = tiny(root, dataset="cifar10-dvs", split_seed=3, frames={"bins": "time", "scaling": "sum"}, epochs=1)
    fit(config, tmp_path / "run", quiet=True)
    kept = json.loads(Run(tmp_path / "run").config_file.read_text())["data"]
    assert (kept["split_seed"], kept["frames"]) == (3, {"bins": "time", "scaling": "sum"})
    assert evaluate(tmp_path / "run")["images"] == 20


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": {"bins": "time"}, "dataset": "cifar10"}, "'cifar10' has no bins; leave out what is given"),
        ({"split_seed": 1}, "'event-folder' has no split_seed; leave out what is given"),
        ({"frames": {"bins": "often"}}, "frames.bins"),
    ],
)
def test_what_a_data_set_does_not_take(changes: dict, message: str, clips: Path) -> None:
    with pytest.raises(ValueError, match="validation error") as caught:
        tiny(clips, **changes)
    assert message in "; ".join(problems(caught.value))


@pytest.mark.skipif(not CLIPS.exists(), reason=f"needs {CLIPS}")
def test_real_gestures_run_through_their_recipe(tmp_path: Path) -> None:
    """All ten clips of DVS128 Gesture, one of each class but the last, by the recipe at a sixteenth of its width."""
    write_clips(CLIPS, tmp_path / "DvsGesture")
    assert load("dvs-gesture", tmp_path, time_steps=16).test.labels.tolist() == list(range(10))
    config = recipe("dvs-gesture-vgg8").changed(
        data_path=str(tmp_path),
        width=0.0625,
        batch_size=10,
        epochs=1,
        warmup_epochs=0,
        accelerator="cpu",
    )
    fit(config, tmp_path / "run", quiet=True)
    (record,) = [record for record in records(tmp_path / "run") if record["kind"] == "epoch"]
    assert np.isfinite(record["train_loss"])
    assert record["test_firing_rate"] > 0.01
    assert torch.isfinite(torch.tensor(evaluate(tmp_path / "run")["loss"]))
