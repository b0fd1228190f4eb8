"""Methods without normalization: fluctuation-driven and activity-preserving weights, BackEISNN, the IM-Loss."""

from math import erfc, sqrt
from pathlib import Path

import pytest
import torch
from circuits import assert_agree, gradients, rng, spikes
from torch import Tensor, nn
from train_runs import records, tiny, write_images

import eisnn
import eisnn.functional as EF
from eisnn.interop import evaluate
from eisnn.methods.backei import BackEI, BackEILayer
from eisnn.methods.plain import PlainLayer, activity_preserving_, fluctuation_driven_
from eisnn.train import Run, fit, recipe, resume
from eisnn.train.im_loss import InformationMaximization, potentials


def free_potential(weight: Tensor, inputs: Tensor, tau: float) -> Tensor:
    """`U` of neurons that never fire, after the last step of `inputs` `[T, B, n]`."""
    return EF.lif(inputs @ weight.T, EF.LIFConstants(tau, theta=1e9))[1]


# ---------------------------------------------------------------------------------------------- initialisation


@pytest.mark.parametrize("tau", [1.0, 2.0, 5.0])
@pytest.mark.parametrize(("mu_u", "xi"), [(0.0, 1.0), (0.3, 2.0)])
def test_fluctuation_driven_weights_put_the_threshold_xi_deviations_above_the_mean(tau, mu_u, xi):
    """Poisson inputs of rate nu: U has mean mu_U, and in each neuron the standard deviation (theta - mu_U) / xi."""
    constants, nu, n = EF.LIFConstants(tau, theta=0.8), 0.1, 600
    weight = torch.empty(400, n, dtype=torch.float64)
    assert fluctuation_driven_(weight, constants, nu, xi, mu_u, rng(0)) is weight
    inputs = torch.poisson(torch.full((40, 60, n), nu, dtype=torch.float64), generator=rng(1))
    u = free_potential(weight, inputs, tau)
    sigma = (0.8 - mu_u) / xi
    assert u.mean().item() == pytest.approx(mu_u, abs=0.1 * sigma)
    assert u.var(0).mean().sqrt().item() == pytest.approx(sigma, rel=0.05)


@pytest.mark.parametrize("theta", [0.5, 1.0])
def test_activity_preserving_weights_keep_the_variance_of_potentials(theta):
    """Inputs that fire where N(0, 1) exceeds the threshold give potentials of variance 1, layer after layer."""
    constants = EF.LIFConstants(theta=theta)
    u = torch.randn(2000, 500, generator=rng(0), dtype=torch.float64)
    for seed in range(3):
        weight = activity_preserving_(torch.empty(500, 500, dtype=torch.float64), constants, rng(seed))
        fired = (u >= theta).double()
        assert fired.mean().item() == pytest.approx(0.5 * erfc(theta / sqrt(2)), rel=0.1)
        u = fired @ weight.T
        assert u.std().item() == pytest.approx(1, rel=0.1)


def test_weights_of_layers_follow_their_neuron_and_fan_in():
    torch.manual_seed(0)
    conv = PlainLayer(nn.Conv2d(32, 64, 3, bias=False), eisnn.LIF(tau=4.0, theta=0.5))
    expected = 0.5 * sqrt((1 - 0.75**2) / (32 * 9 * 0.05))
    assert conv.projection.weight.std().item() == pytest.approx(expected, rel=0.05)
    linear = PlainLayer(nn.Linear(300, 200, bias=False), nn.ReLU(), activity_preserving_)
    assert linear.projection.weight.std().item() == pytest.approx(1 / sqrt(300 * 0.5 * erfc(1 / sqrt(2))), rel=0.05)
    for circuit in ("plain", "dap"):
        model = eisnn.create_model("vgg8", circuit=circuit, width=0.1)
        assert eisnn.ei_init_(model, torch.rand(2, 3, 32, 32)) == {}  # filled already


@pytest.mark.parametrize("name", ["vgg8", "vgg16"])
def test_activity_reaches_the_last_layer_without_normalization(name):
    torch.manual_seed(0)
    for circuit in ("plain", "backei"):
        model, rates = eisnn.create_model(name, circuit=circuit, width=1 / 4), []
        for layer in model.layers:
            layer.register_forward_hook(lambda m, a, out, rates=rates: rates.append(out.abs().mean().item()))
        model(torch.rand(4, 3, 32, 32, generator=rng(0)) ** 2)
        assert min(rates) > 0.01
        assert max(rates) < 0.6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nu": 0.0}, r"nu and xi must be > 0 and mu_u < theta = 1\.0, got 0\.0, 1\.0, 0\.0"),
        ({"xi": -1.0}, "got .*, -1"),
        ({"mu_u": 1.0}, "mu_u < theta"),
        ({"mu_u": 0.9, "nu": 1e-3}, "leaves the weights no variance at fan-in 10"),
    ],
)
def test_values_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        fluctuation_driven_(torch.empty(5, 10), EF.LIFConstants(), **options)


def test_a_plain_network_has_nothing_to_merge():
    model = eisnn.create_model("convnet3", circuit="plain", width=0.25).eval()
    folded, x = eisnn.fold(model), torch.rand(2, 3, 32, 32)
    assert torch.equal(folded(x), model(x))
    assert not any(p.requires_grad for layer in folded.layers for p in layer.parameters())


# ---------------------------------------------------------------------------------------------- BackEISNN


def back_ei(**constants) -> BackEI:
    torch.manual_seed(0)
    return BackEI(3, eisnn.LIF(tau=1.25, theta=0.5, reset="hard", surrogate="rectangle", **constants)).double()


def test_back_ei_is_its_equation():
    neuron, current = back_ei(), torch.randn(4, 2, 3, 5, 5, generator=rng(0), dtype=torch.float64)
    v = o = torch.zeros(2, 3, 5, 5, dtype=torch.float64)
    expected = []
    for i in current:
        h = 0.2 * v + neuron.feedback(o).sigmoid() * i
        s = (h > 0.5).double()
        v = h * (1 - s)
        o = neuron.gate(h).sign() * s
        expected.append(o)
    out, (v_last, o_last) = neuron(current, return_state=True)
    assert torch.equal(out, torch.stack(expected))
    assert_agree(v_last, v, 1e-12)
    assert torch.equal(o_last, o)
    assert set(out.unique().tolist()) == {-1.0, 0.0, 1.0}


def test_back_ei_is_silent_at_the_threshold_where_lif_fires():
    neuron = back_ei()
    at_the_threshold = torch.full((1, 1, 3, 2, 2), 1.0, dtype=torch.float64, requires_grad=True)  # sigmoid(0) = 1/2
    with torch.no_grad():
        for parameter in neuron.parameters():
            parameter.zero_()
        neuron.gate.bias.fill_(1)
    out = neuron(at_the_threshold)
    assert not out.any()
    assert neuron(at_the_threshold * (1 + 1e-9)).all()
    assert EF.lif(at_the_threshold / 2, neuron.constants)[0].all()
    out.sum().backward()
    assert at_the_threshold.grad is not None
    assert at_the_threshold.grad.all()  # the surrogate is the same on both sides


def test_back_ei_without_feedback_and_gate_is_lif():
    """sigmoid(large) = 1 and sign(+) = 1."""
    neuron, current = back_ei(), torch.randn(4, 2, 3, 5, 5, generator=rng(0), dtype=torch.float64)
    with torch.no_grad():
        for conv in (neuron.feedback, neuron.gate):
            conv.weight.zero_()
            conv.bias.fill_(100)
    expected, last = EF.lif(current, neuron.constants)
    out, (v, _) = neuron(current, return_state=True)
    assert torch.equal(out, expected)
    assert_agree(v, last, 1e-12)


def test_back_ei_gradients_reach_gate_and_feedback_through_time():
    neuron, current = back_ei(detach_reset=False), torch.randn(4, 2, 3, 5, 5, generator=rng(0), dtype=torch.float64)
    current.requires_grad_()
    grads = gradients(neuron(current), {"current": current, **dict(neuron.named_parameters())})
    assert all(grad.isfinite().all() and grad.any() for grad in grads.values())
    neuron.zero_grad()
    neuron(current[:1]).sum().backward()  # in the first step there is no output to feed back
    assert not neuron.feedback.weight.grad.any()


def test_back_ei_layers_name_what_does_not_fit():
    with pytest.raises(ValueError, match="kernel_size must be odd, got 2"):
        BackEI(3, eisnn.LIF(), 2)
    layer = BackEILayer(nn.Conv2d(2, 3, 3, padding=1, bias=False), eisnn.LIF())
    with pytest.raises(ValueError, match=r"each here of shape \[2, 3, 5, 5\], got \[\[3, 5, 5\]"):
        layer(torch.rand(1, 2, 2, 5, 5), state=torch.zeros(2, 3, 5, 5))
    assert BackEILayer(nn.Conv2d(2, 3, 3, bias=False), None).neuron is None


# ---------------------------------------------------------------------------------------------- IM-Loss


@pytest.mark.parametrize("reset", ["soft", "hard"])
def test_potentials_are_those_of_the_neurons(reset):
    """They reach the threshold where the neuron fires, and after the reset they are the last state."""
    constants = EF.LIFConstants(tau=3.0, theta=0.7, reset=reset)
    current = torch.randn(5, 2, 4, generator=rng(0), dtype=torch.float64).requires_grad_()
    s, last = EF.lif(current, constants)
    h = potentials(current, constants)
    assert torch.equal(h >= 0.7, s == 1)
    assert_agree(h[-1] - 0.7 * s[-1] if reset == "soft" else h[-1] * (1 - s[-1]), last, 1e-12)
    static = torch.rand(1, 2, 4, generator=rng(1), dtype=torch.float64)
    assert_agree(potentials(static, constants, 6), potentials(static.expand(6, 2, 4), constants), 0)


def test_the_loss_is_the_squared_distance_of_mean_potentials_from_the_threshold():
    torch.manual_seed(0)
    model = eisnn.create_model("convnet3", circuit="plain", width=0.25, time_steps=3, neuron=eisnn.LIF(theta=0.8))
    expected = []
    for layer in model.layers:
        layer.neuron.register_forward_hook(
            lambda m, a, out: expected.append((potentials(a[0], m.constants, 3).mean() - 0.8) ** 2)
        )
    loss = InformationMaximization(model)
    model(torch.rand(4, 3, 32, 32))
    assert_agree(loss.take(), torch.stack(expected).sum(), 1e-6)
    model.eval()(torch.rand(4, 3, 32, 32))
    model.train()(spikes((3, 4, 3, 32, 32), dtype=torch.float32))
    assert len(loss._terms) == 3  # of the training pass alone
    loss.take().backward()
    assert all(layer.projection.weight.grad.any() for layer in model.layers)


def test_the_loss_draws_silent_layers_to_the_threshold():
    torch.manual_seed(0)
    model, x = eisnn.create_model("convnet3", circuit="plain", width=0.25), torch.rand(8, 3, 32, 32)
    with torch.no_grad():
        for layer in model.layers:
            layer.projection.weight.mul_(0.2)
    loss, optimizer, values = InformationMaximization(model), torch.optim.SGD(model.parameters(), lr=0.05), []
    for _ in range(10):
        model(x)
        value = loss.take()
        values.append(value.item())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert values[-1] < 0.5 * values[0]


def test_a_run_with_the_loss(tmp_path: Path):
    images = write_images(tmp_path / "images")
    config = tiny(images, circuit="plain", lr=0.01)
    fit(config.changed(im_loss=0.5), tmp_path / "with", quiet=True)
    fit(config, tmp_path / "without", quiet=True)
    first, other = (Run(tmp_path / name).metrics() for name in ("with", "without"))
    assert first[0]["train_loss"] < 10  # cross-entropy alone is logged
    assert records(tmp_path / "with") != records(tmp_path / "without")
    assert evaluate(tmp_path / "with")["accuracy"] == first[-1]["test_accuracy"]
    assert resume(tmp_path / "with", quiet=True).accuracy == first[-1]["test_accuracy"]
    assert other[-1]["epoch"] == first[-1]["epoch"]


@pytest.mark.parametrize("circuit", ["ei", "dann", "backei"])
def test_the_loss_needs_lif_neurons_that_can_be_followed(circuit):
    with pytest.raises(ValueError, match=f"im_loss is 1.0: it follows the LIF neurons of .*, not of '{circuit}'"):
        recipe("demo").changed(circuit=circuit, im_loss=1.0)
    with pytest.raises(ValueError, match="needs LIF neurons of a circuit such as plain or bn"):
        InformationMaximization(eisnn.create_model("convnet3", circuit=circuit, width=0.1))
