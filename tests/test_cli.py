"""The command line, as a user types it."""

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from train_runs import SIZE, assert_same_run, interrupt_at, tiny

import eisnn
from eisnn import cli, train
from eisnn.data import list_datasets
from eisnn.interop.shared import locate, network_names
from eisnn.methods import ABLATIONS, CIRCUITS
from eisnn.train import Result, Run, TrainConfig, recipe, recipes
from eisnn.train import loss as objective
from eisnn.train.checkpoint import load_checkpoint
from eisnn.train.recipes import by_ending

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(autouse=True)
def _columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")


def run(argv: list[str]) -> int:
    """Exit code of a command; tyro leaves by SystemExit."""
    try:
        return cli.main(argv)
    except SystemExit as error:
        return int(error.code or 0)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[TrainConfig, Path]]:
    """What `eisnn train` asks `fit` to do, without doing it."""
    calls: list[tuple[TrainConfig, Path]] = []

    def fit(config: TrainConfig, run_dir: str) -> Result:
        calls.append((config, Path(run_dir)))
        return Result(Path(run_dir), 50.0, 75.0, 3)

    monkeypatch.setattr(train, "fit", fit)
    return calls


# Start


def test_help_is_quick_and_needs_no_torch() -> None:
    code = """
import resource, sys
from eisnn.cli import main
assert main(["--help"]) == 0
assert main(["--version"]) == 0
heavy = {"torch", "numpy", "lightning", "pydantic", "tyro", "rich"} & set(sys.modules)
assert not heavy, heavy
usage = resource.getrusage(resource.RUSAGE_SELF)
print("CPU", usage.ru_utime + usage.ru_stime)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    *_, last = done.stdout.splitlines()
    assert float(last.split()[1]) < 0.7
    assert done.stdout.startswith("usage: eisnn COMMAND")
    assert eisnn.__version__ in done.stdout


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == run(["-h"]) == run(["help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {command} " in text for command in cli.COMMANDS)
    assert run([]) == 2


def test_an_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["trian"]) == 2
    err = capsys.readouterr().err
    assert err == f"eisnn: unknown command 'trian'; did you mean 'train'? known: {', '.join(cli.COMMANDS)}\n"


@pytest.mark.parametrize("command", ["report", "evaluate", "explore", "cost", "publish"])
def test_a_name_that_is_nothing_is_answered_by_those_that_are(
    command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run([command, "demo_plus", *(["me/net"] if command == "publish" else [])]) == 2
    said = capsys.readouterr().err
    assert said.startswith("eisnn: there is no demo_plus; did you mean 'demo-plus'? give a folder or file, one of")
    assert f"({', '.join(network_names())})" in said
    if command == "evaluate":
        assert run([command, "."]) == 2
        assert ". holds no trained network: there is no last.safetensors" in capsys.readouterr().err


def test_help_is_without_codes_of_the_method(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["train", "demo"], ["report"], ["explore"], ["bench"]):
        assert run([*command, "--help"]) == 0
    assert not re.findall(r"\bP\d+\b", capsys.readouterr().out)


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list"]) == 0
    said = capsys.readouterr().out
    names, listed = said.split("recipes (and endings of their names):")
    assert {k: v.split(", ") for k, v in (line.split(": ") for line in names.splitlines())} == {
        "models": eisnn.list_models(),
        "circuits": list(CIRCUITS),
        "ablations": list(ABLATIONS),
        "data sets": list_datasets(),
        "trained networks": network_names(),
    }
    assert "\n  demo (-bn, -plus, -cortex)\n" in listed
    assert "\n  -bn: the batch-norm twin\n" in listed
    assert run(["list", "models"]) == 2
    assert capsys.readouterr().err == "eisnn: list takes no arguments, got models\n"
    assert run(["list", "--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: eisnn list\n")


# Options of train


@pytest.mark.parametrize("name", ["demo", "cifar10-vgg8", "tiny-imagenet-resnet18-bn"])
def test_without_options_a_recipe_is_itself(asked: list[tuple[TrainConfig, Path]], name: str) -> None:
    assert run(["train", name]) == 0
    assert asked == [(recipe(name), Path("runs") / name)]


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        ("--lr 0.5", "lr", 0.5),
        ("--lr 2e-3", "lr", 2e-3),
        ("--epochs 70", "epochs", 70),
        ("--model mlp", "model", "mlp"),
        ("--circuit bn", "circuit", "bn"),
        ("--precision bf16", "precision", "bf16"),
        ("--precision 64", "precision", "64"),
        ("--tensorboard", "tensorboard", True),
        ("--download", "download", True),
        ("--no-download", "download", False),
        ("--data-path some/where.zip", "data_path", "some/where.zip"),
        ("--data-path None", "data_path", None),
        ("--data_path x", "data_path", "x"),
        ("--hold-out 0.1", "hold_out", 0.1),
        ("--checkpoint-seconds 0", "checkpoint_seconds", 0.0),
        ("--warmup-epochs 0", "warmup_epochs", 0.0),
        ("--optimizer adam", "optimizer", "adam"),
        ("--teacher demo", "teacher", str(locate("demo"))),
        ("--average 0.999", "average", 0.999),
        ("--augmentation.cutmix 1", "augmentation.cutmix", 1.0),
        ("--augmentation.trivial", "augmentation.trivial", True),
        ("--augmentation.no-flip", "augmentation.flip", False),
        ("--augmentation.cutout rectangle", "augmentation.cutout", "rectangle"),
        ("--augmentation.crop-padding 3", "augmentation.crop_padding", 3),
        ("--augmentation.resized-crop 0.2 0.9", "augmentation.resized_crop", (0.2, 0.9)),
        ("--augmentation.resized-crop None", "augmentation.resized_crop", None),
        ("--augmentation.color-jitter 0.1 0.2 0.3 0.4", "augmentation.color_jitter", (0.1, 0.2, 0.3, 0.4)),
        ("--augmentation.color-jitter None", "augmentation.color_jitter", None),
    ],
)
def test_an_option_changes_its_field_and_no_other(
    asked: list[tuple[TrainConfig, Path]], words: str, field: str, value: object
) -> None:
    name = "tiny-imagenet-resnet18"
    assert run(["train", name, *words.split()]) == 0
    expected = recipe(name).fields()
    *parents, leaf = field.split(".")
    place = expected
    for parent in parents:
        place[parent] = place[parent].model_dump()
        place = place[parent]
    assert leaf in place
    place[leaf] = value
    ((config, _),) = asked
    assert config == TrainConfig(**expected)


def test_the_run_folder_and_the_report(asked: list, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "demo", "--run-dir", "here", "--seed", "3"]) == 0
    assert asked == [(recipe("demo").model_copy(update={"seed": 3}), Path("here"))]
    out = capsys.readouterr().out
    assert out == "accuracy after the last epoch: 50.00 % (best 75.00 % after epoch 3); run: here\n"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("--lr -1", ["lr", "greater than 0", "-1.0"]),
        ("--lr fast", ["--lr", "float", "'fast'"]),
        ("--lr inf", ["lr", "finite", "inf"]),
        ("--model vgg7", ["model is 'vgg7'", "known: convnet3, mlp"]),
        ("--circuit xy", ["circuit is 'xy'", "known: backei, bn, bntt, cortex, dann"]),
        ("--dataset mnist", ["dataset is 'mnist'", "cifar10-sample"]),
        ("--surrogate step", ["surrogate is 'step'", "sigmoid"]),
        ("--warmup-epochs 99", ["warmup_epochs is 99.0", "epochs = 25"]),
        ("--epochs 0", ["epochs", "greater than or equal to 1", "got 0"]),
        ("--seed 99999999999999999999999", ["seed", "less than 18446744073709551616", "got 99999999999999999999999"]),
        ("--hold-out 1", ["hold_out", "less than 1", "got 1.0"]),
        ("--precision 16", ["--precision", "'16'", "'bf16'"]),
        ("--accelerator tpu", ["--accelerator", "'tpu'", "'cpu'"]),
        ("--tensorboard maybe", ["Unrecognized options", "maybe"]),
        ("--learning-rate 0.1", ["--learning-rate"]),
        ("--optimizer lion", ["--optimizer", "'lion'", "'adamw'"]),
        ("--adaptive-clipping -1", ["adaptive_clipping", "greater than or equal to 0", "got -1.0"]),
        ("--stochastic-depth 0.1", ["stochastic_depth is for resnets", "'convnet3'"]),
        ("--augmentation.cutout-size 0", ["cutout_size", "greater than or equal to 1", "input_value=0"]),
        ("--augmentation.resized-crop 0.9 0.1", ["resized_crop is (0.9, 0.1)", "smaller area first"]),
        ("--augmentation.resized-crop 0.9", ["--augmentation.resized-crop"]),
        ("--augmentation.blur 1", ["--augmentation.blur"]),
    ],
)
def test_a_wrong_option_is_one_clear_message(
    asked: list, capsys: pytest.CaptureFixture[str], words: str, named: list[str]
) -> None:
    assert run(["train", "demo", *words.split()]) == 2
    out, err = capsys.readouterr()
    assert asked == []
    assert "Traceback" not in err
    assert out == ""
    text = " ".join(err.replace("│", " ").split())
    for part in named:
        assert part in text
    assert len(err.splitlines()) <= 20


def test_a_place_that_cannot_be_used(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(args: list[str]) -> None:
        raise PermissionError(13, "Permission denied", args[0])

    monkeypatch.setitem(cli.COMMANDS, "train", refuse)
    assert run(["train", "far/run"]) == 2
    assert capsys.readouterr().err == "eisnn: far/run cannot be used: Permission denied\n"


def test_an_unknown_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "cifar10-vgg7"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("eisnn: unknown recipe 'cifar10-vgg7'; did you mean 'cifar10-vgg")
    assert "known: cifar10-vgg8 (-bn, -plus, -published, -bn-published, -cortex), cifar10-vgg11 (" in said
    assert run(["train", "--lr", "1"]) == 2
    assert run(["train"]) == 2


def test_names_of_recipes_by_their_endings_are_all_there() -> None:
    told = []
    for line in by_ending(recipes()):
        name, _, endings = line.rstrip(")").partition(" (")
        told += [name, *(f"{name}{ending}" for ending in endings.split(", ") if ending)]
    assert sorted(told) == sorted(recipes())


def test_train_help_explains_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(line in text for line in by_ending(recipes()))
    assert run(["train", "demo", "--help"]) == 0
    text = capsys.readouterr().out
    for name in {*TrainConfig.descriptions()} - {"augmentation", "circuit_options", "cortex"}:
        assert f"--{name.replace('_', '-')}" in text
    assert "--augmentation.cutout" in text
    assert "--cortex.recurrence" in text
    assert "Peak learning rate. (default: 0.003)" in text


@pytest.mark.parametrize("command", ["resume", "evaluate"])
def test_help_of_a_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    assert f"eisnn {command}" in capsys.readouterr().out


# Runs


def options(images: Path, folder: Path, **changes: str) -> list[str]:
    words = {
        "--dataset": "folder",
        "--data-path": str(images),
        "--image-size": str(SIZE),
        "--width": "0.25",
        "--time-steps": "2",
        "--epochs": "2",
        "--warmup-epochs": "0.5",
        "--accelerator": "cpu",
        "--run-dir": str(folder),
    }
    words |= {f"--{name.replace('_', '-')}": value for name, value in changes.items()}
    return ["train", "demo", *(word for pair in words.items() for word in pair)]


def test_train_then_evaluate(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert run(options(images, folder)) == 0
    epochs = Run(folder).metrics()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("folder: 3 classes, 67 training and 24 test images; convnet3 (ei), ")
    assert lines[1].startswith("epoch   1/2  train: loss ")
    accuracy, best = epochs[-1]["test_accuracy"], epochs[-1]["best_accuracy"]
    assert lines[3].startswith(f"accuracy after the last epoch: {accuracy:.2f} % (best {best:.2f} % after epoch ")
    for name, expected in (("", accuracy), ("last.safetensors", accuracy), ("best.safetensors", best)):
        assert run(["evaluate", str(folder / name)]) == 0
        assert capsys.readouterr().out.startswith(f"{expected:.2f} % of 24 images, loss ")
    assert run(options(images, folder)) == 2
    assert f"eisnn resume {folder}" in capsys.readouterr().err
    assert run(["resume", str(folder)]) == 0  # finished: it just reports
    assert capsys.readouterr().out.splitlines() == [lines[3]]


def test_interrupted_and_resumed(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, pieces = tmp_path / "whole", tmp_path / "in pieces"
    assert run(options(images, whole)) == 0
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2)
        assert run(options(images, pieces)) == 130
    assert capsys.readouterr().err == f"eisnn: stopped; continue with: eisnn resume '{pieces}'\n"
    assert run(options(images, pieces)) == 2
    assert f"`eisnn resume '{pieces}'`" in capsys.readouterr().err
    assert run(["resume", str(pieces), "--data-path", str(images), "--accelerator", "cpu", "--devices", "1"]) == 0
    assert_same_run(whole, pieces)


def test_a_diverged_run_exits_with_3(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loss = objective.cross_entropy
    monkeypatch.setattr(objective, "cross_entropy", lambda *args: loss(*args) * float("inf"))
    assert run(options(images, tmp_path / "run")) == 3
    err = capsys.readouterr().err
    assert err.startswith(
        "eisnn: diverged: the loss is not finite at epoch 1, step 1. Resumed, it would diverge again: "
    )
    assert "start a new run (--run-dir) with a lower learning rate (--lr)" in err
    assert err.count("\n") == 1
    assert json.loads(Run(tmp_path / "run").metrics_file.read_text())["kind"] == "end"


@pytest.mark.parametrize("command", ["resume", "evaluate"])
def test_files_that_are_missing_or_damaged(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err
    made = Run(tmp_path / "run")
    made.create(tiny(tmp_path, dataset="cifar10-sample", data_path=None))
    made.last.write_bytes(b"garbage")
    assert run([command, str(made.folder)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"eisnn: {made.last} is not a readable safetensors checkpoint")
    assert err.count("\n") == 1


def test_missing_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(options(tmp_path / "nowhere", tmp_path / "run")) == 2
    assert str(tmp_path / "nowhere") in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_needs_a_name(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = options(images, tmp_path)
    words[words.index("--run-dir") + 1] = ""
    assert run(words) == 2
    assert capsys.readouterr().err == "eisnn: the run's folder is ''; name one (--run-dir), such as runs/NAME\n"


@pytest.mark.parametrize("module", ["pydantic", "eisnn.train"])
def test_ctrl_c_while_it_starts(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C that comes while `module` is being imported."""

    class Finder:
        @staticmethod
        def find_spec(name: str, *_: object) -> None:
            if name == module:
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    assert run(["train", "demo"]) == 130
    assert capsys.readouterr().err == "eisnn: interrupted\n"


def test_ctrl_c_in_a_terminal(images: Path, tmp_path: Path) -> None:
    """A real terminal: it shows the bar, and Ctrl-C typed there saves the run and leaves with code 130."""
    made = Run(tmp_path / "run")
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ |= {"TERM": "xterm-256color", "COLUMNS": "140", "OMP_NUM_THREADS": "1"}
        argv = options(images, made.folder, epochs="100000")
        os.execv(sys.executable, [sys.executable, "-m", "eisnn.cli", *argv])
    shown, status, pressed = "", None, False
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        ready, _, _ = select.select([terminal], [], [], 0.1)
        try:
            shown += os.read(terminal, 65536).decode(errors="replace") if ready else ""
        except OSError:  # the other end is closed
            break
        if not pressed and "images/s" in shown and len(made.metrics()) > 2:
            os.write(terminal, b"\x03")
            pressed = True
    else:
        os.kill(pid, 9)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 130, shown[-2000:]
    assert "eisnn: stopped; continue with: eisnn resume " in shown
    for word in ("━", "loss ", "acc ", " spikes/step", " images/s"):
        assert word in shown
    assert "Traceback" not in shown
    progress = load_checkpoint(made.last)[1]["progress"]
    assert progress["log_size"] == made.log_size()  # it saved at the very end


def test_a_command_flushes_subnormal_numbers_and_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are slow, and dead networks are full of them; the process of a library's user is not ours to change."""
    seen: list[float] = []

    def tiny() -> float:
        return float(torch.tensor(1e-20) * torch.tensor(1e-20))

    monkeypatch.setitem(cli.COMMANDS, "list", lambda args: seen.append(tiny()))
    assert cli.main(["list"]) == 0
    assert seen == [0.0]
    assert tiny() > 0


# Export and cost


def test_an_option_of_another_format_of_export_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", "demo-plus", str(tmp_path / "out"), "--format", "nir", "--division", "shift"]) == 2
    assert capsys.readouterr().err == ("eisnn: --division is of --format c, and would change nothing of --format nir\n")
    assert run(["export", "demo-plus", str(tmp_path / "out"), "--format", "c", "--division", "shift"]) == 0
    assert (tmp_path / "out" / "network.c").exists()


def test_exported_onnx_gives_the_logits_of_the_network_and_the_exporter_is_quiet(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    import onnxruntime

    model, images = eisnn.load("demo-plus"), torch.rand(6, 3, 16, 16)
    with torch.no_grad():
        expected = model(images)
    assert run(["export", "demo-plus", str(tmp_path), "--format", "onnx"]) == 0
    assert capfd.readouterr() == (f"written: {tmp_path / 'network.onnx'}\n", "")
    assert not [w for w in recwarn if issubclass(w.category, FutureWarning)]
    session = onnxruntime.InferenceSession(str(tmp_path / "network.onnx"))
    (logits,) = session.run(["logits"], {"images": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), expected, atol=0.05, rtol=0)


@pytest.mark.slow  # AOTInductor compiles
def test_exported_programs_of_torch_give_the_logits_of_the_network(tmp_path: Path) -> None:
    model, images = eisnn.load("demo-plus"), torch.rand(6, 3, 16, 16)
    assert run(["export", "demo-plus", str(tmp_path), "--format", "torch"]) == 0
    program = torch.export.load(tmp_path / "network.pt2").module()
    compiled = torch._inductor.aoti_load_package(str(tmp_path / "compiled.pt2"))
    with torch.no_grad():
        for exported in (program, compiled):
            torch.testing.assert_close(exported(images), model(images), atol=0.05, rtol=0)


def test_exported_nir_and_checkpoints_of_the_authors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import nir

    assert run(["export", "demo-plus", str(tmp_path / "nir"), "--format", "nir"]) == 0
    graph = nir.read(str(tmp_path / "nir" / "network.nir"))
    assert list(graph.nodes["input"].output_type["output"]) == [3, 16, 16]
    assert run(["export", "demo", str(tmp_path / "authors"), "--format", "authors"]) == 0
    assert run(["evaluate", str(tmp_path / "authors")]) == 0
    accuracy = eisnn.load("demo").about.accuracy
    assert f"{accuracy:.2f} % of 1000 images" in capsys.readouterr().out


@pytest.mark.parametrize("format", ["authors", "c", "nir", "onnx", "torch"])
def test_export_does_not_write_into_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], format: str) -> None:
    file = tmp_path / "taken"
    file.write_text("mine")
    assert run(["export", "demo", str(file), "--format", format]) == 2
    assert capsys.readouterr().err == f"eisnn: {file} is a file; name a folder to write into\n"
    assert file.read_text() == "mine"


def test_cost_writes_numbers_and_a_figure_into_new_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers, picture = tmp_path / "a" / "cost.json", tmp_path / "b" / "cost.svg"
    command = ["cost", "demo-plus", "--images", "3", "--output", str(numbers), "--figure", str(picture)]
    assert run(command) == 0
    found = json.loads(numbers.read_text())
    assert found["synaptic_operations"]["Dense"] == sum(p["dense"] for row in found["layers"] for p in row["pathways"])
    assert f"{found['synaptic_operations']['Dense'] / 1e3:,.1f}" in capsys.readouterr().out
    assert "<svg" in picture.read_text()
    assert run(["cost", "demo-plus", "--images", "0"]) == 2
    assert capsys.readouterr().err == "eisnn: images is 0, expected at least 1\n"
    assert run(["cost", "demo-plus", "--images", "3", "--output", str(tmp_path)]) == 2
    assert "it is a folder; name a file" in capsys.readouterr().err
