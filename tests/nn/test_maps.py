"""Networks of one's own: pooling, shortcuts, the options and the optimizer of -plus."""

import pytest
import torch
from torch import nn

import eisnn
from eisnn.nn import AveragePool2d, Shortcut
from eisnn.train import recipe
from eisnn.train.optim import make_optimizer


class Net(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.body = nn.Sequential(
            eisnn.EIConv2d(3, 8, 3, padding=1, **options),
            AveragePool2d(4),
            Shortcut(eisnn.EIConv2d(8, 8, 3, padding=1, **options)),
            Shortcut(
                eisnn.EIConv2d(8, 16, 3, stride=2, padding=1, **options), eisnn.EIConv2d(8, 16, 1, stride=2, **options)
            ),
            nn.Flatten(2),
        )
        self.classify = eisnn.EIReadout(16 * 4 * 4, 4, **options)

    def forward(self, x):
        return self.classify(self.body(x.expand(4, *x.shape))).mean(0)


def test_an_own_net_with_plus_learns_a_batch():
    torch.manual_seed(0)
    model, images, labels = Net(options=eisnn.PLUS), torch.rand(16, 3, 32, 32), torch.arange(16) % 4
    eisnn.ei_init_(model, images, generator=torch.Generator().manual_seed(0))
    optimizer = eisnn.plus_optimizer(model)
    eisnn.enforce_dale(optimizer, model)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert eisnn.dale_violations(model) == {}


def test_its_groups_are_those_of_the_recipe_and_readouts_are_known_by_what_they_are():
    model = eisnn.create_model("convnet3", circuit_options=eisnn.PLUS)
    ours, theirs = eisnn.plus_optimizer(model), make_optimizer(model, recipe("demo-plus").optimization)
    for a, b in zip(ours.param_groups, theirs.param_groups, strict=True):
        assert a["params"] == b["params"]
        assert {k: v for k, v in a.items() if k != "params"} == {k: v for k, v in b.items() if k != "params"}
    own = Net()
    rules = {id(p): group["rule"] for group in eisnn.plus_optimizer(own).param_groups for p in group["params"]}
    assert {rules[id(p)] for p in own.classify.parameters()} == {"additive"}
    assert rules[id(own.body[0].weight_ee)] == "orthogonal"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lr": -1}, "lr must be greater than 0, got -1"),
        ({"lr": 0}, "lr must be greater than 0, got 0"),
        ({"momentum": 1.5}, "momentum must be less than 1, got 1.5"),
        ({"weight_decay": "much"}, "weight_decay must be a valid number, .* got 'much'"),
    ],
)
def test_values_of_the_optimizer_out_of_range_are_named(given, message):
    with pytest.raises(ValueError, match=f"^plus_optimizer: {message}$"):
        eisnn.plus_optimizer(Net(), **given)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_pooling_is_torchs_at_each_step(k):
    x = torch.rand(2, 3, 4, 7, 8)
    steps = [nn.functional.avg_pool2d(step, k) for step in x]
    assert torch.equal(AveragePool2d(k)(x), torch.stack(steps))


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match=r"\[T, B, C, H, W\]"):
        AveragePool2d()(torch.rand(3, 4, 8, 8))
    with pytest.raises(ValueError, match="one shape"):
        Shortcut(nn.Flatten(2))(torch.rand(2, 3, 4, 8, 8))
    with pytest.raises(ValueError, match=r"circuit_options=eisnn\.PLUS"):
        eisnn.create_model("vgg8", circuit="ei-plus")
    with pytest.raises(TypeError, match=r"eisnn\.PLUS"):
        eisnn.EILinear(4, 4, options="plus")
    with pytest.raises(ValueError, match="did you mean 'cifar10-vgg8-plus'"):
        recipe("cifar10-vgg8plus")
