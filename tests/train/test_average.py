"""The moving average of the weights: its definition, Dale's law, and that it is kept and evaluated."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from train_runs import records, tiny

import eisnn
from eisnn.cli import main
from eisnn.interop import evaluate, load_trained
from eisnn.nn.options import PLUS
from eisnn.train import CheckpointError, Result, Run, checkpoint, fit, resume
from eisnn.train.average import averaged_weights
from eisnn.train.checkpoint import load_checkpoint

DECAY = 0.8


pytestmark = pytest.mark.usefixtures("own_cache")


def train(images: Path, run: Path, **changes: Any) -> tuple[Result, list[dict[str, Tensor]]]:
    """A run with a checkpoint at every step, and the tensors of all of them."""
    saved: list[dict[str, Tensor]] = []
    real = checkpoint.save_checkpoint

    def save(path: Path, tensors: dict[str, Tensor], metadata: Any) -> None:
        real(path, tensors, metadata)
        if path.name == "last.safetensors":
            saved.append({name: value.detach().clone() for name, value in tensors.items()})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save_checkpoint", save)
        config = tiny(images, average=DECAY, checkpoint_seconds=0, **changes)
        return fit(config, run, quiet=True), saved


@pytest.mark.parametrize("changes", [{}, {"circuit_options": PLUS}, {"optimizer": "adam", "lr": 0.01}], ids=str)
def test_it_is_the_exponential_average_of_the_weights_after_each_step(
    images: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    _, saved = train(images, tmp_path / "run", **changes)
    expected: dict[str, Tensor] = {}
    taken = 0
    for before, after in zip([None, *saved], saved, strict=False):
        weights = {name: w for name, w in after.items() if name.startswith("model.") and w.is_floating_point()}
        if before is not None and any(not torch.equal(w, before[name]) for name, w in weights.items()):
            taken += 1
            old = expected or weights
            expected = {name: torch.lerp(old[name], w, 1 - DECAY) for name, w in weights.items()}
        if taken:
            found = averaged_weights(after)
            assert int(after["average.n_averaged"]) == taken
            for name, value in expected.items():
                torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-7)
                if name.split(".")[-1] not in ("bias",):
                    assert (found[name] >= 0).all()
    assert taken == 10  # steps
    assert any(not torch.equal(expected[name], saved[-1][name]) for name in expected)


@pytest.mark.parametrize("circuit", ["ei", "bn"])
def test_it_is_evaluated_beside_the_weights(images: Path, tmp_path: Path, circuit: str) -> None:
    result, _ = train(images, tmp_path / "run", circuit=circuit)
    *_, last = (line for line in records(tmp_path / "run") if line["kind"] == "epoch")
    assert result.average_accuracy == last["test_average_accuracy"]
    assert result.accuracy == last["test_accuracy"]
    found = evaluate(tmp_path / "run")
    for name in ("loss", "accuracy", "firing_rate"):
        assert found[name] == pytest.approx(last[f"test_{name}"], rel=1e-6)
        assert found[f"average_{name}"] == pytest.approx(last[f"test_average_{name}"], rel=1e-6)
    assert found["average_loss"] != found["loss"]
    assert resume(tmp_path / "run", quiet=True) == result  # a finished run reports it again


def test_it_does_not_change_the_run(images: Path, tmp_path: Path) -> None:
    train(images, tmp_path / "with")
    fit(tiny(images, checkpoint_seconds=0), tmp_path / "without", quiet=True)
    one, other = (load_checkpoint(Run(tmp_path / name).last)[0] for name in ("with", "without"))
    assert {name for name in one if not name.startswith("average.")} == set(other)
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_a_trained_run_has_both_networks(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result, _ = train(images, tmp_path / "run", circuit_options=PLUS)
    trained = load_trained(tmp_path / "run")
    assert eisnn.dale_violations(trained.average) == {}
    weights, average = (model.state_dict() for model in (trained.model, trained.average))
    assert weights.keys() == average.keys()
    assert any(not torch.equal(weights[name], average[name]) for name in weights)
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    assert f"averaged weights {result.average_accuracy:.2f} %" in capsys.readouterr().out
    fit(tiny(images), tmp_path / "plain", quiet=True)
    assert load_trained(tmp_path / "plain").average is None
    assert "average_accuracy" not in evaluate(tmp_path / "plain")


def test_a_checkpoint_that_lost_its_average_is_named(images: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    fit(tiny(images, average=DECAY), run.folder, quiet=True)
    tensors, metadata = load_checkpoint(run.last)
    kept = {name: value for name, value in tensors.items() if not name.startswith("average.")}
    checkpoint.save_checkpoint(run.last, kept, metadata)
    with pytest.raises(CheckpointError, match=r"last\.safetensors cannot be continued"):
        resume(run.folder, quiet=True)
