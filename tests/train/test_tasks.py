"""Cognitive tasks are trained on as other data are: the answer is that of the decision, and the twin has free signs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from train_runs import assert_same_run, interrupt_at

import eisnn
from eisnn.data import Batch, Loader, load
from eisnn.interop import evaluate, load_trained
from eisnn.train import Interrupted, TrainConfig, fit, recipe, resume
from eisnn.train.loss import Objective, ObjectiveConfig

TRIALS = {"train_trials": 67, "test_trials": 24}
both = pytest.mark.parametrize("name", ["perceptual-decision", "perceptual-decision-unconstrained"])


def tiny(name: str, **changes: Any) -> TrainConfig:
    fields = {"width": 0.25, "trials": TRIALS, "epochs": 2, "warmup_epochs": 0, "batch_size": 16, "log_steps": 2}
    return recipe(name).changed(**fields | {"accelerator": "cpu", "checkpoint_seconds": 1e6} | changes)


@pytest.mark.parametrize(
    ("steps", "message"), [(0, "answer_steps must be an int >= 1"), (9, "more than the time_steps, 4")]
)
def test_an_answer_is_of_steps_that_there_are(steps: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        eisnn.create_model("mlp-64", time_steps=4, answer_steps=steps)


@both
def test_a_run_is_complete_and_resumes_bit_for_bit(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(name)
    fit(config, tmp_path / "whole", quiet=True)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 4)
        with pytest.raises(Interrupted):
            fit(config, tmp_path / "pieces", quiet=True)
    resume(tmp_path / "pieces", quiet=True)
    assert_same_run(tmp_path / "pieces", tmp_path / "whole")


@both
def test_it_learns_and_keeps_its_signs(name: str, tmp_path: Path) -> None:
    config = tiny(name, width=0.5, trials={"train_trials": 1920, "test_trials": 300}, batch_size=64, epochs=3, lr=0.01)
    result = fit(config, tmp_path / "run", quiet=True)
    assert result.accuracy >= 75
    found = evaluate(tmp_path / "run")
    assert (found["accuracy"], found["images"], found["kind"]) == (result.accuracy, 300, "trials")
    model = load_trained(tmp_path / "run").model
    assert eisnn.dale_violations(model) == {}
    (layer,) = model.layers
    free = [layer.weight_ee, layer.recurrent_ee, layer.recurrent_pe, model.readout.weight_ee]
    assert all(bool((w < 0).any()) == name.endswith("unconstrained") for w in free)
    assert all((w > 0).any() for w in free)
    assert (layer.weight_ep >= 0).all()


def test_both_start_alike(tmp_path: Path) -> None:
    starts = [eisnn.train.initial_model(tiny(name)).state_dict() for name in both.args[1]]
    for key, value in starts[0].items():
        assert torch.equal(value, starts[1][key])


class Said(nn.Module):
    """Gives the same logits for all it sees."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, images: Tensor, per_step: bool = False) -> Tensor:
        return self.logits if per_step else self.logits[-3:].mean(0)


@pytest.mark.parametrize("loss", ["mean", "tet"])
def test_the_loss_listens_to_the_decision_alone(loss: Any) -> None:
    model = Said(torch.randn(8, 5, 2, generator=torch.Generator().manual_seed(0)))
    batch = Batch(torch.zeros(8, 5, 6, 1, 1), torch.tensor([0, 1, 1, 0, 1]), 1.0)
    value, answer = Objective(ObjectiveConfig(loss=loss), answer_steps=3)(model, batch)
    value.backward()
    assert torch.equal(answer, model.logits[-3:].mean(0))
    touched = model.logits.grad.flatten(1).any(1)
    assert touched.tolist() == [False] * 5 + [True] * 3


def test_an_answer_is_the_mean_over_its_steps() -> None:
    model = eisnn.train.initial_model(tiny("delayed-match", width=1.0))
    frames = next(Loader(load("delayed-match", test_trials=8).test, 8).epoch()).images
    steps = model(frames, per_step=True)
    assert len(steps) == 100
    assert torch.equal(model(frames), steps[-10:].mean(0))
    assert not torch.allclose(model(frames), steps.mean(0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"time_steps": 90}, "trials of delayed-match have 100 steps of 20 ms, and choose in the last 10"),
        ({"answer_steps": 5}, "time_steps and answer_steps must be these, got 100 and 5"),
        ({"answer_steps": 101}, "answer_steps is 101, more than the time_steps, 100"),
        ({"trials": {"dt": 10}}, "have 200 steps of 10 ms"),
        (
            {"trials": {"dt": 10}, "time_steps": 200, "answer_steps": 20},
            "cortex.dt is 20 ms, but the trials have steps",
        ),
        ({"trials": {"dt": 400}}, "the period 'fixation' takes 200 ms"),
        ({"circuit": "ei"}, "cortex has the options of circuit cortex; got circuit 'ei'"),
        ({"dataset": "cifar10", "trials": {"dt": 10}}, "'cifar10' has no dt; leave out what is given"),
    ],
)
def test_what_does_not_fit_is_said(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe("delayed-match").changed(**changes)
