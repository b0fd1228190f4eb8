"""Checkpoints and resuming: whatever ends a run, and wherever, it continues as if nothing had happened."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from train_runs import (
    Killed,
    assert_same_checkpoint,
    assert_same_run,
    count_writes,
    interrupt_at,
    records,
    tiny,
)

from eisnn import files
from eisnn.cli import main
from eisnn.data import Augmentation, DataError
from eisnn.functional import Division
from eisnn.interop import evaluate, load_trained
from eisnn.nn import EIConv2d, NonFiniteActivity
from eisnn.nn.options import PLUS, CircuitOptions
from eisnn.ops import build
from eisnn.provenance import versions
from eisnn.train import CheckpointError, Interrupted, Result, Run, RunError, TrainConfig, evaluation, fit, resume
from eisnn.train import checkpoint as ckpt
from eisnn.train import loss as objective
from eisnn.train import run as run_module
from eisnn.train.checkpoint import load_checkpoint

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def undisturbed(images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    run = tmp_path_factory.mktemp("runs") / "undisturbed"
    return run, fit(tiny(images), run, quiet=True)


@pytest.fixture
def finished(undisturbed: tuple[Path, Result], tmp_path: Path) -> Path:
    """A copy of a finished run that a test may damage."""
    return Path(shutil.copytree(undisturbed[0], tmp_path / "finished"))


def finish(run: Path) -> Result:
    return resume(run, quiet=True)


# Interruption


def test_interrupted_at_any_moment_it_continues_bit_for_bit(
    images: Path, undisturbed: tuple[Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = set()
    for query in range(1, 100):
        run = tmp_path / str(query)
        with monkeypatch.context() as patch:
            looked = interrupt_at(patch, query)
            try:
                fit(tiny(images), run, quiet=True)
            except Interrupted as stop:
                assert str(stop) == f"stopped; continue with: eisnn resume {run}"  # noqa: PT017 - the loop must end
            else:
                assert looked() < query
                break
        progress = load_checkpoint(Run(run).last)[1]["progress"]
        places.add((progress["epoch"], progress["step"]))
        result = finish(run)
        assert_same_run(undisturbed[0], run)
        assert result.accuracy == undisturbed[1].accuracy
        assert (result.best_accuracy, result.best_epoch) == (undisturbed[1].best_accuracy, undisturbed[1].best_epoch)
    # every step of both epochs, the two evaluations (step 5) and the end of the first epoch
    assert places == {(0, k) for k in range(1, 6)} | {(1, k) for k in range(6)}
    assert query == 1 + 2 * (5 + 2) + 1


MIXED = Augmentation(flip=True, trivial=True, cutmix=1.0, mixup=0.2)
OPTIONS: list[dict[str, Any]] = [
    {},
    {"circuit": "bn", "channels_last": True},
    {"momentum": 0.0},
    {"first_step": "published", "init_batch": "separate"},
    {"optimizer": "adam", "lr": 0.01},
    {"optimizer": "adamw", "lr": 0.01, "decay": "feedforward"},
    {"optimizer": "exponentiated"},
    {"optimizer": "orthogonal", "lr": 0.02, "circuit_options": PLUS},
    {"adaptive_clipping": 0.1},
    {"average": 0.9, "circuit_options": PLUS},
    {"average": 0.9, "circuit": "bn"},
    {"learn_tau": True, "circuit_options": replace(PLUS, tapwise=False)},
    {"augmentation": MIXED, "label_smoothing": 0.1},
    {"augmentation": MIXED, "loss": "tet", "time_steps": 3},
    {"stochastic_depth": 0.5, "model": "resnet18", "width": 0.05},
    {"teacher": "an earlier run"},
    {"start_from": "an earlier run", "circuit_options": CircuitOptions(division=Division("shift"))},
    {"evaluate_epochs": 3},
]


@pytest.mark.parametrize("changes", OPTIONS, ids=str)
def test_interrupted_again_and_again(
    images: Path,
    undisturbed: tuple[Path, Result],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
) -> None:
    changes = {key: str(undisturbed[0]) if value == "an earlier run" else value for key, value in changes.items()}
    config = tiny(images, **changes)
    fit(config, tmp_path / "whole", quiet=True)
    run, sessions = tmp_path / "pieces", 1
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2)
        with pytest.raises(Interrupted):
            fit(config, run, quiet=True)
        while sessions < 20:
            interrupt_at(patch, 1 + sessions % 6)  # up to six looks: two evaluations take four
            sessions += 1
            try:
                finish(run)
            except Interrupted:
                continue
            break
    assert sessions > 4
    assert_same_run(tmp_path / "whole", run)


# Killing


def half(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


@pytest.mark.parametrize("checkpoint_seconds", [0, 1e6])
def test_killed_at_any_moment_it_continues_bit_for_bit(
    images: Path,
    undisturbed: tuple[Path, Result],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    checkpoint_seconds: float,
) -> None:
    """Before each fsync and rename of a whole run: these are all the moments at which its folder changes.

    Killed at an fsync, the file being written is left half there, as after a power failure.
    """
    config = tiny(images, checkpoint_seconds=checkpoint_seconds)
    before_config = before_checkpoint = temporary = lost_lines = 0
    # With a checkpoint at every step the same kinds of moments come again and again: some of the later ones will do.
    moments = [*range(1, 13), *range(13, 52, 4)] if checkpoint_seconds == 0 else range(1, 1000)
    for moment in moments:
        run = Run(tmp_path / str(moment))

        def kill(n: int, kind: str, moment: int = moment, run: Run = run) -> None:
            if n != moment:
                return
            written = list(run.folder.glob(".*.tmp"))
            if kind == "fsync" and written:
                half(written[0])
            elif kind == "fsync" and run.metrics_file.exists():
                size = load_checkpoint(run.last)[1]["progress"]["log_size"]
                if run.log_size() > size:
                    os.truncate(run.metrics_file, run.log_size() - 7)
            raise Killed

        with monkeypatch.context() as patch:
            writes = count_writes(patch, kill)
            try:
                fit(config, run.folder, quiet=True)
            except Killed:
                pass
            else:
                assert writes() == moment - 1
                break
        temporary += bool(list(run.folder.glob(".*.tmp")))
        if not run.config_file.exists():
            before_config += 1
            with pytest.raises(RunError, match="holds no run"):
                finish(run.folder)
            fit(config, run.folder, quiet=True)
        else:
            before_checkpoint += not run.last.exists()
            if run.last.exists():
                lost_lines += run.log_size() > load_checkpoint(run.last)[1]["progress"]["log_size"]
                evaluate(run.folder)  # what is there is whole
                run.metrics()
            finish(run.folder)
        assert_same_run(undisturbed[0], run.folder)
    assert before_config >= 2
    assert before_checkpoint >= 2
    assert temporary >= 4
    assert lost_lines >= 2


@pytest.mark.parametrize("what", ["step", "evaluation"])
def test_killed_in_the_middle_of_the_work(
    images: Path, undisturbed: tuple[Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Between checkpoints; the resumed session is killed as well."""
    module = {"step": objective, "evaluation": evaluation}[what]
    run = tmp_path / "run"
    start: Callable[[], Any] = lambda: fit(tiny(images, checkpoint_seconds=0), run, quiet=True)  # noqa: E731
    loss = module.cross_entropy
    for life in (3, 1, 1, 2):
        calls = 0

        def dies(*args: torch.Tensor, life: int = life) -> torch.Tensor:
            nonlocal calls
            calls += 1
            if calls == life:
                raise Killed
            return loss(*args)

        with monkeypatch.context() as patch:
            patch.setattr(module, "cross_entropy", dies)
            with pytest.raises(Killed):
                start()
        start = lambda: finish(run)  # noqa: E731
    finish(run)
    assert_same_run(undisturbed[0], run)


def test_killed_before_the_first_checkpoint_it_starts_over(
    images: Path, undisturbed: tuple[Path, Result], tmp_path: Path
) -> None:
    run = Run(tmp_path / "run")
    run.create(tiny(images))
    (run.folder / ".last.safetensors.tmp").write_bytes(b"half of a checkpoint")
    finish(run.folder)
    assert_same_run(undisturbed[0], run.folder)


@pytest.mark.parametrize("left", ["metrics.jsonl", "best.safetensors"])
def test_a_run_that_lost_its_last_checkpoint_is_not_started_over(finished: Path, left: str) -> None:
    for name in {"metrics.jsonl", "last.safetensors", "best.safetensors"} - {left}:
        (finished / name).unlink()
    before = {file.name: file.read_bytes() for file in finished.iterdir()}
    with pytest.raises(RunError, match=rf"last\.safetensors is missing.*{left}.*start a new run.*--run-dir"):
        finish(finished)
    assert {file.name: file.read_bytes() for file in finished.iterdir()} == before


def test_what_was_written_after_the_checkpoint_is_dropped_and_written_again(
    images: Path, undisturbed: tuple[Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path / "run")
    with monkeypatch.context() as patch:
        interrupt_at(patch, 3)
        with pytest.raises(Interrupted):
            fit(tiny(images), run.folder, quiet=True)
    kept = run.metrics_file.read_bytes()
    with open(run.metrics_file, "ab") as file:
        file.write(b'{"kind": "steps", "epoch": 1, "step": 4, "loss": 0}\n{"kind": "epoch", "epo')
    (run.folder / ".last.safetensors.tmp").write_bytes(b"half")
    shutil.copy(undisturbed[0] / "best.safetensors", run.best)  # ahead of last.safetensors
    assert len(run.metrics("steps")) == 2  # readable in the meantime, without the half line
    assert run.metrics("epoch") == []
    finish(run.folder)
    assert run.metrics_file.read_bytes().startswith(kept)
    assert_same_run(undisturbed[0], run.folder)


def test_a_log_that_lost_lines_is_an_error(finished: Path) -> None:
    half(finished / "metrics.jsonl")
    for _ in range(2):
        with pytest.raises(RunError, match=r"metrics\.jsonl is missing or shorter.*Put the whole file back, or start"):
            finish(finished)
        (finished / "metrics.jsonl").unlink(missing_ok=True)


def test_resuming_a_finished_run_changes_nothing(undisturbed: tuple[Path, Result], finished: Path) -> None:
    before = {file.name: file.read_bytes() for file in finished.iterdir()}
    result = finish(finished)
    _, whole = undisturbed
    assert (result.accuracy, result.best_accuracy, result.best_epoch) == (
        whole.accuracy,
        whole.best_accuracy,
        whole.best_epoch,
    )
    assert {file.name: file.read_bytes() for file in finished.iterdir()} == before


def test_the_random_state_is_restored(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in the package draws from torch's global generator while it trains, but a layer of a user's may."""
    loss = objective.cross_entropy
    drawn: list[float] = []

    def noisy(*args: torch.Tensor) -> torch.Tensor:
        drawn.append(float(torch.rand(())))
        return loss(*args) * (1 + drawn[-1])

    monkeypatch.setattr(objective, "cross_entropy", noisy)
    fit(tiny(images), tmp_path / "whole", quiet=True)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 9)
        with pytest.raises(Interrupted):
            fit(tiny(images), tmp_path / "pieces", quiet=True)
    torch.manual_seed(99)
    finish(tmp_path / "pieces")
    assert len(drawn) == 20
    assert drawn[10:] == drawn[:10]
    assert_same_run(tmp_path / "whole", tmp_path / "pieces")


# Two processes, other places


HOLD = """
import sys, time
from dataclasses import replace
from pathlib import Path
from eisnn.train import Run
with Run(Path(sys.argv[1])).locked():
    print("locked", flush=True)
    time.sleep(60)
"""


def test_one_process_at_a_time(images: Path, finished: Path, tmp_path: Path) -> None:
    """Another process holds two folders, one of them not yet a run; killed, it hinders nobody."""
    new = tmp_path / "new"
    holders = [
        subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
        for folder in (finished, new)
    ]
    try:
        for holder in holders:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "locked\n"
        with pytest.raises(RunError, match="finished is in use by another process"):
            finish(finished)
        with pytest.raises(RunError, match="new is in use by another process"):
            fit(tiny(images), new, quiet=True)
        assert {file.name for file in new.iterdir()} == {".lock"}
    finally:
        for holder in holders:
            holder.kill()
            holder.communicate()
    finish(finished)
    fit(tiny(images), new, quiet=True)


def test_a_run_is_locked_until_it_ends(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    loss, refused = objective.cross_entropy, []

    def look(*args: torch.Tensor) -> torch.Tensor:
        with pytest.raises(RunError, match="in use"), Run(run).locked():
            pass
        refused.append(1)
        return loss(*args)

    with monkeypatch.context() as patch:
        patch.setattr(objective, "cross_entropy", look)
        interrupt_at(patch, 3)
        with pytest.raises(Interrupted):
            fit(tiny(images), run, quiet=True)
        assert len(refused) == 3
        interrupt_at(patch, 1)
        with pytest.raises(Interrupted):
            finish(run)
        assert len(refused) == 4
    with Run(run).locked():
        pass


def test_without_locks_it_trains_all_the_same(
    images: Path, undisturbed: tuple[Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "fcntl", None)
    fit(tiny(images), tmp_path / "run", quiet=True)
    assert_same_run(undisturbed[0], tmp_path / "run")


def test_it_continues_from_another_folder(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of the data is typed relative to the folder, or to the home of the user."""
    monkeypatch.chdir(images.parent)
    monkeypatch.setenv("HOME", str(images.parent))
    for k, typed in enumerate((images.name, f"~/{images.name}")):
        run = tmp_path / str(k)
        with monkeypatch.context() as patch:
            interrupt_at(patch, 3)
            with pytest.raises(Interrupted):
                fit(tiny(Path(typed)), run, quiet=True)
        assert Run(run).config().data.data_path == str(images)
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            patch.setenv("HOME", str(tmp_path))
            finish(run)


def test_it_continues_with_moved_data_and_remembers_where(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Path(shutil.copytree(images, tmp_path / "there"))
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        interrupt_at(patch, 3)
        with pytest.raises(Interrupted):
            fit(tiny(there, accelerator="auto"), run, quiet=True)
    there.rename(tmp_path / "moved")
    with pytest.raises(DataError, match="there does not exist"):
        finish(run)
    with pytest.raises(ValueError, match="accelerator"):
        resume(run, accelerator="tpu")
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 1)
        with pytest.raises(Interrupted):
            resume(run, data_path="moved", accelerator="cpu", quiet=True)
    finish(run)
    evaluate(run)
    for config in (Run(run).config(), TrainConfig(**load_checkpoint(Run(run).last)[1]["config"])):
        assert (config.data.data_path, config.machine.accelerator) == (str(tmp_path / "moved"), "cpu")


def test_other_data_is_noticed(images: Path, finished: Path, tmp_path: Path) -> None:
    fewer, renamed = (Path(shutil.copytree(images, tmp_path / name)) for name in ("fewer", "renamed"))
    next((fewer / "train" / "r").iterdir()).unlink()
    for split in ("train", "test"):
        (renamed / split / "r").rename(renamed / split / "x")
    with pytest.raises(DataError, match=r"66 training images, but .*last\.safetensors was trained on 67"):
        resume(finished, data_path=str(fewer), quiet=True)
    assert Run(finished).config().data.data_path == str(images)
    assert evaluate(finished, data_path=str(fewer))["images"] == 24
    for use in (resume, evaluate):
        with pytest.raises(DataError, match=r"other classes than .*last\.safetensors.*gone \['r'\], new \['x'\]"):
            use(finished, data_path=str(renamed))


# Files that are missing, damaged, or of something else


def test_a_missing_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"nowhere holds no run: there is no such folder"):
        finish(tmp_path / "nowhere")


def test_a_checkpoint_is_not_a_run(finished: Path) -> None:
    with pytest.raises(RunError, match=r"last\.safetensors is a file; give the folder of the run, such as .*finished$"):
        finish(finished / "last.safetensors")


def test_a_configuration_is_not_a_checkpoint(finished: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json is not a readable.*A checkpoint is the last\.safetensors"):
        evaluate(finished / "config.json")


@pytest.mark.parametrize("moment", ["fsync", "rename"])
def test_a_full_disk_is_named_and_leaves_nothing(
    images: Path, undisturbed: tuple[Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    run = Run(tmp_path / "run")

    def full(_: int, kind: str) -> None:
        if kind == moment and list(run.folder.glob(".last.safetensors.tmp")) and run.last.exists():
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        count_writes(patch, full)
        with pytest.raises(OSError, match=r"run.last\.safetensors could not be written: No space left on device"):
            fit(tiny(images), run.folder, quiet=True)
    assert not list(run.folder.glob(".*.tmp"))
    finish(run.folder)
    assert_same_run(undisturbed[0], run.folder)


def test_a_full_disk_is_named_by_the_log(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run_module.os, "fsync", full)
    with pytest.raises(OSError, match=r"metrics\.jsonl could not be written: No space left"):
        Run(finished).log({})


@pytest.mark.parametrize("size", [0, 5, 1000, -1])
def test_a_truncated_checkpoint_is_named(finished: Path, size: int) -> None:
    file = finished / "last.safetensors"
    os.truncate(file, size if size >= 0 else file.stat().st_size - 1)
    for use in (finish, evaluate):
        with pytest.raises(CheckpointError, match=r"last\.safetensors is not a readable safetensors checkpoint"):
            use(finished)


def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    garbage, foreign, broken, a_list = (tmp_path / name for name in ("garbage", "foreign", "broken", "a_list"))
    garbage.write_bytes(os.urandom(2000))
    save_file({"weight": torch.zeros(2)}, foreign)
    save_file({"weight": torch.zeros(2)}, broken, {"eisnn": '{"config": '})
    save_file({"weight": torch.zeros(2)}, a_list, {"eisnn": "[]"})
    for file, reason in (
        (garbage, "not a readable"),
        (foreign, "no eisnn checkpoint"),
        (broken, "is no JSON"),
        (a_list, r"is \[\], expected a JSON object"),
    ):
        with pytest.raises(CheckpointError, match=f"{file.name}.*{reason}"):
            evaluate(file)


def rewrite(file: Path, change: Callable[[dict[str, torch.Tensor], dict[str, Any]], None]) -> None:
    tensors, metadata = load_checkpoint(file)
    change(tensors, metadata)
    ckpt.save_checkpoint(file, tensors, metadata)


def test_a_checkpoint_without_a_valid_configuration_is_named(finished: Path) -> None:
    rewrite(finished / "last.safetensors", lambda _, metadata: metadata["config"]["network"].update(model="vgg7"))
    with pytest.raises(CheckpointError, match=r"(?s)last\.safetensors holds no valid configuration.*vgg7"):
        evaluate(finished)
    rewrite(finished / "best.safetensors", lambda _, metadata: metadata.pop("config"))
    with pytest.raises(CheckpointError, match=r"best\.safetensors holds no valid configuration"):
        evaluate(finished / "best.safetensors")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda tensors, metadata: metadata["progress"].update(mood="good"), "mood"),
        (lambda tensors, metadata: metadata["progress"].update(epoch="first"), "epoch"),
        (lambda tensors, metadata: metadata.update(progress=[]), "TypeError"),
        (lambda tensors, metadata: metadata.pop("optimizer"), "optimizer"),
        (lambda tensors, metadata: metadata["optimizer"].update(groups=[]), "parameter group"),
        (lambda tensors, metadata: tensors.pop("rng"), "rng"),
        (lambda tensors, metadata: tensors.update(rng=torch.zeros(1, 3)), "rng|RNG|ByteTensor"),
        (lambda tensors, metadata: tensors.pop("meter.line"), r"meter\.line"),
        (lambda tensors, metadata: tensors.update({"meter.line": torch.zeros(3)}), "size"),
        (lambda tensors, metadata: metadata.pop("data"), "does not say what data"),
        (lambda tensors, metadata: metadata.update(data=[]), "does not say what data"),
    ],
)
def test_a_checkpoint_with_odd_progress_is_named(
    finished: Path, change: Callable[[dict[str, Any], dict[str, Any]], None], reason: str
) -> None:
    rewrite(finished / "last.safetensors", change)
    log = (finished / "metrics.jsonl").read_bytes()
    with pytest.raises(CheckpointError, match=rf"(?s)last\.safetensors.*({reason})"):
        finish(finished)
    assert (finished / "metrics.jsonl").read_bytes() == log


@pytest.mark.parametrize("value", [-1e-6, float("nan")])
@pytest.mark.parametrize("name", ["model.layers.0.weight_ei", "model.layers.1.gain_i", "model.readout.weight_ee"])
def test_weights_that_break_dales_law_are_not_loaded(finished: Path, name: str, value: float) -> None:
    def change(tensors: dict[str, torch.Tensor], _: dict[str, Any]) -> None:
        tensors[name].view(-1)[1] = value

    rewrite(finished / "last.safetensors", change)
    for use in (finish, evaluate):
        with pytest.raises(
            CheckpointError, match=rf"(?s)last\.safetensors does not fit.*{name[6:]} violates Dale's law: 1 "
        ):
            use(finished)


def test_a_checkpoint_of_another_model_is_named(images: Path, finished: Path, tmp_path: Path) -> None:
    for other in ({"width": 0.5}, {"circuit": "bn"}, {"model": "mlp"}):
        run = Run(tmp_path / str(other))
        run.create(tiny(images, **other))
        shutil.copy(finished / "last.safetensors", run.last)
        (field, value), *_ = other.items()
        with pytest.raises(
            RunError, match=rf"config\.json: {field} is .{{0,1}}{value}.{{0,1}}, but .*last\.safetensors"
        ):
            finish(run.folder)
        rewrite(run.last, lambda _, metadata, other=other: metadata.update(config=tiny(images, **other).model_dump()))
        with pytest.raises(CheckpointError, match=r"(?s)last\.safetensors does not fit the model"):
            finish(run.folder)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("model.layers.1.initialized", False, "holds no trained network: layers.1 was never initialised"),
        ("model.layers.0.bias", float("nan"), "is damaged: there are values that are not finite in layers.0.bias"),
        ("model.readout.weight_ee", float("inf"), "is damaged: .* not finite in readout.weight_ee"),
        ("model.layers.2.gain_i", float("nan"), "does not fit the model: .*layers.2.gain_i violates Dale's law"),
    ],
)
def test_weights_that_cannot_work_are_one_line_and_code_2(
    finished: Path, capsys: pytest.CaptureFixture[str], name: str, value: float, message: str
) -> None:
    file = finished / "last.safetensors"
    rewrite(file, lambda tensors, _: tensors[name].fill_(value))
    for command in ("resume", "evaluate"):
        assert main([command, str(finished)]) == 2
        assert re.fullmatch(f"eisnn: {re.escape(str(file))} {message}.*\n", capsys.readouterr().err)


@pytest.mark.parametrize("field", ["epoch", "step", "best_epoch", "log_size"])
def test_negative_progress_is_one_line_and_code_2(
    finished: Path, capsys: pytest.CaptureFixture[str], field: str
) -> None:
    file = finished / "last.safetensors"
    rewrite(file, lambda _, metadata: metadata["progress"].update({field: -1}))
    assert main(["resume", str(finished)]) == 2
    wrong = f"{field} must be greater than or equal to 0, got -1"
    assert re.fullmatch(f"eisnn: {re.escape(str(file))} .*{wrong}\n", capsys.readouterr().err)


def test_a_momentum_that_is_not_finite_is_named(finished: Path) -> None:
    rewrite(finished / "last.safetensors", lambda tensors, _: tensors["optimizer.3.momentum_buffer"].fill_(torch.inf))
    with pytest.raises(CheckpointError, match=r"last\.safetensors is damaged: .*optimizer\.3\.momentum_buffer"):
        finish(finished)


def test_weights_alone_cannot_be_continued(finished: Path) -> None:
    shutil.copy(finished / "best.safetensors", finished / "last.safetensors")
    with pytest.raises(CheckpointError, match=r"last\.safetensors holds weights only"):
        finish(finished)


def test_a_tensor_is_missing(finished: Path) -> None:
    rewrite(finished / "last.safetensors", lambda tensors, _: tensors.__delitem__("model.layers.1.bias"))
    with pytest.raises(CheckpointError, match=r"(?s)does not fit the model.*layers\.1\.bias"):
        finish(finished)


# The format


def test_a_checkpoint_is_plain_safetensors_with_its_configuration(images: Path, finished: Path) -> None:
    tensors, metadata = load_checkpoint(finished / "last.safetensors")
    assert load_file(finished / "last.safetensors").keys() == tensors.keys()
    assert metadata["config"] == tiny(images).model_dump(mode="json")
    assert metadata["versions"] == versions()
    assert metadata["versions"]["torch"] == torch.__version__
    parameters = [name for name in tensors if name.startswith("model.") and not name.endswith("initialized")]
    momentum = [name for name in tensors if name.startswith("optimizer.")]
    assert len(parameters) == len(momentum) == 3 * 6 + 3
    assert tensors["rng"].shape[0] == 1


def test_writing_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old file is there whole until the new one is on the disk, whole."""
    file = tmp_path / "file"
    files.write_atomically(file, b"old")
    events = []

    def look(_: int, kind: str) -> None:
        events.append((kind, file.read_bytes(), sorted(f.name for f in tmp_path.iterdir())))

    count_writes(monkeypatch, look)
    files.write_atomically(file, b"new")
    both = [".file.tmp", "file"]
    assert events == [("fsync", b"old", both), ("rename", b"old", both), ("fsync", b"new", ["file"])]


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, 0.1),
    "SGD, momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    "Adam": lambda p: torch.optim.Adam(p, 0.1, amsgrad=True),
    "AdamW": lambda p: torch.optim.AdamW(p, 0.1),
    "NAdam": lambda p: torch.optim.NAdam(p, 0.1),
    "RAdam": lambda p: torch.optim.RAdam(p, 0.1),
    "Adamax": lambda p: torch.optim.Adamax(p, 0.1),
    "Adagrad": lambda p: torch.optim.Adagrad(p, 0.1),
    "Adadelta": lambda p: torch.optim.Adadelta(p, 0.1),
    "RMSprop": lambda p: torch.optim.RMSprop(p, 0.1, momentum=0.5, centered=True),
    "Rprop": lambda p: torch.optim.Rprop(p, 0.1),
    "ASGD": lambda p: torch.optim.ASGD(p, 0.1),
    "Adafactor": lambda p: torch.optim.Adafactor(p, 0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_state_of_any_optimizer_survives(name: str, tmp_path: Path) -> None:
    def build() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
        groups = [{"params": model[0].parameters(), "lr": 0.01}, {"params": model[1].parameters()}]
        return model, OPTIMIZERS[name](groups)

    def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
        for step in steps:
            x = torch.rand(5, 4, generator=torch.Generator().manual_seed(step))
            model(x).pow(2).mean().backward()
            optimizer.step()
            optimizer.zero_grad()

    model, optimizer = build()
    train(model, optimizer, range(4))
    tensors, numbers = ckpt.optimizer_tensors(optimizer)
    ckpt.save_checkpoint(tmp_path / "file", tensors | ckpt.model_tensors(model), {"optimizer": numbers})
    train(model, optimizer, range(4, 8))

    other, fresh = build()
    tensors, metadata = load_checkpoint(tmp_path / "file")
    ckpt.load_model(other, tensors, tmp_path / "file")
    for group in metadata["optimizer"]["groups"]:
        group["lr"] = 7.0  # as older checkpoints have it; the rate is the configuration's
    ckpt.load_optimizer(fresh, tensors, metadata["optimizer"])
    train(other, fresh, range(4, 8))
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_comparing_runs_sees_one_bit(finished: Path, undisturbed: tuple[Path, Result]) -> None:
    """The comparison that the tests above rest on can fail."""
    assert_same_run(undisturbed[0], finished)
    for name in ("model.layers.0.weight_ee", "optimizer.3.momentum_buffer", "rng", "meter.epoch"):
        damaged = finished / "damaged"
        shutil.copy(finished / "last.safetensors", damaged)

        def flip(tensors: dict[str, torch.Tensor], _: dict[str, Any], name: str = name) -> None:
            tensors[name].view(torch.uint8).view(-1)[0] ^= 1

        rewrite(damaged, flip)
        with pytest.raises(AssertionError, match=name):
            assert_same_checkpoint(finished / "last.safetensors", damaged)
        damaged.unlink()
    lines = (finished / "metrics.jsonl").read_text().splitlines(keepends=True)
    (finished / "metrics.jsonl").write_text("".join(lines[:-1]))
    assert records(finished) != records(undisturbed[0])


# Damage that leaves a file readable


@pytest.mark.parametrize("name", ["model.layers.0.weight_ee", "optimizer.3.momentum_buffer", "rng", "meter.epoch"])
def test_a_flipped_bit_is_noticed(finished: Path, name: str) -> None:
    file = finished / "last.safetensors"
    with safe_open(file, "pt") as opened:
        described = opened.metadata()
    tensors = load_file(file)
    tensors[name].view(torch.uint8).view(-1)[0] ^= 1
    save_file(tensors, file, described)
    for use in (finish, evaluate):
        with pytest.raises(CheckpointError, match=r"last\.safetensors is damaged: its digest is not"):
            use(finished)


def test_checkpoints_without_a_digest_are_those_of_older_versions(finished: Path) -> None:
    file = finished / "last.safetensors"
    tensors, metadata = load_checkpoint(file)
    save_file(tensors, file, {"eisnn": json.dumps(metadata)})
    with pytest.raises(CheckpointError, match="digest"):
        evaluate(finished)
    older = {name: value for name, value in metadata.items() if name not in ("format", "arithmetic")}
    older["data"].pop("fingerprint")
    older["progress"].pop("log_digest")
    older["config"] = TrainConfig(**metadata["config"]).json_fields()  # flat
    save_file(tensors, file, {"eisnn": json.dumps(older)})
    assert evaluate(finished)["notes"] == ()
    finish(finished)


def test_metadata_nested_without_end_is_named(tmp_path: Path) -> None:
    file = tmp_path / "deep.safetensors"
    save_file({"weight": torch.zeros(2)}, file, {"eisnn": "[" * 100_000 + "]" * 100_000})
    with pytest.raises(CheckpointError, match=r"deep\.safetensors is damaged: .* is no JSON"):
        evaluate(file)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda tensors: tensors.pop("optimizer.3.momentum_buffer"), r"parameter 3 has the entries \[\]"),
        (
            lambda tensors: tensors.update({"optimizer.3.exp_avg": torch.zeros(1)}),
            r"parameter 3 has the entries \['exp_avg', 'momentum_buffer'\], expected \['momentum_buffer'\]",
        ),
        (lambda tensors: tensors.update({"optimizer.99.momentum_buffer": torch.zeros(1)}), r"parameters \[99\]"),
        (lambda tensors: tensors.update({"optimizer.3.momentum_buffer": torch.zeros(1)}), r"is \[1\], expected \["),
    ],
)
def test_the_state_of_the_optimizer_is_complete(
    finished: Path, change: Callable[[dict[str, torch.Tensor]], None], reason: str
) -> None:
    rewrite(finished / "last.safetensors", lambda tensors, _: change(tensors))
    with pytest.raises(CheckpointError, match=rf"last\.safetensors cannot be continued.*{reason}"):
        finish(finished)


@pytest.mark.parametrize(("field", "value"), [("lr", 0.5), ("tau", 3.0), ("seed", 7), ("time_steps", 3), ("epochs", 9)])
def test_a_configuration_changed_by_hand_is_noticed(images: Path, finished: Path, field: str, value: float) -> None:
    run = Run(finished)
    run.write_config(tiny(images, **{field: value}))
    with pytest.raises(RunError, match=rf"config\.json: {field} is {value}, but .*last\.safetensors was trained with"):
        finish(finished)
    run.write_config(tiny(images, checkpoint_seconds=5))
    finish(finished)


@pytest.mark.parametrize("line", [b"[]", b"{}", b'{"kind": "epoch"}', b"[" * 100_000, b"\xff", b'{"kind": []}', b"1"])
def test_a_line_of_the_log_that_is_no_record_is_named(finished: Path, line: bytes) -> None:
    log = finished / "metrics.jsonl"
    log.write_bytes(log.read_bytes() + line + b"\n")
    with pytest.raises(RunError, match=r"metrics\.jsonl is damaged: line 9 is"):
        Run(finished).metrics()


def test_a_log_that_was_changed_is_noticed(finished: Path) -> None:
    log = finished / "metrics.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"epoch": 1', b'"epoch": 7', 1))
    with pytest.raises(RunError, match=r"metrics\.jsonl is damaged: it is not the one that .*last\.safetensors"):
        finish(finished)


def test_images_that_changed_classes_are_noticed(images: Path, finished: Path, tmp_path: Path) -> None:
    swapped = Path(shutil.copytree(images, tmp_path / "swapped"))
    red, green = (sorted((swapped / "train" / name).iterdir())[0] for name in "rg")
    content = red.read_bytes()
    red.write_bytes(green.read_bytes())
    green.write_bytes(content)
    with pytest.raises(DataError, match=r"other images, labels or preprocessing .*than .*last\.safetensors"):
        resume(finished, data_path=str(swapped), quiet=True)
    assert "is not the one of the training" in evaluate(finished, data_path=str(swapped))["notes"][0]
    assert evaluate(finished)["notes"] == ()


def test_weights_so_large_that_activity_overflows_are_an_error(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = load_trained(finished).model
    with pytest.raises(NonFiniteActivity, match="the input of an E-I network must be >= 0 and finite"):
        network(torch.full((2, 3, 8, 8), torch.inf))

    def overflow(*_: Any) -> None:
        raise NonFiniteActivity("too large")

    monkeypatch.setattr(EIConv2d, "check_input", overflow)
    with pytest.raises(CheckpointError, match=r"last\.safetensors: .* is not finite, its weights are too large"):
        evaluate(finished)


@pytest.mark.parametrize("other", [{"threads": 64}, {"back_end": "compiled 0123456789ab"}])
def test_other_arithmetic_is_a_warning(finished: Path, other: dict[str, Any]) -> None:
    """Another number of threads, and another build of the compiled routines."""
    recorded: list[dict[str, Any]] = []

    def change(_: Any, metadata: dict[str, Any]) -> None:
        recorded.append(dict(metadata["arithmetic"]))
        metadata["arithmetic"].update(other)

    rewrite(finished / "last.safetensors", change)
    assert recorded[0]["back_end"] == build.describe()
    ((name, value),) = other.items()
    with pytest.warns(UserWarning, match=rf"computed with .*'{name}': {value!r}.*not bit for bit"):
        finish(finished)
