"""Losses: soft labels, temporal efficient training and a teacher, each by its definition."""

from pathlib import Path

import pytest
import torch
from circuits import rng
from torch import Tensor, nn
from torch.nn import functional as F
from train_runs import tiny, write_images

from eisnn.data import DataError
from eisnn.data.augment.mixing import Mixture
from eisnn.data.config import load_data
from eisnn.data.loader import Batch
from eisnn.train import CheckpointError, TrainConfig, fit
from eisnn.train.checkpoint import load_checkpoint
from eisnn.train.loss import Objective, ObjectiveConfig, cross_entropy, distillation_loss, targets
from eisnn.train.machine import make_fabric
from eisnn.train.run import Run
from eisnn.train.teacher import load_teacher

CLASSES, T = 5, 3
pytestmark = pytest.mark.usefixtures("own_cache")


class Given(nn.Module):
    """Answers with the given logits `[T, B, classes]`."""

    def __init__(self, steps: Tensor) -> None:
        super().__init__()
        self.steps = nn.Parameter(steps)

    def forward(self, images: Tensor, per_step: bool = False) -> Tensor:
        return self.steps if per_step else self.steps.mean(0)


def case(mixed: bool, n: int = 4, seed: int = 0) -> tuple[Given, Batch]:
    steps = torch.randn(T, n, CLASSES, generator=rng(seed), dtype=torch.float64)
    labels = torch.arange(n) % CLASSES
    mixture = Mixture(labels.flip(0), torch.rand(n, generator=rng(seed + 1), dtype=torch.float64)) if mixed else None
    return Given(steps), Batch(torch.zeros(n, 1, 2, 2), labels, 1.0, mixture)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_a_mixture_is_the_mixture_of_losses(smoothing: float) -> None:
    model, batch = case(mixed=True)
    loss, logits = Objective(ObjectiveConfig(label_smoothing=smoothing))(model, batch)
    own, other = (
        F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
        for labels in (batch.labels, batch.mixture.labels)
    )
    share = batch.mixture.share
    torch.testing.assert_close(loss, (share * own + (1 - share) * other).mean())
    soft = targets(batch, CLASSES)
    torch.testing.assert_close(soft.sum(1), torch.ones(4, dtype=torch.float64))
    whole = batch._replace(mixture=Mixture(batch.mixture.labels, torch.ones(4, dtype=torch.float64)))
    unmixed = Objective(ObjectiveConfig(label_smoothing=smoothing))(model, batch._replace(mixture=None))[0]
    torch.testing.assert_close(Objective(ObjectiveConfig(label_smoothing=smoothing))(model, whole)[0], unmixed)


@pytest.mark.parametrize("mixed", [False, True])
def test_tet_is_the_mean_of_each_steps_cross_entropy(mixed: bool) -> None:
    model, batch = case(mixed)
    loss, logits = Objective(ObjectiveConfig(loss="tet", label_smoothing=0.1))(model, batch)
    each = [F.cross_entropy(step, targets(batch, CLASSES), label_smoothing=0.1) for step in model.steps]
    torch.testing.assert_close(loss, sum(each) / T)
    torch.testing.assert_close(logits, model.steps.mean(0))
    mean = Objective(ObjectiveConfig(label_smoothing=0.1))(model, batch)[0]
    assert loss > mean  # Jensen: cross-entropy is convex in the logits
    same = Given(model.steps[:1].expand(T, -1, -1).detach().clone())
    ours, theirs = (Objective(ObjectiveConfig(loss=name))(same, batch)[0] for name in ("tet", "mean"))
    torch.testing.assert_close(ours, theirs)


def test_the_default_is_plain_cross_entropy() -> None:
    model, batch = case(mixed=False)
    loss, logits = Objective(ObjectiveConfig())(model, batch)
    assert torch.equal(loss, F.cross_entropy(model.steps.mean(0), batch.labels))
    assert torch.equal(logits, model.steps.mean(0))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_distillation_vanishes_at_the_teachers_answers_only(temperature: float) -> None:
    logits = torch.randn(6, CLASSES, generator=rng(0), dtype=torch.float64)
    shifted = logits + torch.rand(6, 1, generator=rng(1), dtype=torch.float64)  # the same probabilities
    assert float(distillation_loss(shifted, logits, temperature)) == pytest.approx(0, abs=1e-12)
    other = torch.randn(6, CLASSES, generator=rng(2), dtype=torch.float64).requires_grad_()
    loss = distillation_loss(other, logits, temperature)
    p, q = (logits / temperature).softmax(1), (other / temperature).softmax(1)
    assert float(loss.detach()) == pytest.approx(float((temperature**2 * (p * (p / q).log()).sum(1).mean()).detach()))
    (grad,) = torch.autograd.grad(loss, other)
    torch.testing.assert_close(grad, temperature * (q - p).detach() / 6)


def test_a_teacher_shares_the_loss_with_the_labels() -> None:
    model, batch = case(mixed=False)
    asked: list[Tensor] = []
    answers = torch.randn(4, CLASSES, generator=rng(9), dtype=torch.float64)

    def teacher(images: Tensor) -> Tensor:
        asked.append(images)
        return answers

    config = ObjectiveConfig(distillation=0.3, temperature=2.0)
    loss, logits = Objective(config, teacher)(model, batch)
    assert asked[0] is batch.images  # the same augmentation
    expected = 0.7 * cross_entropy(logits, batch.labels) + 0.3 * distillation_loss(logits, answers, 2.0)
    torch.testing.assert_close(loss, expected)


# A teacher from a run


@pytest.fixture(scope="module")
def twin(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "twin"
    fit(tiny(images, circuit="bn", epochs=4), run, quiet=True)
    return run


def load(config: TrainConfig) -> object:
    return load_teacher(config, load_data(config.data, config.network.time_steps), make_fabric(config.machine))


def test_the_teacher_is_the_trained_network_and_does_not_learn(images: Path, twin: Path, tmp_path: Path) -> None:
    before = Run(twin).last.read_bytes()
    alone, taught = (tmp_path / name for name in ("alone", "taught"))
    fit(tiny(images), alone, quiet=True)
    config = tiny(images, teacher=str(twin), distillation=1.0)
    fit(config, taught, quiet=True)
    assert Run(twin).last.read_bytes() == before
    one, other = (load_checkpoint(Run(run).last)[0]["model.readout.weight_ee"] for run in (alone, taught))
    assert not torch.equal(one, other)
    teacher = load(config)
    x = load_data(config.data, config.network.time_steps).train.pixels[:8].float() / 255
    answers = teacher(x)
    assert not answers.requires_grad
    torch.testing.assert_close(teacher(x[:1]), answers[:1])  # its batch norm uses what it learnt


def test_distillation_brings_the_answers_closer(images: Path, twin: Path, tmp_path: Path) -> None:
    distance = {}
    for share in (0.01, 1.0):
        config = tiny(images, teacher=str(twin), distillation=share, epochs=6)
        run = tmp_path / str(share)
        fit(config, run, quiet=True)
        x = load_data(config.data, config.network.time_steps).train.pixels.float() / 255
        pupil = load(config.changed(teacher=str(run)))
        distance[share] = float(distillation_loss(pupil(x), load(config)(x), config.objective.temperature))
    assert distance[1.0] < distance[0.01]


def test_a_relative_teacher_is_found_from_elsewhere(
    images: Path, twin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(twin.parent)
    fit(tiny(images, teacher="twin", epochs=1, warmup_epochs=0), tmp_path / "run", quiet=True)
    assert Run(tmp_path / "run").config().objective.teacher == str(twin)


def test_teachers_that_cannot_teach_are_refused(images: Path, twin: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"teacher: there is no checkpoint .*nowhere"):
        load(tiny(images, teacher=str(tmp_path / "nowhere")))
    with pytest.raises(ValueError, match="trained on images of 16 pixels, this run has image_size 32; give the same"):
        load(tiny(images, teacher=str(twin), image_size=32))
    with pytest.raises(ValueError, match=r"hold_out 0\.0, this run has 0\.2: it has seen images"):
        load(tiny(images, teacher=str(twin), hold_out=0.2))
    others = write_images(tmp_path / "others")
    for split in ("train", "test"):
        (others / split / "r").rename(others / split / "x")
    match = r"teacher: the data set 'folder' has other classes than .*twin.* gone \['r'\], new \['x'\].*\(--teacher\)"
    with pytest.raises(DataError, match=match):
        fit(tiny(others, teacher=str(twin)), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"distillation": 0}, "greater than 0"),
        ({"distillation": 1.5}, "less than or equal to 1"),
        ({"temperature": 0}, "greater than or equal to 0.01"),
        ({"loss": "mse"}, "'mean' or 'tet'"),
    ],
)
def test_wrong_values_are_refused(fields: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        TrainConfig(**fields)
