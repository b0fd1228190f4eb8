"""The parts of the recipes to the letter of the authors' program; the rectangles of its cutout: tests/data/augment."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from train_runs import tiny

import eisnn
from eisnn.data.config import load_data, train_loader
from eisnn.train import TrainConfig, initial_model
from eisnn.train.build import NO_EPOCH
from eisnn.train.optim import make_optimizer


def test_momentum_starts_as_the_first_gradient_and_takes_it_in_again() -> None:
    usual, published = (
        make_optimizer(nn.Linear(1, 1, bias=False).double(), TrainConfig(lr=0.1, first_step=step).optimization)
        for step in ("usual", "published")
    )
    lengths: dict[str, list[float]] = {}
    for name, sgd in (("usual", usual), ("published", published)):
        (w,) = sgd.param_groups[0]["params"]
        for _ in range(3):
            w.data.fill_(1)
            w.grad = torch.full_like(w, 2.0)
            sgd.step()
            lengths.setdefault(name, []).append((1 - w.item()) / (0.1 * (2 + 5e-4)))
    assert lengths["usual"] == pytest.approx([1, 1.9, 2.71])
    assert lengths["published"] == pytest.approx([1.9, 2.71, 3.439])


def test_e_i_init_may_take_a_batch_of_its_own(images: Path) -> None:
    first, separate = (tiny(images, init_batch=batch) for batch in ("first", "separate"))
    data = load_data(first.data, 2)
    for config, epoch in ((first, 0), (separate, NO_EPOCH)):
        batch = next(train_loader(config.data, data, 0).epoch(epoch)).images
        torch.manual_seed(0)
        network = config.network
        model = eisnn.create_model(network.model, num_classes=3, time_steps=2, width=network.width)
        eisnn.ei_init_(model.eval(), batch, generator=torch.Generator().manual_seed(0))
        for ours, expected in zip(initial_model(config).parameters(), model.parameters(), strict=True):
            assert torch.equal(ours, expected)
    assert not torch.equal(*(initial_model(config).layers[0].gain_i for config in (first, separate)))


def test_residual_batch_norm_networks_start_with_weights_by_fan_out(images: Path) -> None:
    model = initial_model(tiny(images, model="resnet18", circuit="bn", weights="fan-out"))
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 20
    for conv in convolutions:
        fan_out = conv.out_channels * conv.kernel_size[0] * conv.kernel_size[1]
        assert conv.weight.detach().std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.15)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"first_step": "published", "optimizer": "adam"}, "of SGD with momentum; got optimizer 'adam'"),
        ({"first_step": "published", "momentum": 0.0}, "with momentum 0"),
        ({"weights": "fan-out"}, "belongs to circuit bn; got circuit 'ei'"),
    ],
)
def test_parts_that_belong_elsewhere_are_named(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainConfig(**given)
