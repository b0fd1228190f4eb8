"""Two CPU processes (gloo) do what one process does, and stop together.

One script does everything in two processes, which Lightning Fabric starts; the tests look at what it left. Each part
writes what its process saw to `NAME-RANK`.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from train_runs import interrupt_at, keep_first_checkpoints, records, tiny, with_options, write_images

from eisnn.data.config import load_data, train_loader
from eisnn.interop import evaluate
from eisnn.train import Interrupted, Run, build, fit, resume
from eisnn.train.checkpoint import load_checkpoint

SCRIPT = """
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from train_runs import interrupt_at, keep_first_checkpoints, tiny, with_options

from eisnn.nn import EIConv2d, NonFiniteActivity
from eisnn.train import Diverged, Interrupted, RunError, engine, fit, resume
from eisnn.train import loss as objective

images, out = map(Path, sys.argv[1:])
config = tiny(images, devices=2, precision="64", checkpoint_seconds=0)


def report(name, act):
    try:
        what = str(act())
    except (Diverged, Interrupted, RunError) as error:
        what = f"{type(error).__name__}: {error}"
    (out / f"{name}-{os.environ['LOCAL_RANK']}").write_text(what)


with pytest.MonkeyPatch.context() as patch:
    keep_first_checkpoints(patch)
    report("plain", lambda: fit(config, out / "plain", quiet=True).accuracy)
second = os.environ["LOCAL_RANK"] == "1"

report("exists", lambda: fit(config, out / "plain", quiet=True))

with pytest.MonkeyPatch.context() as patch:  # somebody else claims the folder a moment later
    load = engine.load_data

    def load_and_lose(*args):
        dataset = load(*args)
        (out / "taken").mkdir(exist_ok=True)
        (out / "taken" / "config.json").write_text("theirs")
        return dataset

    patch.setattr(engine, "load_data", load_and_lose)
    patch.setattr(engine.Run, "require_free", lambda self, check=engine.Run.require_free, seen=[]: (
        check(self) if seen else seen.append(1)
    ))
    report("taken", lambda: fit(config, out / "taken", quiet=True))

with pytest.MonkeyPatch.context() as patch:
    interrupt_at(patch, 8 if second else 1000)  # only the second process hears of it, in the second epoch's evaluation
    report("interrupted", lambda: fit(config, out / "pieces", quiet=True))
if not second:
    shutil.copytree(out / "pieces", out / "fewer")
report("resumed", lambda: resume(out / "pieces", quiet=True).accuracy)
report("more", lambda: resume(out / "more", devices=2, quiet=True).accuracy)

with pytest.MonkeyPatch.context() as patch:
    loss, steps = objective.cross_entropy, []

    def explode(*args):
        steps.append(1)
        return loss(*args) * (torch.nan if second and len(steps) == 7 else 1)

    patch.setattr(objective, "cross_entropy", explode)
    report("diverged", lambda: fit(config, out / "diverged", quiet=True))

with pytest.MonkeyPatch.context() as patch:
    check, looked = EIConv2d.check_input, []

    def overflow(self, *args):
        if not torch.is_grad_enabled() and second:
            looked.append(1)
            if len(looked) == 4:  # the first layer, at the second batch of the first evaluation
                raise NonFiniteActivity("too large")
        check(self, *args)

    patch.setattr(EIConv2d, "check_input", overflow)
    report("overflowed", lambda: fit(config, out / "overflowed", quiet=True))

report("options", lambda: fit(with_options(images, out, devices=2), out / "options", quiet=True).average_accuracy)

twin = config.changed(circuit="bn", precision="32")
with pytest.MonkeyPatch.context() as patch:
    keep_first_checkpoints(patch)
    report("bn", lambda: fit(twin, out / "bn", quiet=True).accuracy)
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


def environment(folder: Path) -> dict[str, str]:
    """Without traces of an earlier launch, which would make this process one of two."""
    launch = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_", "SLURM_")
    mine = {k: v for k, v in os.environ.items() if not k.startswith(launch)}
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    return mine | {"EISNN_DATA": str(folder), "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


@pytest.fixture(scope="module")
def together(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with all that two processes left."""
    out = tmp_path_factory.mktemp("together")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EISNN_DATA", str(out))
        interrupt_at(patch, 8)  # in the second epoch
        with pytest.raises(Interrupted):
            fit(tiny(images, precision="64", checkpoint_seconds=0), out / "more", quiet=True)
    (out / "script.py").write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, str(out / "script.py"), str(images), str(out)],
        env=environment(out),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(f"two processes hung:\n{process.communicate()[0]}")
    assert process.returncode == 0, output
    return out


@pytest.fixture(scope="module")
def alone(images: Path, together: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("alone") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EISNN_DATA", str(together))
        keep_first_checkpoints(patch)
        fit(tiny(images, precision="64", checkpoint_seconds=0), run, quiet=True)
    return run


def said(together: Path, name: str) -> tuple[str, str]:
    return (together / f"{name}-0").read_text(), (together / f"{name}-1").read_text()


def assert_close(one: Path, other: Path, tolerance: float) -> None:
    (tensors, _), (others, _) = load_checkpoint(one), load_checkpoint(other)
    compared = 0
    for name, tensor in tensors.items():
        if name.startswith(("model.", "optimizer.")) and tensor.is_floating_point():
            assert tensor.dtype == torch.float64
            error = (tensor - others[name]).abs().max() / tensor.abs().max().clamp(min=1e-30)
            assert error < tolerance, name
            compared += 1
    assert compared >= 3 * 6 + 3


def test_ei_init_is_that_of_the_joint_batch(together: Path, alone: Path) -> None:
    assert_close(alone / "step-0", together / "plain" / "step-0", 1e-12)


def test_one_step_is_that_of_the_joint_batch(together: Path, alone: Path) -> None:
    assert_close(alone / "step-1", together / "plain" / "step-1", 1e-10)
    (before, _), (after, _) = load_checkpoint(alone / "step-0"), load_checkpoint(alone / "step-1")
    assert not torch.equal(before["model.layers.0.weight_ee"], after["model.layers.0.weight_ee"])


def test_a_whole_run_is_the_same(together: Path, alone: Path) -> None:
    """Ten steps with augmentation; the last batch of an epoch is 2 + 1 images."""
    assert_close(Run(alone).last, Run(together / "plain").last, 1e-10)
    assert_close(Run(alone).best, Run(together / "plain").best, 1e-10)
    mine, theirs = records(alone), records(together / "plain")
    assert len(mine) == len(theirs) == 2 * (3 + 1)
    for one, two in zip(mine, theirs, strict=True):
        assert one.keys() == two.keys()
        for key, value in one.items():  # rates are measured in float32
            rel = 1e-6 if key.endswith("firing_rate") else 1e-10
            assert two[key] == (value if isinstance(value, str) else pytest.approx(value, rel=rel, abs=0)), key


def test_options_of_training_are_those_of_one_process(
    images: Path, together: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A teacher, averaged weights, mixed images, clipped gradients."""
    monkeypatch.setenv("EISNN_DATA", str(together))
    result = fit(with_options(images, together), tmp_path / "run", quiet=True)
    assert said(together, "options") == (str(result.average_accuracy),) * 2
    last, other = Run(tmp_path / "run").last, Run(together / "options").last
    assert_close(last, other, 1e-9)
    one, two = (load_checkpoint(file)[0] for file in (last, other))
    for name in (name for name in one if name.startswith("average.module") and one[name].is_floating_point()):
        torch.testing.assert_close(two[name], one[name], rtol=1e-9, atol=1e-12)


def test_the_log_is_written_once(together: Path) -> None:
    epochs = Run(together / "plain").metrics()
    assert [epoch["epoch"] for epoch in epochs] == [1, 2]


def test_both_processes_return_the_result(together: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EISNN_DATA", str(together))
    accuracy = Run(together / "plain").metrics()[-1]["test_accuracy"]
    assert said(together, "plain") == (str(accuracy), str(accuracy))
    assert evaluate(together / "plain")["accuracy"] == accuracy  # in one process


def test_an_existing_run_is_an_error_on_both(together: Path) -> None:
    for message in said(together, "exists"):
        assert message.startswith("RunError: ")
        assert "already holds a run" in message


def test_a_run_that_appears_meanwhile_is_an_error_on_both(together: Path) -> None:
    for message in said(together, "taken"):
        assert message.startswith("RunError: ")
        assert "already holds a run" in message
    assert (together / "taken" / "config.json").read_text() == "theirs"


def test_both_stop_when_one_is_interrupted_and_continue_bit_for_bit(together: Path) -> None:
    for message in said(together, "interrupted"):
        assert message == f"Interrupted: stopped; continue with: eisnn resume {together / 'pieces'}"
    assert said(together, "resumed") == said(together, "plain")
    whole, pieces = Run(together / "plain"), Run(together / "pieces")
    assert records(whole.folder) == records(pieces.folder)
    for one, other in ((whole.last, pieces.last), (whole.best, pieces.best)):
        (tensors, _), (others, _) = load_checkpoint(one), load_checkpoint(other)
        assert tensors.keys() == others.keys()
        for name in tensors:
            assert torch.equal(tensors[name], others[name]), name
    assert load_checkpoint(whole.last)[0]["rng"].shape[0] == 2


def test_a_run_continues_in_fewer_processes(
    together: Path, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EISNN_DATA", str(together))
    run = Run(Path(shutil.copytree(together / "fewer", tmp_path / "run")))
    progress = load_checkpoint(run.last)[1]["progress"]
    assert (progress["epoch"], run.config().machine.devices) == (1, 2)
    resume(run.folder, devices=1, quiet=True)
    assert run.config().machine.devices == 1
    assert_close(Run(alone).last, run.last, 1e-10)
    assert_close(Run(alone).best, run.best, 1e-10)
    assert run.metrics()[-1]["test_accuracy"] == Run(alone).metrics()[-1]["test_accuracy"]


def test_a_run_continues_in_more_processes(together: Path, alone: Path) -> None:
    run = Run(together / "more")
    assert said(together, "more") == said(together, "plain")
    assert run.config().machine.devices == 2
    assert load_checkpoint(run.last)[0]["rng"].shape[0] == 2
    assert_close(Run(alone).last, run.last, 1e-10)
    assert [epoch["epoch"] for epoch in run.metrics()] == [1, 2]


def test_both_stop_when_one_diverges(together: Path) -> None:
    for message in said(together, "diverged"):
        assert message.startswith("Diverged: the loss is not finite at epoch 2, step 2. ")
    tensors, metadata = load_checkpoint(Run(together / "diverged").last)
    assert metadata["progress"]["step"] == 1
    assert all(bool(tensor.isfinite().all()) for tensor in tensors.values())


def test_both_stop_when_activity_overflows_in_the_evaluation_of_one(together: Path) -> None:
    """Neither waits for the other, and what they do next they do together."""
    for message in said(together, "overflowed"):
        assert message.startswith(
            "Diverged: what a layer receives in the evaluation is not finite at epoch 1, step 5"
        ), message
    assert Run(together / "overflowed").last.exists()


def test_the_twin_trains_too(together: Path) -> None:
    one, other = said(together, "bn")
    assert one == other
    assert 0 <= float(one) <= 100


def test_the_twin_normalizes_by_the_part_of_each_process(
    together: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its running statistics are those of the first process's images."""
    monkeypatch.setenv("EISNN_DATA", str(together))
    config = tiny(images, circuit="bn")
    dataset = load_data(config.data, config.network.time_steps)
    tensors, _ = load_checkpoint(together / "bn" / "step-1")

    def agrees(**sharing: int) -> bool:
        torch.manual_seed(config.seed)
        model = build.new_network(config, dataset).train()
        model(next(train_loader(config.data, dataset, config.seed, **sharing).epoch()).images)
        means = {f"model.{name}": value for name, value in model.state_dict().items() if "running_mean" in name}
        assert means
        return all(torch.allclose(value, tensors[name], rtol=1e-4, atol=1e-6) for name, value in means.items())

    assert agrees(rank=0, world_size=2)
    assert not agrees()


def nodes(rank: int, port: int) -> dict[str, str]:
    return {"NODE_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def slurm(rank: int, port: int) -> dict[str, str]:
    return {
        "SLURM_JOB_ID": "4242",
        "SLURM_JOB_NAME": "train",
        "SLURM_NODELIST": "127.0.0.1",
        "SLURM_NNODES": "2",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "1",
        "SLURM_NODEID": str(rank),
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": "0",
        "MASTER_PORT": str(port),
    }


ON_ONE_NODE = """
import sys
from pathlib import Path

from train_runs import tiny

from eisnn.train import fit

images, run = map(Path, sys.argv[1:])
fit(tiny(images, num_nodes=2, precision="64"), run, quiet=True)
"""


@pytest.mark.parametrize("launcher", [nodes, slurm])
def test_two_nodes_do_what_one_process_does(
    launcher: Callable[[int, int], dict[str, str]], images: Path, alone: Path, tmp_path: Path
) -> None:
    """As the how-to says to start them; both nodes are this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", ON_ONE_NODE, str(images), str(tmp_path / "run")],
            env=environment(tmp_path) | launcher(rank, port),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        for process in running:
            output, _ = process.communicate(timeout=120)
            assert process.returncode == 0, output
    finally:
        for process in running:
            process.kill()
    run = Run(tmp_path / "run")
    assert load_checkpoint(run.last)[0]["rng"].shape[0] == 2
    assert_close(Run(alone).last, run.last, 1e-10)


def test_ctrl_c_in_a_terminal_stops_both_processes(images: Path, tmp_path: Path) -> None:
    """A terminal sends SIGINT to every process of the group."""
    run = Run(tmp_path / "run")
    options = {
        "--dataset": "folder",
        "--data-path": str(images),
        "--devices": "2",
        "--accelerator": "cpu",
        "--width": "0.25",
        "--epochs": "100000",
        "--run-dir": str(run.folder),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "eisnn.cli", "train", "demo", *(word for pair in options.items() for word in pair)],
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not run.metrics("steps") and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, errors
    assert errors.count(f"eisnn: stopped; continue with: eisnn resume {run.folder}") == 1, errors
    assert "Traceback" not in errors
    progress = load_checkpoint(run.last)[1]["progress"]
    assert json.loads(run.metrics_file.read_text().splitlines()[-1])["epoch"] >= progress["epoch"]
