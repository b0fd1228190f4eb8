"""The contract of a layer: what a layer does with its neuron, and how Dale's law takes weights that others change."""

import pytest
import torch
from circuits import rng
from torch import nn
from torch.nn.utils import parametrize, prune

import eisnn
import eisnn.methods
from eisnn.cortex import CorticalConv2d
from eisnn.methods.backei import BackEI
from eisnn.nn import SpikingLayer, layers_of
from eisnn.nn.neurons import fusable


class Off(eisnn.LIF):
    """A subclass that never gets a current."""

    def forward(self, current, *args, **kwargs):
        return super().forward(current * 0, *args, **kwargs)


class Net(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.conv = eisnn.EIConv2d(3, 8, 3, padding=1, **options)
        self.readout = eisnn.EIReadout(8 * 36, 5)

    def forward(self, images):
        return self.readout(self.conv(images[None], time_steps=3).flatten(2)).mean(0)


def images():
    return torch.rand(6, 3, 6, 6, generator=rng(0))


def layer(neuron, folded=False):
    made = eisnn.EIConv2d(3, 8, 3, padding=1, neuron=neuron)
    eisnn.ei_init_(made, images()[None], generator=rng(1))
    return eisnn.fold(made) if folded else made


@pytest.mark.parametrize("folded", [False, True])
def test_a_subclass_of_lif_is_called(folded):
    assert layer(eisnn.LIF(), folded)(images()[None], time_steps=3).mean() > 0.05
    assert layer(Off(), folded)(images()[None], time_steps=3).count_nonzero() == 0


def test_neurons_with_weights_of_their_own_learn_inside_a_circuit():
    made = layer(BackEI(8, eisnn.LIF()))
    made(images()[None], time_steps=3).sum().backward()
    assert made.neuron.feedback.bias.grad.abs().max() > 0


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("kind", ["forward", "forward_pre"])
def test_a_hook_on_the_neuron_runs_and_changes_nothing(kind, folded):
    made, x, seen = layer(eisnn.LIF(), folded).double(), images()[None].double(), []
    expected = made(x, time_steps=3)
    handle = getattr(made.neuron, f"register_{kind}_hook")(lambda *given: seen.append(given[1][0]))
    assert torch.equal(made(x, time_steps=3), expected)
    assert len(seen) == 1
    assert not fusable(made.neuron)
    handle.remove()
    assert fusable(made.neuron)


def test_a_method_put_over_the_neurons_is_called():
    made = layer(eisnn.LIF())
    made.neuron.forward = Off.forward.__get__(Off())
    assert made(images()[None], time_steps=3).count_nonzero() == 0


@pytest.mark.parametrize("circuit", ["backei", "cortex"])
def test_who_takes_only_the_constants_of_a_neuron_refuses_another(circuit):
    with pytest.raises(TypeError, match=r"must be .*LIF"):
        eisnn.methods.make_layers(circuit, Off(), 3).conv(3, 8, 3, padding=1)


def test_a_cortical_layer_refuses_a_neuron_that_wants_to_be_called():
    made = CorticalConv2d(3, 8, 3, padding=1)
    eisnn.ei_init_(made, images()[None].expand(3, *images().shape), generator=rng(1))
    handle = made.neuron.register_forward_hook(print)
    with pytest.raises(TypeError, match="never calls it"):
        made(images()[None], time_steps=3)
    handle.remove()
    assert made(images()[None], time_steps=3).mean() > 0
    made.neuron = Off()
    with pytest.raises(TypeError, match="never calls it"):
        made(images()[None], time_steps=3)


def trained(change=lambda _: None, before=False):
    """Some steps, with `change(layer)` before or after `enforce_dale`."""
    net = Net()
    eisnn.ei_init_(net, images(), generator=rng(1))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    if before:
        change(net.conv)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    eisnn.enforce_dale(optimizer, net)
    if not before:
        change(net.conv)
    for _ in range(5):
        nn.functional.cross_entropy(net(images()), torch.arange(6) % 5).backward()
        optimizer.step()
        optimizer.zero_grad()
    return net


@pytest.mark.parametrize("before", [False, True])
def test_pruned_weights_keep_their_sign(before):
    net = trained(lambda conv: prune.random_unstructured(conv, "weight_ee", 0.5), before)
    assert eisnn.dale_violations(net) == {}
    net(images())  # masks the weights as they are now
    assert (net.conv.weight_ee >= 0).all()
    with torch.no_grad():
        net.conv.weight_ee_orig[0, 0, 0, 0] = -1
    assert eisnn.dale_violations(net) == {"conv.weight_ee_orig": 1}


def test_a_negative_mask_violates_dale_s_law():
    net = trained()
    mask = torch.ones_like(net.conv.weight_ee)
    mask[0, 0, 0, 0] = -1
    prune.custom_from_mask(net.conv, "weight_ee", mask)
    assert eisnn.dale_violations(net) == {"conv.weight_ee_orig": 1}
    other = trained(lambda conv: prune.random_unstructured(conv, "weight_ee", 0.5))
    with pytest.raises(RuntimeError, match=r"conv.weight_ee_mask violates Dale's law: 1 negative or NaN"):
        other.load_state_dict(net.state_dict())


def test_what_may_not_be_0_has_no_mask():
    net = Net(options=eisnn.nn.PLUS)
    prune.random_unstructured(net.conv.weights, "sigma", 0.5)
    with pytest.raises(ValueError, match=r"conv.weights: sigma is masked, but must stay >= 0.03"):
        eisnn.dale_violations(net)


def test_masks_are_made_permanent_before_folding():
    net = trained(lambda conv: prune.random_unstructured(conv, "weight_ee", 0.5))
    with pytest.raises(ValueError, match=r"Net has masks of torch.nn.utils.prune; make them permanent"):
        eisnn.fold(net)
    prune.remove(net.conv, "weight_ee")
    assert torch.allclose(eisnn.fold(net)(images()), net(images()), atol=1e-5)


class Minus(nn.Module):
    def forward(self, weight):
        return -weight

    def right_inverse(self, weight):
        return -weight


REPARAMETRIZATIONS = {
    "parametrize": lambda conv: parametrize.register_parametrization(conv, "weight_ee", Minus()),
    "weight_norm": lambda conv: nn.utils.parametrizations.weight_norm(conv, "weight_ee"),
    "old weight_norm": lambda conv: nn.utils.weight_norm(conv, "weight_ee"),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("name", REPARAMETRIZATIONS)
def test_what_may_give_any_sign_is_refused(name, before):
    with pytest.raises(ValueError, match=r"conv: weight_ee is reparametrized .* Dale's law cannot be kept"):
        trained(REPARAMETRIZATIONS[name], before)


def test_pruning_before_ei_init_is_refused():
    net = Net()
    prune.random_unstructured(net.conv, "weight_ee", 0.5)
    with pytest.raises(ValueError, match="conv: weight_ee is masked already; prune after ei_init_"):
        eisnn.ei_init_(net, images())
    assert not net.conv.initialized


def test_shared_weights_are_refused_before_anything_is_drawn():
    net = nn.Sequential(*(eisnn.EILinear(12, 12) for _ in range(2)))
    for shared in (net[0].weight_ie, nn.Parameter(net[0].weight_ie.data)):
        net[1].weight_ie = shared
        with pytest.raises(ValueError, match="0 and 1 share the parameter weight_ie"):
            eisnn.ei_init_(net, torch.rand(1, 4, 12))
        assert net[0].weight_ie.count_nonzero() == 0


def test_a_layer_used_twice_is_one_layer():
    shared = eisnn.EILinear(12, 12)
    net = nn.Sequential(shared, shared)
    eisnn.ei_init_(net, torch.rand(3, 4, 12))
    assert len(layers_of(net)) == 1


def test_a_layer_without_its_two_methods_says_so():
    class Unfinished(SpikingLayer):
        neuron = None

    with pytest.raises(NotImplementedError, match="Unfinished defines no receives"):
        Unfinished()(torch.rand(1, 2, 3))
