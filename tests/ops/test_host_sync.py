"""A training step asks for no tensor's value on the host: on a GPU each such question waits for all that is queued."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import eisnn
from eisnn.data import Augmentation
from eisnn.data.loader import Batch
from eisnn.methods import CIRCUITS
from eisnn.nn import EILayer
from eisnn.nn.options import PLUS
from eisnn.ops.lif.op import _backward as lif_backward
from eisnn.ops.lif.op import _forward as lif_forward
from eisnn.ops.population.op import _backward as population_backward
from eisnn.ops.population.op import _forward as population_forward
from eisnn.train import TrainConfig
from eisnn.train.loss import Objective
from eisnn.train.metrics import FiringRate, Meter
from eisnn.train.optim import make_optimizer
from eisnn.train.step import TrainingStep

# A mode does not see into an operator: ours are run as the Python functions that they are made of.
BODIES = {
    operator._opoverload: operator._init_fn
    for operator in (lif_forward, lif_backward, population_forward, population_backward)
}
ASKING = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class Asked(AssertionError):
    """For the values of a tensor."""


class NoQuestions(TorchDispatchMode):
    """Fails at each operator that hands a value to the host, or makes a tensor whose shape depends on one."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if ASKING & set(func.tags) or func is torch.ops.aten.is_nonzero.default:
            raise Asked(func)
        if func in BODIES:
            with self:
                return BODIES[func](*args)
        return func(*args, **(kwargs or {}))


@contextmanager
def no_questions() -> Iterator[None]:
    """Also none that is no operator where the tensor is on the CPU already."""

    def ask(*_: Any) -> None:
        raise Asked

    with pytest.MonkeyPatch.context() as patch, NoQuestions():
        for name in ("tolist", "numpy", "cpu"):
            patch.setattr(Tensor, name, ask)
        yield


def train(circuit: str, **options: Any) -> Tensor:
    """Two steps as the training loop makes them, the second with momentum; set-up may ask. Returns the sums of the log:
    loss, correct answers and images first."""
    config = TrainConfig(circuit=circuit, **options)
    chosen = {"circuit_options": config.network.circuit_options} if circuit == "ei" else {}
    model = eisnn.create_model("vgg8", time_steps=2, width=0.125, circuit=circuit, **chosen)
    pixels, labels = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8), torch.arange(4)
    augmentation, mixture = config.data.augmentation, None
    draws = augmentation.draw(4, (3, 32, 32), torch.Generator().manual_seed(0))
    eisnn.ei_init_(model, pixels / 255)
    optimizer = make_optimizer(model, config.optimization)
    eisnn.enforce_dale(optimizer, model, check_gradients=False)
    fabric = SimpleNamespace(device=pixels.device, backward=lambda loss: loss.backward())
    rates, meters = FiringRate(model), (Meter(pixels.device),)
    objective = Objective(config.objective)
    step = TrainingStep(config, fabric, model, model, optimizer, objective, rates, meters, None)
    with no_questions():
        for k in range(2):
            images = augmentation.apply(pixels, draws, None)
            if augmentation.mixes:
                images, mixture = augmentation.mix(images, labels, draws)
            step(Batch(images, labels, 1.0, mixture), k + 1, measured=k == 1)
    return meters[0].sums


@pytest.mark.parametrize("backend", ["compiled", "torch"], indirect=True)
@pytest.mark.parametrize("circuit", CIRCUITS)
def test_a_training_step_asks_nothing(circuit, backend):
    loss, _, images, *_ = train(circuit).tolist()  # it trained: only the end asks
    assert 0 < loss / images < 10


ADDED: dict[str, dict[str, Any]] = {
    "clipping": {"adaptive_clipping": 0.1},
    "plus": {"circuit_options": PLUS, "adaptive_clipping": 0.1, "loss": "tet"},
    "mixing": {"augmentation": Augmentation(trivial=True, cutmix=1.0, mixup=0.2), "label_smoothing": 0.1},
    "exponentiated": {"optimizer": "exponentiated"},
    "orthogonal": {"optimizer": "orthogonal"},
}


@pytest.mark.parametrize("options", ADDED.values(), ids=ADDED)
def test_no_option_of_training_asks(options):
    loss, _, images, *_ = train("ei", **options).tolist()
    assert 0 < loss / images < 10


QUESTIONS: dict[str, Callable[[Tensor], Any]] = {
    "item": lambda x: x.sum().item(),
    "bool": lambda x: bool((x == 0).any()),
    "float": lambda x: float(x.max()),
    "mask": lambda x: x[x > 0],
    "nonzero": lambda x: x.nonzero(),
    "equal": lambda x: torch.equal(x, x),
    "tolist": lambda x: x.tolist(),
    "cpu": lambda x: x.cpu(),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_question_in_a_layer_is_noticed(name, monkeypatch):
    real = EILayer.forward

    def asking(layer: EILayer, x: Tensor, *args: Any, **options: Any) -> Any:
        QUESTIONS[name](x.detach())
        return real(layer, x, *args, **options)

    monkeypatch.setattr(EILayer, "forward", asking)
    with pytest.raises(Asked):
        train("ei")


@pytest.mark.parametrize("name", QUESTIONS)
@pytest.mark.parametrize("backend", ["torch"], indirect=True)
def test_a_question_within_an_operator_is_noticed(name, backend, monkeypatch):
    module = sys.modules["eisnn.ops.population.torch"]
    real = module.smallest_positive

    def asking(i_div: Tensor) -> Tensor:
        QUESTIONS[name](i_div)
        return real(i_div)

    monkeypatch.setattr(module, "smallest_positive", asking)
    with pytest.raises(Asked):
        train("ei")
