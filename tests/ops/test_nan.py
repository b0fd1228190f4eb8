"""NaN does not vanish in a neuron: on every back end it reaches what the network returns."""

import pytest
import torch
from circuits import rng

import eisnn
import eisnn.functional as EF
from eisnn import ops
from eisnn.nn import PLUS
from eisnn.nn.inference import fold

NAN = float("nan")


def net(**options):
    made = eisnn.create_model("convnet3", width=0.25, time_steps=3, **options).double()
    eisnn.ei_init_(made, images(), generator=rng(1))
    return made


def images():
    return torch.rand(4, 3, 8, 8, generator=rng(0), dtype=torch.float64)


@pytest.mark.parametrize("reset", ["soft", "hard"])
@pytest.mark.usefixtures("backend")
def test_a_potential_that_is_nan_fires_nan_from_then_on(reset):
    current = torch.tensor([[[2.0, NAN, -2.0, 2.0]], [[2.0, 2.0, 2.0, -torch.inf]], [[0.1, 3.0, 0.1, torch.inf]]])
    constants = EF.LIFConstants(reset=reset)
    for scan in (ops.lif, EF.lif):
        spikes, v = scan(current, constants)
        assert spikes.isnan().tolist() == [[[False, True, False, False]]] * 2 + [
            [[False, True, False, spikes[2, 0, 3].isnan()]]
        ]
        assert v.isnan()[0, 1]
    assert torch.equal(ops.lif(current, constants)[0].nan_to_num(7), EF.lif(current, constants)[0].nan_to_num(7))


@pytest.mark.parametrize("options", [{}, {"circuit_options": PLUS}, {"circuit": "bn"}])
@pytest.mark.usefixtures("backend")
def test_a_weight_that_is_nan_reaches_the_logits(options):
    model, x = net(**options), images()
    for name, parameter in model.named_parameters():
        before = parameter.detach().clone()
        with torch.no_grad():
            parameter.view(-1)[0] = NAN
        assert model(x).isnan().any(), name
        with torch.no_grad():
            parameter.copy_(before)
    assert model(x).isfinite().all()


@pytest.mark.usefixtures("backend")
def test_nan_reaches_the_logits_of_a_folded_network_and_the_gradients():
    model = net()
    with torch.no_grad():
        model.layers[1].bias[0] = NAN
    for network in (model, fold(model)):
        refused = pytest.raises(RuntimeError, match=r"finite, see (EIConv2d|FoldedLayer) \(eisnn.check finds why\)")
        with refused, torch.no_grad():
            network(images())
    loss = model(images()).sum()
    assert loss.isnan()
    loss.backward()
    assert model.layers[0].weight_ee.grad.isnan().any()


@pytest.mark.parametrize("scale", [1e-320, 1.7e308])
def test_what_no_float_can_hold_is_refused_before_the_weights_are_damaged(scale):
    """Inputs that are finite, and whose currents or gradients are not."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    eisnn.enforce_dale(optimizer, model)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    with pytest.raises(RuntimeError, match="finite"):  # noqa: PT012 - in one of the three
        model(images() * scale).sum().backward()
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert eisnn.dale_violations(model) == {}
    assert all(parameter.isfinite().all() for parameter in model.parameters())
