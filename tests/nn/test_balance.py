"""Balance of the paper's circuit by upkeep (P1): exact rows at the start, synaptic scaling after each step."""

import pytest
import torch
from circuits import rng
from torch import nn

import eisnn
from eisnn.nn import CircuitOptions, EICircuit
from eisnn.nn.options import PLUS
from eisnn.train import TrainConfig
from eisnn.train.upkeep import scale_synapses_

BALANCED = CircuitOptions(balanced=True)


def images():
    return torch.rand(8, 3, 8, 8, generator=rng(0), dtype=torch.float64)


def network(options=BALANCED):
    model = eisnn.create_model("convnet3", width=0.25, circuit_options=options).double()
    eisnn.ei_init_(model, images(), generator=rng(1))
    return model


def circuits(model):
    return [module for module in model.modules() if isinstance(module, EICircuit)]


def totals(circuit):
    """Excitation and inhibition of each neuron: sums of the rows of `W_EE` and of `W_EI W_IE`."""
    return circuit.weight_ee.flatten(1).sum(1), (circuit.weight_ei @ circuit.weight_ie.flatten(1)).sum(1)


def test_balanced_rows_have_the_sums_that_exponential_ones_have_on_average():
    model, plain = network(), network(CircuitOptions())
    for circuit, free in zip(circuits(model), circuits(plain), strict=True):
        excitation, inhibition = totals(circuit)
        torch.testing.assert_close(excitation, inhibition, rtol=1e-12, atol=0)
        torch.testing.assert_close(excitation, excitation[:1].expand_as(excitation), rtol=1e-12, atol=0)
        assert not torch.allclose(*totals(free), rtol=0.01)
    first, free = circuits(model)[0], circuits(plain)[0]
    assert float(totals(first)[0][0]) == pytest.approx(float(totals(free)[0].mean()), rel=0.2)
    assert eisnn.dale_violations(model) == {}


def test_a_balanced_neuron_answers_contrast_not_brightness():
    """Its folded weights sum to 0, so that an even image drives it with its bias alone, where it is not cut off."""
    model = network()
    even = torch.full((1, 1, 3, 8, 8), 0.7, dtype=torch.float64)
    inner = model.layers[0].integrated(even)[..., 1:-1, 1:-1]
    assert inner.abs().max() < 1e-10
    assert network(CircuitOptions()).layers[0].integrated(even)[..., 1:-1, 1:-1].abs().max() > 0.1


@pytest.mark.parametrize("exponent", [0.05, 0.5, 1.0])
def test_scaling_takes_the_ratio_to_a_power(exponent):
    model = network(CircuitOptions())
    before = [excitation / inhibition for excitation, inhibition in map(totals, circuits(model))]
    others = {name: p.clone() for name, p in model.named_parameters() if not name.endswith("weight_ee")}
    scale_synapses_(model, exponent)
    for ratio, circuit in zip(before, circuits(model), strict=True):
        excitation, inhibition = totals(circuit)
        torch.testing.assert_close(excitation / inhibition, ratio ** (1 - exponent))
    assert all(torch.equal(p, others[name]) for name, p in model.named_parameters() if name in others)
    assert eisnn.dale_violations(model) == {}


def test_a_neuron_that_lost_all_its_synapses_is_left_alone():
    model = network(CircuitOptions())
    layer = model.layers[0]
    with torch.no_grad():
        layer.weight_ee[0] = 0
        layer.weight_ei[1] = 0
    before = layer.weight_ee.detach().clone()
    scale_synapses_(model, 0.5)
    assert torch.equal(layer.weight_ee[:2], before[:2])
    assert not torch.equal(layer.weight_ee[2:], before[2:])
    assert layer.weight_ee.isfinite().all()


def test_scaling_holds_the_balance_that_clamping_leaks():
    """Over a few large steps with the paper's circuit."""
    imbalance = {}
    for exponent in (0.0, 0.5):
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        eisnn.enforce_dale(optimizer, model)
        for _ in range(5):
            nn.functional.cross_entropy(model(images()), torch.arange(8)).backward()
            optimizer.step()
            optimizer.zero_grad()
            scale_synapses_(model, exponent)
            assert eisnn.dale_violations(model) == {}
        ratios = torch.cat([(e / i).log().abs() for e, i in map(totals, model.layers)])
        imbalance[exponent] = float(ratios.mean().detach())
    assert imbalance[0.5] < 0.7 * imbalance[0.0]


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"synaptic_scaling": 0.05, "circuit": "bn"}, "are for circuit ei, got circuit 'bn'"),
        ({"center_gradients": True, "circuit": "bn"}, "are for circuit ei, got circuit 'bn'"),
        ({"synaptic_scaling": 0.05, "circuit_options": PLUS}, "circuits without conserved totals"),
        ({"synaptic_scaling": 1.5}, "less than or equal to 1"),
    ],
)
def test_upkeep_that_does_not_fit_is_refused(fields, match):
    with pytest.raises(ValueError, match=match):
        TrainConfig(**fields)


def test_conserved_circuits_are_balanced_already():
    with pytest.raises(ValueError, match="balanced is for circuits without conserved totals"):
        CircuitOptions(balanced=True, conserved=True)
