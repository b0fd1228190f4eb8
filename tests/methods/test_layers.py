"""What all circuits have in common: their layers end in the neuron that was asked for, and take the options given."""

import pytest
import torch
from circuits import rng
from torch import nn

from eisnn import LIF
from eisnn.methods import ABLATIONS, CIRCUITS, Ablation, make_layers
from eisnn.methods.dann import DANNConv2d, DANNLinear
from eisnn.methods.neunorm import NeuNorm
from eisnn.methods.plain import activity_preserving_, fluctuation_driven_
from eisnn.nn import PLUS
from eisnn.nn.registry import circuit_of

OF_ANY_NEURON = [name for name in CIRCUITS if circuit_of(name).neurons == "any"]


@pytest.mark.parametrize("circuit", OF_ANY_NEURON)
def test_layers_of_both_kinds_end_in_the_neuron_that_was_asked_for(circuit: str) -> None:
    layers = make_layers(circuit, LIF(tau=3.0, theta=0.7), 4)
    for layer in (layers.conv(3, 8, 3), layers.linear(6, 8)):
        assert layer.neuron.constants.tau == 3.0
        assert layer.neuron.constants.theta == 0.7
    assert layers.readout(6, 3).neuron is None


@pytest.mark.parametrize("circuit", [name for name in CIRCUITS if "ei_ratio" in circuit_of(name).options])
def test_the_ratio_reaches_every_kind_of_layer(circuit: str) -> None:
    layers = make_layers(circuit, nn.ReLU() if circuit_of(circuit).neurons == "rate" else LIF(), 4, ei_ratio=2)
    for layer in (layers.conv(3, 8, 3), layers.linear(6, 8)):
        excitatory, *inhibitory = layer.populations().values()
        assert (excitatory, sum(inhibitory)) == (8, 4)


@pytest.mark.parametrize("fill_", [fluctuation_driven_, activity_preserving_])
def test_weights_come_from_the_generator_alone(fill_) -> None:
    first, again, other = (torch.empty(50, 40) for _ in range(3))
    constants = LIF().constants
    fill_(first, constants, generator=rng(1))
    torch.manual_seed(5)
    fill_(again, constants, generator=rng(1))
    fill_(other, constants, generator=rng(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_dann_has_relus_and_neunorm_the_decay_of_its_paper() -> None:
    assert isinstance(DANNConv2d(3, 4, 3).neuron, nn.ReLU)
    assert NeuNorm(3).decay == 0.9
    assert NeuNorm.stateful


def test_an_ablated_circuit_measures_in_the_precision_of_its_weights() -> None:
    layer = make_layers("ei", LIF(), 4, ablation="epsilon-1e-3").conv(3, 4, 3).double()
    x = torch.rand(1, 2, 3, 6, 6, generator=rng(0))
    for weight in (layer.weight_ee, layer.weight_ie, layer.weight_ei):
        nn.init.uniform_(weight, 0.1, 1)
    nn.init.ones_(layer.gain_i)
    found = layer.measure(x, x)
    assert set(found) == set(layer.quantities())
    assert all(value.dtype == torch.float64 for value in found.values())


def test_options_reach_every_kind_of_layer() -> None:
    layers = make_layers("ei", LIF(), 2, options=PLUS)
    made = layers.conv(3, 8, 3), layers.linear(3, 8), layers.readout(3, 8)
    assert [layer.options for layer in made] == [PLUS] * 3


def test_no_ablation_is_another_or_the_whole_circuit() -> None:
    distinct = {*ABLATIONS.values(), Ablation()}
    assert len(distinct) == len(ABLATIONS) + 1


@pytest.mark.parametrize("sizes", [(3, 8, 3), (3, 8)])
def test_a_dann_refuses_a_ratio_below_one(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="ei_ratio"):
        (DANNConv2d if len(sizes) == 3 else DANNLinear)(*sizes, ei_ratio=0)
