"""Stochastic depth of SEW-ResNets: what is left out, how often, and never in evaluation or E-I Init."""

import pytest
import torch
from circuits import rng

import eisnn
from eisnn.models.network import Carry
from eisnn.models.resnet import kept_branches
from eisnn.nn.options import PLUS
from eisnn.train import TrainConfig
from eisnn.train.build import new_network


def network(drop, circuit="ei"):
    options = {"circuit_options": PLUS} if circuit == "ei" else {}
    torch.manual_seed(0)
    model = eisnn.create_model("resnet18", width=0.05, time_steps=2, stochastic_depth=drop, circuit=circuit, **options)
    return model.double()


def images(n=6):
    return torch.rand(n, 3, 16, 16, generator=rng(1), dtype=torch.float64)


def test_an_image_keeps_its_branch_scaled_or_loses_it_at_all_steps():
    model = network(0.6)
    eisnn.ei_init_(model.eval(), images(), generator=rng(2))
    block = model.blocks[-1].train()
    x = torch.randint(0, 3, (2, 40, block.first.weight_ee.shape[1], 4, 4), generator=rng(3)).double()
    y = block(x, Carry(None, False), 2)
    branch = block.eval()(x, Carry(None, False), 2) - x
    assert block.drop == 0.6
    lost = 0
    for k in range(40):
        added = y[:, k] - x[:, k]
        if torch.equal(added, torch.zeros_like(added)):
            lost += 1
        else:
            torch.testing.assert_close(added, branch[:, k] / (1 - 0.6))
    assert 14 <= lost <= 34
    assert branch.flatten(2).abs().sum((0, 2)).min() > 0  # none was silent by itself


def test_the_probability_rises_linearly_with_depth_and_the_mean_is_kept():
    assert [block.drop for block in network(0.8).blocks] == pytest.approx([0.1 * k for k in range(1, 9)])
    torch.manual_seed(0)
    kept = kept_branches(20000, 0.3)
    assert kept.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    assert float(kept.mean()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("circuit", ["ei", "bn"])
def test_nothing_is_left_out_in_evaluation(circuit):
    model, plain = network(0.7, circuit), network(0.0, circuit)
    eisnn.ei_init_(plain.eval(), images(), generator=rng(2))
    model.load_state_dict(plain.state_dict())
    assert torch.equal(model.eval()(images()), plain.eval()(images()))
    assert not torch.equal(model.train()(images()), model(images()))
    assert torch.equal(plain.train()(images()), plain(images()))


def test_a_configuration_builds_it_and_refuses_it_elsewhere():
    from eisnn.data import load

    config = TrainConfig(model="resnet18", width=0.05, stochastic_depth=0.4, dataset="cifar10-sample")
    model = new_network(config, load("cifar10-sample"))
    assert model.blocks[-1].drop == 0.4
    with pytest.raises(ValueError, match="stochastic_depth is for resnets, got model 'vgg8'"):
        TrainConfig(stochastic_depth=0.1)
    with pytest.raises(ValueError, match=r"stochastic_depth is a probability in \[0, 1\), got 1.0"):
        network(1.0)
