"""The recorded training step, with a graph that stands for CUDA's."""

from contextlib import contextmanager
from typing import ClassVar

import pytest
import torch
from train_runs import records, tiny

from eisnn.data import Augmentation
from eisnn.train import engine, fit, step
from eisnn.train.checkpoint import load_checkpoint


class Graph:
    """Does at each replay what was recorded, as CUDA does: reads the batch that was there then, and leaves the
    gradients in the memory that they had then."""

    made: ClassVar[list["Graph"]] = []

    def __init__(self) -> None:
        self.again = None
        Graph.made.append(self)

    def pool(self):
        return 0

    def replay(self) -> None:
        self.again()


class Recorded(step.RecordedStep):
    """On the CPU. What is recorded does not run, but has its memory."""

    recording = None

    def gradients(self, batch, measured):
        if Recorded.recording is None:
            return super().gradients(batch, measured)
        pointers, parameters = [x.data_ptr() for x in step._tensors(batch)], list(self.bare.parameters())
        assert all(parameter.grad is None for parameter in parameters)
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, torch.nan)
        left = [parameter.grad for parameter in parameters]

        def again() -> None:
            assert [x.data_ptr() for x in step._tensors(batch)] == pointers
            assert all(parameter.grad is None for parameter in parameters)
            super(Recorded, self).gradients(batch, measured)
            for parameter, gradient in zip(parameters, left, strict=True):
                gradient.copy_(parameter.grad)
                parameter.grad = None

        Recorded.recording.again = again
        return None

    def update(self):
        if Recorded.recording is None:
            super().update()
            return
        parameters = list(self.bare.parameters())
        held, rates = [p.grad for p in parameters], [group["lr"] for group in self.optimizer.param_groups]
        assert all(isinstance(rate, torch.Tensor) for rate in rates)  # a number would be that of this step for ever

        def again() -> None:
            assert [group["lr"] for group in self.optimizer.param_groups] == rates
            for parameter, gradient in zip(parameters, held, strict=True):
                parameter.grad = gradient
            super(Recorded, self).update()

        Recorded.recording.again = again
        self.optimizer.zero_grad()


@pytest.fixture
def recorded(monkeypatch):
    @contextmanager
    def graph(made, pool=None, stream=None):
        Recorded.recording = made
        yield
        Recorded.recording = None

    class Stream:
        def __init__(self, *_):
            pass

        def wait_stream(self, other):
            pass

    @contextmanager
    def on(stream):
        yield

    Graph.made = []
    for name, value in [("CUDAGraph", Graph), ("graph", graph), ("Stream", Stream), ("stream", on)]:
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda *_: Stream())
    monkeypatch.setattr(engine, "RecordedStep", Recorded)
    monkeypatch.setattr(engine, "can_be_recorded", lambda config, fabric: True)
    return Graph


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "orthogonal", "precision": "64"},  # in single precision rounding would grow with the steps
        {"average": 0.8},
        {"augmentation": Augmentation(cutmix=1.0)},
        {"precision": "64"},
    ],
    ids=["sgd", "orthogonal", "average", "mixed", "double"],
)
def test_it_trains_as_the_step_that_is_not_recorded(tmp_path, images, recorded, changes):
    """Five batches an epoch, the last one smaller."""
    config = tiny(images, epochs=3, **changes)
    fit(config, tmp_path / "recorded", quiet=True)
    assert len(recorded.made) == 4  # two, with and without firing rates, which the first step of an epoch measures
    fit(config.changed(cuda_graph=False), tmp_path / "plain", quiet=True)
    assert len(recorded.made) == 4
    for one, other in zip(*(records(tmp_path / name) for name in ("recorded", "plain")), strict=True):
        assert one.pop("kind") == other.pop("kind")
        assert one == pytest.approx(other, rel=1e-3)
    last = [load_checkpoint(tmp_path / name / "last.safetensors")[0] for name in ("recorded", "plain")]
    assert last[0].keys() == last[1].keys()
    for name, value in last[0].items():
        torch.testing.assert_close(value, last[1][name], rtol=1e-3, atol=1e-5)


def test_a_recording_that_fails_says_how_to_go_on(tmp_path, images, recorded, monkeypatch):
    @contextmanager
    def fails(*_, **__):
        raise RuntimeError("operation not permitted when stream is capturing")
        yield

    monkeypatch.setattr(torch.cuda, "graph", fails)
    with pytest.raises(RuntimeError, match=r"not permitted .*--no-cuda-graph"):
        fit(tiny(images), tmp_path / "run", quiet=True)
    assert (tmp_path / "run" / "last.safetensors").exists()
    result = engine.resume(tmp_path / "run", cuda_graph=False, quiet=True)
    assert result.best_epoch > 0
