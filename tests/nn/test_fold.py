"""`eisnn.fold`: a separate inference network with the same output."""

import copy

import pytest
import torch
from torch import nn

import eisnn
from eisnn.methods.bn import BNConv2d, BNLayer, BNLinear
from eisnn.nn import EICircuit
from eisnn.nn.inference import FoldedLayer
from eisnn.nn.projection import ProjectionLayer


def network(circuit, model="convnet3"):
    torch.manual_seed(0)
    net = eisnn.create_model(model, time_steps=3, width=0.25, circuit=circuit)
    x = torch.rand(6, 3, 32, 32)
    if circuit == "ei":
        eisnn.ei_init_(net, x, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            for name, p in net.named_parameters():
                if name.endswith(("gain_e", "bias")):
                    p.add_(torch.rand_like(p))
    else:
        for _ in range(20):
            net(torch.rand(6, 3, 32, 32))
    return net.eval(), x


@pytest.mark.parametrize("model", ["convnet3", "resnet18"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_an_ei_network_folds_to_the_same_output(model, memory_format):
    net, x = network("ei", model)
    net, before = net.to(memory_format=memory_format), copy.deepcopy(net.state_dict())
    folded = eisnn.fold(net)
    with torch.no_grad():
        assert torch.equal(folded(x), net(x))
        sequence = torch.rand(3, 2, 3, 32, 32)
        assert torch.equal(folded(sequence, per_step=True), net(sequence, per_step=True))
        state = folded(x, return_state=True)[1]
        expected = net(x, return_state=True)[1]
        assert torch.equal(folded(x, state=state), net(x, state=expected))
    assert not any(isinstance(m, EICircuit) for m in folded.modules())
    assert list(folded.parameters()) == []
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_batch_norm_is_merged():
    net, x = network("bn")
    net = net.double()
    folded = eisnn.fold(net)
    for name, layer in net.named_modules():
        if isinstance(layer, BNLayer):
            layer.neuron = folded.get_submodule(name).neuron = None  # compare currents: no spike flips by rounding
    with torch.no_grad():
        torch.testing.assert_close(folded(x.double().clamp(0)), net(x.double()), rtol=1e-10, atol=1e-10)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())


def test_the_copy_is_separate_and_saves_and_loads():
    net, x = network("ei")
    folded = eisnn.fold(net)
    with torch.no_grad():
        expected = folded(x)
        for p in net.parameters():
            p.mul_(2)
        assert torch.equal(folded(x), expected)
        again = eisnn.fold(net)
        again.load_state_dict(folded.state_dict())
        assert torch.equal(again(x), expected)


def test_one_layer_and_a_layer_without_neuron():
    layer = eisnn.EILinear(6, 4, neuron=None)
    eisnn.ei_init_(layer, torch.rand(2, 5, 6))
    x = torch.rand(2, 3, 6)
    with torch.no_grad():
        torch.testing.assert_close(eisnn.fold(layer)(x), layer(x))


@pytest.mark.parametrize("circuit", ["ei", "bn"])
def test_what_is_folded_folds_to_an_equal_copy(circuit):
    net, x = network(circuit)
    folded = eisnn.fold(net)
    again = eisnn.fold(folded)
    assert torch.equal(again(x), folded(x))
    assert not {id(m) for m in again.modules()} & {id(m) for m in folded.modules()}


@pytest.mark.parametrize("kind", [eisnn.EILinear, BNLinear])
def test_a_layer_of_two_names_stays_one_layer(kind):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = self.again = kind(6, 6)
            self.inner = nn.ModuleList([self.first, nn.Identity()])

        def forward(self, x):
            return self.again(self.first(x)) + self.inner[0](x)

    torch.manual_seed(0)
    net, x = Twice(), torch.rand(2, 3, 6)
    eisnn.ei_init_(net, x)
    folded = eisnn.fold(net.eval())
    assert folded.first is folded.again is folded.inner[0]
    assert type(folded.first) in (FoldedLayer, ProjectionLayer)
    with torch.no_grad():
        assert torch.equal(folded(x), net(x))


LAYERS = [
    lambda: eisnn.EIConv2d(3, 8, 3, padding=1),
    lambda: eisnn.EILinear(12, 8),
    lambda: eisnn.EIReadout(12, 8),
    lambda: BNConv2d(3, 8, 3, padding=1),
    lambda: BNLinear(12, 8),
]


@pytest.mark.parametrize("make", LAYERS)
def test_a_folded_layer_checks_what_its_layer_checks(make):
    layer = make()
    x = torch.rand(2, 3, 3, 5, 5) if isinstance(layer, eisnn.EIConv2d | BNConv2d) else torch.rand(2, 3, 12)
    eisnn.ei_init_(layer, x)
    state = layer(x, return_state=True)[1]
    wrong = [
        ((x[0],), {}),
        ((x[:, :, :2],), {}),
        ((x[:0],), {}),
        ((x.byte(),), {}),
        ((x, 4), {}),
        ((x, True), {}),
        ((x,), {"state": torch.zeros(1) if state is None else state[:1]}),
    ]
    folded = eisnn.fold(layer)
    for args, options in wrong:
        messages = []
        for called in (layer, folded):
            with pytest.raises((ValueError, TypeError)) as caught:
                called(*args, **options)
            messages.append(str(caught.value).replace(type(called).__name__, "LAYER"))
        assert messages[0] == messages[1]


@pytest.mark.parametrize("circuit", ["ei", "bn"])
def test_a_state_of_another_batch_is_named(circuit):
    net, x = network(circuit)
    folded = eisnn.fold(net)
    state = folded(x, return_state=True)[1]
    with pytest.raises(ValueError, match=r"here of shape \[64, 8, 32, 32\], got .*\[6, 8, 32, 32\]"):
        folded(torch.rand(64, 3, 32, 32), state=state)


@pytest.mark.parametrize(("circuit", "value"), [("ei", -1e-3), ("ei", float("nan")), ("bn", float("inf"))])
def test_a_folded_network_refuses_the_images_that_the_network_refuses(circuit, value):
    net, x = network(circuit)
    x[1, 2, 3, 4] = value
    for called in (net, eisnn.fold(net)):
        what = "a network must be finite" if circuit == "bn" else "an E-I network must be >= 0 and finite"
        with pytest.raises(RuntimeError, match=f"the input of {what}"):
            called(x)


def test_what_cannot_be_folded_is_named():
    with pytest.raises(RuntimeError, match=r"layers\.0, .*never initialised.*ei_init_"):
        eisnn.fold(eisnn.create_model("convnet3"))
    with pytest.raises(ValueError, match="Linear has no E-I or batch-norm layer"):
        eisnn.fold(nn.Linear(2, 2))


@pytest.mark.parametrize("circuit", ["ei", "bn"])
def test_a_folded_network_cannot_be_trained_and_says_so(circuit):
    net, x = network(circuit)
    folded = eisnn.fold(net)
    for make in (eisnn.plus_optimizer, lambda model: eisnn.enforce_dale(torch.optim.SGD(net.parameters(), 0.1), model)):
        with pytest.raises(ValueError, match=r"this VGG has no parameter to train: .* train the network that"):
            make(folded)
    if circuit == "ei":
        net.layers[1] = folded.layers[1]
        with pytest.raises(ValueError, match=r"this VGG cannot be trained: layers\.1 is folded, .* eisnn\.fold after"):
            eisnn.plus_optimizer(net)
        with pytest.raises(RuntimeError, match=r"this FoldedLayer is for inference only .* call model\.eval\(\)"):
            net.train()(x)
        assert net.eval()(x).requires_grad
