"""`eisnn.check` finds what goes wrong without an error; what can be refused for free is refused in the layer."""

import re

import pytest
import torch
from circuits import rng
from torch import nn

import eisnn
from eisnn.nn import PLUS, NonFiniteGradient


class Net(nn.Module):
    """A network of one's own."""

    def __init__(self, **options):
        super().__init__()
        self.conv = eisnn.EIConv2d(3, 8, 3, padding=1, **options)
        self.hidden = eisnn.EILinear(8 * 36, 16, **options)
        self.readout = eisnn.EIReadout(16, 5)

    def forward(self, x):
        spikes = self.conv(x if x.ndim == 5 else x[None], time_steps=None if x.ndim == 5 else 3)
        return self.readout(self.hidden(spikes.flatten(2))).mean(0)


def images(count=6):
    return torch.rand(count, 3, 6, 6, generator=rng(0))


def net(scale=1.0, **options):
    made = Net(**options)
    eisnn.ei_init_(made, scale * images(), generator=rng(1))
    return made


def findings(model, batch, **given):
    return "\n".join(eisnn.check(model, batch, **given).findings)


@pytest.mark.parametrize("options", [{}, {"options": PLUS}])
def test_nothing_is_found_in_a_sound_network(options):
    made = net(**options)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    diagnosis = eisnn.check(made.train(), images(), images=6)
    assert diagnosis.ok, diagnosis
    assert set(diagnosis.activity) == {"conv", "hidden"}
    assert str(diagnosis).startswith("nothing wrong was found")
    assert made.training
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())


@pytest.mark.parametrize(
    ("batch", "found"),
    [
        (images() - 0.5, "the batch has .* negative values"),
        (images() / 0, "the batch has .* values that are not finite"),
        (images() * 1e-42, "the batch holds nothing above"),
    ],
)
def test_faults_of_the_batch(batch, found):
    assert re.search(found, findings(net(), batch))


def test_weights_of_the_wrong_sign_or_not_finite():
    made = net()
    with torch.no_grad():
        made.conv.weight_ee[0] = -1
        made.readout.weight_ei[0, 0] = float("nan")
    found = findings(made, images())
    assert "conv.weight_ee has 27 negative or NaN entries" in found
    assert "readout.weight_ei has 1 entries that are not finite" in found


def test_another_scale_than_at_the_start_of_plus():
    assert "conv divides by its constant alone" in findings(net(255.0, options=PLUS), images())


@pytest.mark.parametrize("times", [0.4, 2.5])
def test_an_input_a_few_times_as_strong_as_at_the_start(times):
    """Where it matters: without semisaturation the currents are the same."""
    found = findings(net(options=PLUS), times * images())
    assert f"the input of conv is {times} times as strong as at E-I Init (mean " in found
    assert findings(net(options=PLUS), 1.5 * images()) == findings(net(), times * images()) == ""


def test_pixels_up_to_255():
    batch = 255 * torch.rand(4, 3, 16, 16, generator=rng(3))
    assert "the batch has pixels up to 25" in findings(eisnn.load("demo-plus"), batch)
    assert findings(eisnn.load("demo-plus"), batch / 255) == ""


def test_a_silent_and_a_saturated_layer():
    made = net()
    with torch.no_grad():
        made.conv.bias.fill_(-100)
    assert "conv is silent" in findings(made, images())
    with torch.no_grad():
        made.conv.bias.fill_(100)
    assert "conv is saturated" in findings(made, images())


def test_axes_in_the_wrong_order():
    sequence = torch.rand(6, 3, 3, 6, 6, generator=rng(3))  # [B, T, C, H, W]
    assert "the axes are mixed up" in findings(net(), sequence, images=6)
    assert findings(net(), sequence.transpose(0, 1), images=6) == ""


class Unaveraged(nn.Module):
    """The mean of the logits over time stands outside: `[T, B, classes]`."""

    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, x):
        return self.net.readout(self.net.hidden(self.net.conv(x).flatten(2)))


def test_logits_of_each_step_are_answers_too():
    sequence = torch.rand(6, 3, 3, 6, 6, generator=rng(3))  # [B, T, C, H, W]
    assert "the axes are mixed up" in findings(Unaveraged(), sequence, images=6)
    assert findings(Unaveraged(), sequence.transpose(0, 1), images=6) == ""


def test_axes_in_the_wrong_order_of_as_many_steps_as_images():
    start = torch.rand(4, 1, 3, 6, 6, generator=rng(3))
    sequence = start + 0.1 * torch.rand(4, 4, 3, 6, 6, generator=rng(4)).cumsum(1)  # [B, T, C, H, W]: drifts slowly
    for given in ({}, {"images": 4}):
        assert "as sequences [B, T, ...] do" in findings(net(), sequence, **given)
        assert findings(net(), sequence.transpose(0, 1), **given) == ""


def test_a_network_that_was_never_initialised():
    assert "conv, hidden, readout was never initialised" in findings(Net(), images())


def test_a_network_that_cannot_be_run():
    assert "the network cannot be run: EIConv2d has 3 inputs, got 2" in findings(net(), images()[:, :2])


def test_what_is_no_batch_or_no_spiking_network():
    with pytest.raises(TypeError, match="got list"):
        eisnn.check(net(), [1])
    with pytest.raises(ValueError, match="Linear has no spiking layer"):
        eisnn.check(nn.Linear(2, 2), torch.rand(1, 2))


@pytest.mark.parametrize("value", [-0.001, float("nan"), float("inf"), -float("inf")])
def test_a_layer_of_ones_own_network_refuses_its_input(value):
    batch = images()
    batch[2, 1, 3, 3] = value
    for gradients in (True, False):
        with (
            pytest.raises(RuntimeError, match="must be >= 0 and finite, see EIConv2d"),
            torch.set_grad_enabled(gradients),
        ):
            net()(batch)


def test_a_step_with_a_gradient_that_is_not_finite_changes_nothing():
    made = net()
    optimizer = torch.optim.SGD(made.parameters(), lr=0.1, momentum=0.9)
    handle = eisnn.enforce_dale(optimizer, made)
    made(images()).sum().backward()
    before = [parameter.detach().clone() for parameter in made.parameters()]
    made.hidden.weight_ie.grad[0, 3] = float("nan")
    with pytest.raises(NonFiniteGradient, match=r"gradient of hidden\.weight_ie holds NaN .* No parameter was changed"):
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, made.parameters(), strict=True))
    assert not optimizer.state
    handle.remove()
    optimizer.step()
    assert made.hidden.weight_ie.isnan().any()


@pytest.mark.parametrize("name", ["conv.bias", "hidden.gain_e", "readout.weight_ee"])
def test_training_stops_at_a_parameter_that_is_not_finite(name):
    """A spike hides what its current was: the loss is finite, and so may the gradients be."""
    made = net()
    optimizer = torch.optim.SGD(made.parameters(), lr=0.1)
    eisnn.enforce_dale(optimizer, made)
    made(images()).sum().backward()
    with torch.no_grad():
        made.get_parameter(name).view(-1)[0] = float("inf")
    with pytest.raises(NonFiniteGradient, match=rf": {name} holds NaN or infinite values"):
        optimizer.step()


def test_gradients_whose_sum_overflows_are_finite():
    made = net()
    optimizer = torch.optim.SGD(made.parameters(), lr=1e-38)
    eisnn.enforce_dale(optimizer, made)
    made(images()).sum().backward()
    made.hidden.weight_ie.grad.fill_(3e38)
    optimizer.step()
    assert eisnn.dale_violations(made) == {}
