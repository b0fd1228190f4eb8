"""`fit` from a user's side: it learns, logs, saves, holds out, stops when it diverges, and shows what it does."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import rich.progress
import torch
from rich.console import Console
from train_runs import SIZE, TEST_IMAGES, TRAIN_IMAGES, interrupt_at, records, tiny

from eisnn.data import Augmentation, DataError, Images, Loader, load
from eisnn.data.config import load_data
from eisnn.interop import evaluate
from eisnn.nn import dale_violations
from eisnn.train import (
    CheckpointError,
    Diverged,
    Interrupted,
    Run,
    RunError,
    build,
    engine,
    evaluation,
    fit,
    loop,
    progress,
    resume,
)
from eisnn.train import loss as objective
from eisnn.train.checkpoint import load_checkpoint, load_model
from eisnn.train.machine import MachineConfig, make_fabric
from eisnn.train.metrics import Meter

STEPS = -(-TRAIN_IMAGES // 16)


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def finished(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of eight epochs without augmentation."""
    run = tmp_path_factory.mktemp("runs") / "finished"
    fit(tiny(images, epochs=8, augmentation=Augmentation()), run, quiet=True)
    return run


def test_it_learns(finished: Path) -> None:
    epochs = Run(finished).metrics()
    assert epochs[-1]["train_loss"] < 0.9 * epochs[0]["train_loss"]
    assert epochs[-1]["test_accuracy"] > 50  # three classes: chance is a third


def test_it_learns_on_the_bundled_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def few(*args: object, **options: object) -> object:
        sample = load("cifar10-sample")
        return type(sample)(sample.name, sample.classes, sample.train[:400], sample.test[:100])

    monkeypatch.setattr("eisnn.data.config.load", few)
    config = tiny(Path(), dataset="cifar10-sample", data_path=None, epochs=4, warmup_epochs=0, lr=0.02)
    fit(config, tmp_path / "run", quiet=True)
    losses = [epoch["train_loss"] for epoch in Run(tmp_path / "run").metrics()]
    assert losses[-1] < losses[0] - 0.02


def test_the_log_is_complete(finished: Path) -> None:
    config = Run(finished).config()
    log = [json.loads(line) for line in Run(finished).metrics_file.read_text().splitlines()]
    expected = []
    for epoch in range(1, 9):
        expected += [("steps", epoch, step) for step in (2, 4, 5)] + [("epoch", epoch, None)]
    assert [(r["kind"], r["epoch"], r.get("step")) for r in log] == expected
    for record in log:
        numbers = {"loss", "accuracy", "firing_rate"}
        if record["kind"] == "steps":
            assert record.keys() == {"kind", "epoch", "step"} | numbers
            continue
        prefixed = {f"{split}_{name}" for split in ("train", "test") for name in numbers}
        assert record.keys() == {
            "kind", "epoch", "lr", "best_accuracy", "seconds", "images_per_second", *prefixed,
        }  # fmt: skip
        assert record["lr"] == loop.learning_rate(record["epoch"] * STEPS - 1, STEPS, config.optimization)
        assert 0 < record["train_firing_rate"] < 1
        assert record["seconds"] > 0
        assert record["images_per_second"] > 0
    assert [r["epoch"] for r in Run(finished).metrics("epoch")] == list(range(1, 9))
    assert Run(finished).metrics("end") == []


def test_epoch_means_are_over_images(finished: Path) -> None:
    """Lines of the log after 2, 4 and 5 steps hold 32, 32 and 3 images; the epoch's means are theirs together."""
    for epoch in range(1, 9):
        lines = [r for r in Run(finished).metrics("steps") if r["epoch"] == epoch]
        total = Run(finished).metrics("epoch")[epoch - 1]
        for name in ("loss", "accuracy"):
            mean = sum(n * line[name] for n, line in zip((32, 32, 3), lines, strict=True)) / TRAIN_IMAGES
            assert total[f"train_{name}"] == pytest.approx(mean, rel=1e-12)


def test_the_result_is_the_last_epochs_accuracy_with_the_best_beside_it(images: Path, tmp_path: Path) -> None:
    # A rate that stays high makes accuracy jump about.
    result = fit(tiny(images, epochs=6, lr=0.1, warmup_epochs=0, seed=1), tmp_path / "run", quiet=True)
    accuracies = [epoch["test_accuracy"] for epoch in Run(tmp_path / "run").metrics()]
    assert result.accuracy == accuracies[-1]
    assert result.best_accuracy == max(accuracies)
    assert accuracies[-1] < max(accuracies), "this test needs a run whose best epoch is not its last"
    assert result.best_epoch == accuracies.index(max(accuracies)) + 1  # the first of equals
    assert result.run_dir == tmp_path / "run"
    assert evaluate(tmp_path / "run")["accuracy"] == result.accuracy
    assert evaluate(tmp_path / "run" / "best.safetensors")["accuracy"] == result.best_accuracy


@pytest.mark.parametrize(
    "changes",
    [{}, {"circuit": "bn"}, {"channels_last": True}, {"precision": "64"}, {"precision": "bf16"}, {"model": "mlp"}],
    ids=str,
)
def test_a_checkpoint_evaluates_to_exactly_what_was_logged(images: Path, tmp_path: Path, changes: dict) -> None:
    config = tiny(images, **changes)
    fit(config, tmp_path / "run", quiet=True)
    epochs = Run(tmp_path / "run").metrics()
    last, best = evaluate(tmp_path / "run"), evaluate(str(tmp_path / "run" / "best.safetensors"))
    assert last["accuracy"] == epochs[-1]["test_accuracy"]
    assert last["loss"] == epochs[-1]["test_loss"]
    assert last["firing_rate"] == epochs[-1]["test_firing_rate"]
    assert best["accuracy"] == epochs[-1]["best_accuracy"]
    assert (last["images"], last["dataset"], last["split"]) == (TEST_IMAGES, "folder", "test split")
    assert last["checkpoint"].endswith("last.safetensors")
    tensors, _ = load_checkpoint(Run(tmp_path / "run").last)
    floats = [t.dtype for name, t in tensors.items() if name.startswith("model.") and t.is_floating_point()]
    assert set(floats) == {torch.float64 if changes.get("precision") == "64" else torch.float32}


def test_evaluating_less_often_changes_nothing_else(images: Path, tmp_path: Path) -> None:
    often, seldom = (fit(tiny(images, epochs=5, evaluate_epochs=n), tmp_path / str(n), quiet=True) for n in (1, 2))
    lines = {n: [r for r in records(tmp_path / str(n)) if r["kind"] == "epoch"] for n in (1, 2)}
    assert ["test_accuracy" in line for line in lines[2]] == [False, True, False, True, True]  # and after the last
    for one, other in zip(lines[1], lines[2], strict=True):
        assert one["train_loss"] == other["train_loss"]
        assert other.get("test_accuracy", one["test_accuracy"]) == one["test_accuracy"]
    assert seldom.accuracy == often.accuracy
    assert seldom.best_accuracy == max(line["test_accuracy"] for line in lines[2] if "test_accuracy" in line)
    assert seldom.best_epoch in (2, 4, 5)
    same, as_well = (load_checkpoint(Run(tmp_path / str(n)).last)[0] for n in (1, 2))
    assert all(torch.equal(same[name], as_well[name]) for name in same)


def test_images_may_have_moved(finished: Path, images: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    moved.symlink_to(images)
    assert evaluate(finished, data_path=str(moved))["accuracy"] == evaluate(finished)["accuracy"]
    with pytest.raises(DataError, match="nowhere"):
        evaluate(finished, data_path=str(tmp_path / "nowhere"))


def test_hold_out_never_touches_the_test_split(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = load_data(tiny(images).data, 2)
    allowed = {image.numpy().tobytes() for image in dataset.train.pixels}
    sizes = []
    make = Loader.__init__

    def watch(self: Loader, images: Images, *args: object, **options: object) -> None:
        assert all(image.numpy().tobytes() in allowed for image in images.pixels)
        sizes.append(len(images))
        make(self, images, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Loader, "__init__", watch)
    fit(tiny(images, hold_out=0.25), tmp_path / "run", quiet=True)
    train, test = sizes
    assert train + test == TRAIN_IMAGES
    assert test == pytest.approx(0.25 * TRAIN_IMAGES, abs=2)
    again = evaluate(tmp_path / "run")
    assert again["accuracy"] == Run(tmp_path / "run").metrics()[-1]["test_accuracy"]
    assert again["split"] == "held-out 25% of the training images"
    assert again["images"] == test


def test_a_part_of_the_images_and_an_ablation_are_remembered(images: Path, tmp_path: Path) -> None:
    config = tiny(images, train_images=31, test_images=9, ablation="epsilon-1e-3", ei_ratio=2)
    fit(config, tmp_path / "run", quiet=True)
    steps = [line["step"] for line in Run(tmp_path / "run").metrics("steps")]
    assert max(steps) == 2  # of 16 and 15 images
    again = evaluate(tmp_path / "run")
    assert (again["images"], Run(tmp_path / "run").config()) == (9, config)
    assert again["accuracy"] == Run(tmp_path / "run").metrics()[-1]["test_accuracy"]


def test_a_run_is_never_overwritten(images: Path, finished: Path) -> None:
    before = {file.name: file.read_bytes() for file in finished.iterdir()}
    with pytest.raises(RunError, match=r"already holds a run .*eisnn resume .*finished.* or choose another folder"):
        fit(tiny(images), finished, quiet=True)
    assert {file.name: file.read_bytes() for file in finished.iterdir()} == before


@pytest.mark.parametrize("left", ["metrics.jsonl", "last.safetensors", "best.safetensors"])
def test_the_rest_of_a_run_is_never_overwritten(images: Path, tmp_path: Path, left: str) -> None:
    (tmp_path / left).write_bytes(b"precious")
    with pytest.raises(RunError, match=left):
        fit(tiny(images), tmp_path, quiet=True)
    assert (tmp_path / left).read_bytes() == b"precious"


def test_a_run_that_cannot_begin_leaves_no_folder(tmp_path: Path, images: Path) -> None:
    with pytest.raises(DataError):
        fit(tiny(tmp_path / "nowhere"), tmp_path / "run", quiet=True)
    with pytest.raises(ValueError, match="at least 32x32"):
        fit(tiny(images, model="vgg8"), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="at least 32x32"):
        fit(tiny(images, model="vgg8", circuit="bn"), tmp_path / "run", quiet=True)
    with pytest.raises(ValueError, match=r"batch_size is 1, but E-I Init .*give 2 or more"):
        fit(tiny(images, batch_size=1), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(RunError, match=r"file is a file, so a run cannot go into .*; choose another folder"):
            fit(tiny(images), place, quiet=True)
    with pytest.raises(RunError, match=r"folder is ''; name one \(--run-dir\)"):
        fit(tiny(images), "", quiet=True)


def test_batch_norm_over_one_image_is_refused_at_the_start(images: Path, tmp_path: Path) -> None:
    twin = {"model": "mlp", "circuit": "bn", "epochs": 1}
    with pytest.raises(ValueError, match=r"batch_size is 11 and there are 67 .* single image.*batch_size 12 would do"):
        fit(tiny(images, batch_size=11, **twin), tmp_path / "run", quiet=True)  # 67 = 6 * 11 + 1
    with pytest.raises(ValueError, match="batch_size is 1 and"):
        fit(tiny(images, batch_size=1, **twin), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
    for k, fine in enumerate((twin | {"batch_size": 12}, {"batch_size": 11}, {"batch_size": 11, "circuit": "bn"})):
        fit(tiny(images, **fine), tmp_path / str(k), quiet=True)


def test_nothing_is_pickled(finished: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("pickle was used")

    for name in ("dump", "dumps", "load", "loads", "Pickler", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    monkeypatch.setattr(torch, "save", refuse)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 3)
        with pytest.raises(Interrupted):
            fit(tiny(images), tmp_path / "run", quiet=True)
    resume(tmp_path / "run", quiet=True)
    evaluate(tmp_path / "run")
    assert {file.suffix for file in finished.glob("[!.]*")} == {".json", ".jsonl", ".safetensors"}


def test_another_seed_is_another_run_and_the_same_seed_the_same(images: Path, tmp_path: Path) -> None:
    losses = []
    for k, seed in enumerate((0, 0, 1)):
        fit(tiny(images, epochs=1, seed=seed), tmp_path / str(k), quiet=True)
        losses.append(records(tmp_path / str(k))[-1]["train_loss"])
    assert losses[0] == losses[1] != losses[2]


def test_the_learning_rate_is_set_at_every_step(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    step = torch.optim.SGD.step

    def watch(self: torch.optim.SGD, *args: object) -> object:
        used.append(self.param_groups[0]["lr"])
        return step(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.optim.SGD, "step", watch)
    config = tiny(images)
    fit(config, tmp_path / "run", quiet=True)
    assert used == [loop.learning_rate(k, STEPS, config.optimization) for k in range(2 * STEPS)]


def test_bf16_trains_and_keeps_dales_law(images: Path, tmp_path: Path) -> None:
    config = tiny(images, precision="bf16", epochs=4, augmentation=Augmentation())
    fit(config, tmp_path / "run", quiet=True)
    losses = [epoch["train_loss"] for epoch in Run(tmp_path / "run").metrics()]
    assert all(torch.tensor(losses).isfinite())
    assert losses[-1] < losses[0]
    model = build.new_network(config, load_data(config.data, config.network.time_steps))
    load_model(model, load_checkpoint(Run(tmp_path / "run").last)[0], Run(tmp_path / "run").last)
    assert dale_violations(model) == {}
    exact = tmp_path / "exact"
    fit(config.changed(precision="32"), exact, quiet=True)
    assert records(exact)[-1]["train_loss"] != losses[-1], "bf16 changed nothing"


def test_tensorboard_events_are_written(images: Path, tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    fit(tiny(images, tensorboard=True), tmp_path / "run", quiet=True)
    events = event_accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    epochs = Run(tmp_path / "run").metrics()
    logged = [event.value for event in events.Scalars("epoch/test_accuracy")]
    assert logged == pytest.approx([epoch["test_accuracy"] for epoch in epochs])
    assert [event.step for event in events.Scalars("steps/loss")] == [2, 4, 5, 7, 9, 10]


def test_channels_last_is_the_memory_format_of_the_kernels(images: Path) -> None:
    for channels_last in (False, True):
        config = tiny(images, channels_last=channels_last)
        weight = build.new_network(config, load_data(config.data, config.network.time_steps)).layers[1].weight_ee  # type: ignore[index, union-attr]
        assert weight.is_contiguous(memory_format=torch.channels_last) == channels_last


# Divergence


def test_a_diverged_run_stops_and_says_where(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = 0

    def explode(*args: Any) -> torch.Tensor:
        nonlocal steps
        steps += 1
        return engine_loss(*args) * (torch.nan if steps == STEPS + 3 else 1)

    engine_loss = objective.cross_entropy
    monkeypatch.setattr(objective, "cross_entropy", explode)
    with pytest.raises(Diverged, match=r"the loss is not finite at epoch 2, step 3\. .*lower learning rate.*last.safe"):
        fit(tiny(images, checkpoint_seconds=0), tmp_path / "run", quiet=True)
    *_, end = records(tmp_path / "run")
    assert end == {"kind": "end", "reason": "the loss is not finite at epoch 2, step 3"}
    assert_finite(tmp_path / "run")
    assert load_checkpoint(Run(tmp_path / "run").last)[1]["progress"]["step"] == 2


def assert_finite(run: Path) -> None:
    tensors, _ = load_checkpoint(Run(run).last)
    assert all(bool(tensor.isfinite().all()) for tensor in tensors.values())
    assert 0 <= evaluate(run)["accuracy"] <= 100


@pytest.mark.parametrize("circuit", ["ei", "bn"])
def test_a_huge_learning_rate_diverges(images: Path, tmp_path: Path, circuit: str) -> None:
    config = tiny(images, circuit=circuit, lr=1e38, lr_start=1e38, checkpoint_seconds=0)
    with pytest.raises(Diverged, match=r"not finite at epoch \d, step \d"):
        fit(config, tmp_path / "run", quiet=True)
    assert all(bool(tensor.isfinite().all()) for tensor in load_checkpoint(Run(tmp_path / "run").last)[0].values())
    if circuit == "ei":  # finite weights, but too large to work with
        with pytest.raises(CheckpointError, match=r"last\.safetensors: what a layer receives .* is not finite"):
            evaluate(tmp_path / "run")
    # Resumed, it diverges again, at the same place.
    before = records(tmp_path / "run")
    with pytest.raises(Diverged):
        resume(tmp_path / "run", quiet=True)
    assert records(tmp_path / "run") == before


def test_a_gradient_that_is_not_finite_stops_the_run(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a finite loss."""
    steps, loss = 0, objective.cross_entropy

    def flawed(*args: torch.Tensor) -> torch.Tensor:
        nonlocal steps
        steps += 1
        value = loss(*args)
        if steps == 3:
            value.register_hook(lambda gradient: gradient * torch.nan)
        return value

    monkeypatch.setattr(objective, "cross_entropy", flawed)
    with pytest.raises(Diverged, match="a gradient is not finite at epoch 1, step 3"):
        fit(tiny(images, checkpoint_seconds=0), tmp_path / "run", quiet=True)
    assert_finite(tmp_path / "run")


@pytest.mark.parametrize("where", ["momentum", "running_var"])
def test_what_is_not_finite_behind_a_finite_loss_is_found_before_it_is_saved(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    set_rate, steps, losses = loop.set_learning_rate, 0, []
    network: list[torch.nn.Module] = []
    make, loss = engine.new_network, objective.cross_entropy

    def poison(optimizer: torch.optim.Optimizer, lr: float) -> None:
        nonlocal steps
        set_rate(optimizer, lr)
        steps += 1
        if steps == STEPS:
            layer = network[0].layers[-1]  # type: ignore[union-attr, index]
            if where == "momentum":  # -inf - inf * lr is clamped to 0 for ever
                momentum = optimizer.state[layer.weight_ee]["momentum_buffer"]  # type: ignore[union-attr]
                momentum[0, 0] = torch.inf
            else:
                layer.norm.running_var[0] = torch.inf  # type: ignore[union-attr, index, operator]

    def build_it(*args: object) -> torch.nn.Module:
        network.append(make(*args))  # type: ignore[arg-type]
        return network[-1]

    def remember(*args: torch.Tensor) -> torch.Tensor:
        losses.append(loss(*args))
        return losses[-1]

    monkeypatch.setattr(engine, "new_network", build_it)
    monkeypatch.setattr(loop, "set_learning_rate", poison)
    monkeypatch.setattr(objective, "cross_entropy", remember)
    config = tiny(images, checkpoint_seconds=0, circuit="bn" if where == "running_var" else "ei")
    with pytest.raises(Diverged, match=f"a weight or its momentum is not finite at epoch 1, step {STEPS}"):
        fit(config, tmp_path / "run", quiet=True)
    assert all(value.isfinite() for value in losses), "the loss gave it away"
    assert_finite(tmp_path / "run")


def test_a_run_that_breaks_dales_law_is_not_saved(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "enforce_dale", lambda *_, **__: None)
    with pytest.raises(RuntimeError, match=r"Dale's law is violated, the run was not saved.*weight_e"):
        fit(tiny(images, lr=0.5, warmup_epochs=0), tmp_path / "run", quiet=True)
    assert_finite(tmp_path / "run")


# What a person sees


def watch_console(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> io.StringIO:
    out = io.StringIO()
    monkeypatch.setattr(
        progress, "Console", lambda **options: Console(file=out, force_terminal=terminal, width=80, **options)
    )
    return out


def test_a_terminal_shows_a_bar(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = watch_console(monkeypatch, terminal=True)
    update = rich.progress.Progress.update

    def update_and_draw(bar: rich.progress.Progress, *args: object, **fields: object) -> None:
        update(bar, *args, **fields)  # type: ignore[arg-type]
        bar.refresh()  # a run this short may end before the bar draws itself

    monkeypatch.setattr(rich.progress.Progress, "update", update_and_draw)
    fit(tiny(images), tmp_path / "run")
    text = out.getvalue()
    for epoch in (1, 2):
        bar = next(part for part in text.split("\x1b[2K") if f"epoch {epoch}/2" in part and "images/s" in part)
        for word in ("━", "loss", "acc", "spikes/step", "images/s"):
            assert word in bar
    assert "0:0" in text or "-:--" in text  # time left


def test_without_a_terminal_each_epoch_is_one_line(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = watch_console(monkeypatch, terminal=False)
    fit(tiny(images), tmp_path / "run")
    summary, *lines = out.getvalue().splitlines()
    config = tiny(images)
    model = build.new_network(config, load_data(config.data, config.network.time_steps))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert summary == (
        f"folder: 3 classes, {TRAIN_IMAGES} training and {TEST_IMAGES} test images; convnet3 (ei), {parameters:,} "
        "parameters; cpu"
    )
    assert len(lines) == 2
    for k, line in enumerate(lines, 1):
        assert line.startswith(f"epoch   {k}/2  train: loss ")
        assert line.endswith(" images/s")
        assert len(line) > 80
        assert "\x1b" not in line


def test_quiet_is_quiet(images: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fit(tiny(images, epochs=1), tmp_path / "run", quiet=True)
    assert capfd.readouterr().out == ""


# Errors of evaluate and of the machine


def test_evaluate_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no .*nothing.*; give a folder or file"):
        evaluate(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match=r"holds no trained network: there is no last\.safetensors and no model"):
        evaluate(tmp_path)


def test_cuda_must_be_there(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match="accelerator is 'cuda' and devices is 1, but torch finds 0 CUDA devices"):
        fit(tiny(images, accelerator="cuda"), tmp_path / "run", quiet=True)
    assert make_fabric(MachineConfig(accelerator="auto")).device.type == "cpu"
    assert not (tmp_path / "run").exists()


def test_a_meter_averages_over_images() -> None:
    meter = Meter(torch.device("cpu"))
    right, wrong = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]] * 3)
    meter.update(right, torch.zeros(1, dtype=torch.int64), torch.tensor(2.0), torch.tensor(0.1))
    meter.update(wrong, torch.zeros(3, dtype=torch.int64), torch.tensor(1.0), None)
    meter.update(wrong, torch.zeros(3, dtype=torch.int64), torch.tensor(1.0), torch.tensor(0.5))
    values = meter.read(lambda sums: sums)
    assert values == pytest.approx({"loss": 8 / 7, "accuracy": 100 / 7, "firing_rate": 0.4})
    assert Meter(torch.device("cpu")).read(lambda sums: sums) == {"loss": 0, "accuracy": 0, "firing_rate": 0}


def test_the_firing_rate_is_that_of_the_spikes(images: Path) -> None:
    config = tiny(images, circuit="bn")
    model = build.new_network(config, load_data(config.data, config.network.time_steps))
    rates = evaluation.FiringRate(model)
    x = torch.rand(3, 3, SIZE, SIZE)
    spikes = []
    for layer in model.layers:  # type: ignore[union-attr]
        layer.register_forward_hook(lambda module, args, out: spikes.append(out if torch.is_tensor(out) else out[0]))
    with rates.measure(True):
        model(x)
    expected = sum(float(s.detach().mean()) for s in spikes) / 3
    assert expected > 0
    assert float(rates.take()) == pytest.approx(expected)  # type: ignore[arg-type]
    model(x)
    assert rates.take() is None
