"""Every circuit trains: on real images, through the loop, from the command line, and back from its checkpoint."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from train_runs import assert_same_run, interrupt_at, tiny, write_images

import eisnn
from eisnn.cli import main
from eisnn.interop import evaluate
from eisnn.methods import CIRCUITS
from eisnn.train import Interrupted, Run, fit, recipe, resume

RATES = {"ei": 0.01, "dann": 0.02, "cortex": 0.01}  # others 0.1


@pytest.fixture(scope="module")
def sample() -> tuple[Tensor, Tensor]:
    """100 photographs of the bundled sample, 10 of each class, at 16x16 pixels."""
    train = eisnn.data.load("cifar10-sample").train
    return F.avg_pool2d(train.pixels[::50].float() / 255, 2), train.labels[::50].long()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.mark.parametrize("circuit", CIRCUITS)
def test_a_few_steps_on_real_images_lower_the_loss(circuit: str, sample: tuple[Tensor, Tensor]) -> None:
    pictures, labels = sample
    torch.manual_seed(0)
    model = eisnn.create_model("convnet3", time_steps=2, width=0.5, circuit=circuit)
    eisnn.ei_init_(model, pictures)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATES.get(circuit, 0.1), momentum=0.9)
    eisnn.enforce_dale(optimizer, model)
    losses = []
    for _ in range(30):
        loss = F.cross_entropy(model(pictures), labels)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[0] < 5
    assert losses[-1] < losses[0] - 0.1
    assert eisnn.dale_violations(model) == {}


@pytest.mark.parametrize("circuit", CIRCUITS)
def test_from_the_command_line(circuit: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = "--model convnet3 --width 0.25 --time-steps 2 --epochs 1 --warmup-epochs 0 --batch-size 16 --lr 0.01"
    words = f"train demo --circuit {circuit} --dataset folder --data-path {images} {options} --accelerator cpu"
    assert main([*words.split(), "--run-dir", str(tmp_path / "run")]) == 0
    assert "accuracy after the last epoch" in capsys.readouterr().out
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    rate = Run(tmp_path / "run").metrics()[-1]["train_firing_rate"]
    assert (rate > 0) == (circuit != "dann")  # ReLU units do not fire


@pytest.mark.parametrize("circuit", ["tab", "bntt", "neunorm", "dann"])
def test_an_interrupted_run_resumes_as_if_nothing_had_happened(
    circuit: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(images, circuit=circuit, lr=0.01)
    fit(config, tmp_path / "whole", quiet=True)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 7)
        with pytest.raises(Interrupted):
            fit(config, tmp_path / "halves", quiet=True)
    resume(tmp_path / "halves", quiet=True)
    assert_same_run(tmp_path / "whole", tmp_path / "halves")
    assert evaluate(tmp_path / "halves")["accuracy"] == Run(tmp_path / "whole").metrics()[-1]["test_accuracy"]


def test_tab_over_one_image_is_refused_at_the_start(images: Path, tmp_path: Path) -> None:
    config = tiny(images, circuit="tab", model="mlp", epochs=1, batch_size=11)
    with pytest.raises(ValueError, match=r"single image, over which batch norm cannot normalize; batch_size 12 would"):
        fit(config, tmp_path / "run", quiet=True)


def test_units_that_do_not_spike_have_no_time_constant() -> None:
    assert recipe("cifar10-vgg8").changed(circuit="dann").network.circuit == "dann"
    with pytest.raises(ValueError, match=r"'dann' do not spike: tau and surrogate must stay .* got 3\.0 and 'sigmoid'"):
        recipe("cifar10-vgg8").changed(circuit="dann", tau=3.0)
