"""Even gradients (M14): E-I Init sets each layer's surrogate width so that the gradient neither fades nor explodes."""

import copy
from dataclasses import replace

import pytest
import torch
from circuits import rng
from networks import images
from torch import nn

import eisnn
from eisnn.analysis import record, spiking_layers
from eisnn.methods import make_layers
from eisnn.models import VGG
from eisnn.nn import PLIF, PLUS, CircuitOptions, EILayer

EVEN, ONE_WIDTH = PLUS, replace(PLUS, even_gradients=False)
DEEP = (8, "P", *[8] * 39)


def deep(options, **neuron):
    return VGG(DEEP, make_layers("ei", eisnn.LIF(**neuron), options=options), 3, 10, 2).double()


def initialised(model, **changes):
    eisnn.ei_init_(model, images(12, 16), generator=rng(1), **changes)
    return model


def first_loss(logits):
    return nn.functional.cross_entropy(logits, torch.arange(12) % 10)


def own_loss(logits):
    """By which the widths were set."""
    return logits[:, ::2].sum() - logits[:, 1::2].sum()


def norms(model, loss=first_loss):
    """Of `dL/dI_E`, from the first layer to the last."""
    with record(model, what="gradient") as seen:
        loss(model(images(12, 16))).backward()
    return torch.stack([seen[name]["gradient"].norm() for name in spiking_layers(model)])


def widths(model):
    return [m.neuron.constants.width for m in model.modules() if isinstance(m, EILayer)]


def test_gradients_reach_the_first_of_forty_layers():
    plain, even = initialised(deep(ONE_WIDTH)), initialised(deep(EVEN))
    uneven, exact, first = norms(plain), norms(even, own_loss), norms(even)
    assert uneven.max() / uneven.min() > 10
    assert exact.max() / exact.min() < 1.03
    assert first.max() / first.min() < 2


@pytest.mark.parametrize("surrogate", ["sigmoid", "atan", "triangle", "rectangle"])
def test_every_surrogate_with_a_width_gets_one(surrogate):
    model = deep(EVEN, surrogate=surrogate)
    found = norms(initialised(model))
    default = eisnn.LIF(surrogate=surrogate).constants.width
    assert widths(model)[-1] == default  # the layer at the top sets the norm
    assert len(set(widths(model))) > 30
    within = [abs(w / default) not in (8.0, 0.125) for w in widths(model)]
    assert sum(within) > 35
    assert found[20:].max() / found[20:].min() < 2


def test_the_papers_circuit_may_have_them_too():
    model = eisnn.create_model("vgg8", width=0.25, circuit_options=CircuitOptions(even_gradients=True))
    eisnn.ei_init_(model, images(8, 32, dtype=torch.float32), generator=rng(1))
    assert len(set(widths(model))) == 5


def test_nothing_else_changes():
    """Weights and what the network computes are those without the option; so are gradients, buffers and modes."""
    plain, even = (
        nn.Sequential(
            eisnn.create_model("convnet3", width=0.25, circuit_options=o).double(), nn.BatchNorm1d(10).double()
        )
        for o in (ONE_WIDTH, EVEN)
    )
    for model in (plain, even):
        eisnn.ei_init_(model, images(), generator=rng(1))
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), even.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(plain.buffers(), even.buffers(), strict=True))
    assert all(p.grad is None for p in even.parameters())
    assert torch.equal(plain(images()), even(images()))
    assert all(isinstance(layer.neuron, eisnn.LIF) for layer in even[0].layers)


def test_frozen_weights_have_even_gradients_too():
    model, frozen = deep(EVEN), deep(EVEN).requires_grad_(False)
    with torch.no_grad():
        initialised(frozen)
    assert widths(frozen) == widths(initialised(model))


def test_widths_are_saved_with_the_weights():
    model = initialised(deep(EVEN))
    state = model.state_dict()
    other = deep(EVEN)
    other.load_state_dict(state)
    assert widths(other) == widths(model)
    assert widths(copy.deepcopy(model)) == widths(model)
    with pytest.raises(RuntimeError, match="surrogate_width"):
        deep(ONE_WIDTH).load_state_dict(state)
    del state["layers.3.surrogate_width"]
    with pytest.raises(RuntimeError, match=r'Missing key.*"layers.3.surrogate_width"'):
        deep(EVEN).load_state_dict(state)
    state["layers.3.surrogate_width"] = torch.tensor(-1.0)
    with pytest.raises(RuntimeError, match=r"layers.3.surrogate_width must be one finite number > 0, got -1"):
        other.load_state_dict(state)
    assert widths(other) == widths(model)  # and so are the weights
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), model.parameters(), strict=True))


@pytest.mark.parametrize("width", [0.5, 1.0, 7.0])
def test_any_width_above_0_is_loaded(width):
    model = initialised(deep(EVEN))
    state = model.state_dict() | {"layers.3.surrogate_width": torch.tensor(width)}
    model.load_state_dict(state)
    assert widths(model)[3] == width
    for wrong in (torch.tensor(0.0), torch.tensor(torch.inf), torch.tensor([width, width])):
        with pytest.raises(RuntimeError, match=r"layers.3.surrogate_width must be one finite number > 0, got "):
            model.load_state_dict(state | {"layers.3.surrogate_width": wrong})


def test_a_layer_whose_weights_do_not_fit_keeps_its_width():
    model = initialised(deep(EVEN))
    before = widths(model)
    state = model.state_dict() | {"layers.3.surrogate_width": torch.tensor(7.0), "layers.3.weight_ee": torch.zeros(1)}
    with pytest.raises(RuntimeError, match=r"size mismatch for layers.3.weight_ee"):
        model.load_state_dict(state)
    assert widths(model) == before


def test_initialised_layers_keep_their_widths():
    model = initialised(deep(EVEN))
    before = widths(model)
    eisnn.ei_init_(model, images(12, 16, seed=5), generator=rng(2))
    assert widths(model) == before
    eisnn.ei_init_(model, images(12, 16, seed=5), generator=rng(2), redraw=True)
    assert widths(model) != before
    eisnn.ei_init_(model, images(12, 16), generator=rng(1), redraw=True)
    assert widths(model) == before  # they do not depend on what was there
    model.layers[7].initialized = False
    eisnn.ei_init_(model, images(12, 16), generator=rng(3))
    changed = [k for k, (old, new) in enumerate(zip(before, widths(model), strict=True)) if old != new]
    assert changed == [7]
    found = norms(model, own_loss)
    assert float(found[7]) == pytest.approx(
        float(found[-1]), rel=0.02
    )  # the last layer's, though that was not set anew


def test_a_width_that_is_given_is_where_it_sets_out():
    model = deep(EVEN)
    model.layers[-1].neuron = eisnn.LIF(alpha=5.0)
    assert widths(initialised(model))[-1] == 5.0
    model.layers[3].neuron = nn.Identity()
    with pytest.raises(ValueError, match="got neuron Identity"):
        eisnn.ei_init_(model, images(12, 16), redraw=True)


def test_layers_from_which_nothing_comes_back_keep_their_widths():
    """The readout looks at silent neurons only: no gradient comes back to the last circuit, nor to those below."""
    model = deep(EVEN)
    model.readout = nn.Flatten(2)
    model.readout.forward = lambda x, time_steps: torch.zeros_like(x) * x
    initialised(model)
    assert set(widths(model)) == {4.0}


class Returning(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.model, self.change = deep(EVEN), change

    def forward(self, x):
        return self.change(self.model(x))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda y: (y, y), "logits .* it is a tuple: return them, or"),
        (lambda y: y.sum(), "it is a single number"),
        (lambda y: y.detach(), "it is a tensor through which no gradient comes back"),
        (lambda y: y * 1e308 * 1e308, "the gradient of the first batch is not finite"),
    ],
)
def test_a_model_that_returns_something_else_is_told_and_left_as_it_was(change, what):
    model = Returning(change)
    with pytest.raises((TypeError, ValueError), match=what):
        eisnn.ei_init_(model, images(12, 16))
    assert all(not layer.initialized and isinstance(layer.neuron, eisnn.LIF) for layer in model.model.layers)
    assert set(widths(model)) == {4.0}
    assert all(not p.any() for p in model.model.layers[0].weight_ee)


@pytest.mark.parametrize("neuron", [None, nn.ReLU(), eisnn.LIF(surrogate="leaky_relu")])
def test_neurons_without_a_width_are_named(neuron):
    with pytest.raises(ValueError, match="even_gradients sets the width of the surrogate of LIF neurons"):
        eisnn.EIConv2d(3, 8, 3, neuron=neuron, options=EVEN)


def test_inference_mode_is_named():
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"outside of torch.inference_mode"):
        eisnn.ei_init_(deep(EVEN), images(12, 16))


def test_options_that_are_switches_are_checked():
    with pytest.raises(TypeError, match="even_gradients must be True or False, got 'no'"):
        CircuitOptions(even_gradients="no")


@pytest.mark.parametrize("build", [
    lambda options: eisnn.create_model("convnet3", circuit_options=options),
    lambda options: eisnn.EILinear(4, 4, options=options),
    lambda options: eisnn.EIReadout(4, 4, options=options),
])  # fmt: skip
def test_options_of_another_type_are_named(build):
    with pytest.raises(
        TypeError, match=r"options must be eisnn.PLUS or eisnn.nn.CircuitOptions\(...\), got {'conserved': True}"
    ):
        build({"conserved": True})


def test_options_that_are_measured_need_a_batch():
    with pytest.raises(ValueError, match=r"layers.0 has unit_variance, even_gradients, .* give a first_batch"):
        eisnn.ei_init_(deep(EVEN), firing_probability=0.2)


def test_learned_time_constants_have_widths_too():
    learned = VGG(DEEP, make_layers("ei", PLIF(tau=2.0), options=EVEN), 3, 10, 2).double()
    assert widths(initialised(learned)) == pytest.approx(widths(initialised(deep(EVEN))), rel=1e-6)
    assert all(layer.neuron.tau == pytest.approx(2.0) for layer in learned.layers)
