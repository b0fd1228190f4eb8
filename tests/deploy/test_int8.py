"""Inference in int8: what is rounded, and what is exact."""

import copy
import pickle

import pytest
import torch
from circuits import rng
from torch import nn
from torch.nn import functional as F

import eisnn
from eisnn import ops
from eisnn.deploy import quantize
from eisnn.deploy.int8 import Int8Conv2d, _Int8Connection
from eisnn.nn import PLUS
from eisnn.nn.inference import FoldedLayer
from eisnn.nn.projection import ProjectionLayer

IMAGES = torch.rand(8, 3, 16, 16, generator=rng(0))


def network(circuit="ei", model="convnet3", **options):
    torch.manual_seed(0)
    net = eisnn.create_model(model, time_steps=3, width=0.5, circuit=circuit, **options)
    if circuit == "ei":
        eisnn.ei_init_(net, IMAGES, generator=rng(1))
    else:
        net(IMAGES)
    return net.eval()


@pytest.mark.parametrize("geometry", [ops.Conv((1, 1), (1, 1)), ops.Conv((2, 1), (0, 1), (1, 2))])
@pytest.mark.parametrize("bias", [False, True])
def test_only_the_weights_are_rounded(geometry, bias):
    """Equal to the convolution with weights of 255 levels in each row, at inputs that are multiples of 1/4."""
    weight = torch.randn(6, 5, 3, 3, generator=rng(2)) * torch.logspace(-3, 3, 6)[:, None, None, None]
    weight[5] = 0
    offset = torch.randn(6, generator=rng(3)) if bias else None
    x = torch.randint(0, 256, (4, 5, 9, 8), generator=rng(4)) / 4
    scale = weight.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-30) / 127
    rounded = ((weight / scale).round() * scale).double()
    around = geometry.stride, geometry.padding, geometry.dilation
    expected = F.conv2d(x.double(), rounded, None if offset is None else offset.double(), *around)
    ours = Int8Conv2d(weight, geometry, offset)(x)
    assert (ours - expected).abs().amax((0, 2, 3)).div(expected.abs().amax((0, 2, 3)).clamp_min(1e-9)).max() < 1e-6


def in_int8(layer):
    changed = layer.connection if isinstance(layer, FoldedLayer) else layer.projection
    return isinstance(changed, _Int8Connection | Int8Conv2d)


def layers_of(net):
    return [m for m in net.modules() if type(m) in (FoldedLayer, ProjectionLayer)]


@pytest.mark.parametrize("changes", [{}, {"circuit_options": PLUS}, {"circuit": "bn"}, {"model": "resnet18"}])
def test_all_convolutions_of_spikes_and_no_other(changes):
    """Their currents are those of the float32 network within the rounding of weights; the network is left as it was."""
    net = network(**changes)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    exact, small = eisnn.fold(net), quantize(net, IMAGES)
    assert [in_int8(layer) for layer in layers_of(small)] == [False] + [True] * (len(layers_of(small)) - 1)
    inputs = []
    for layer in layers_of(exact):
        layer.register_forward_pre_hook(lambda m, args: inputs.append(args))
    with torch.no_grad():
        expected, found = exact(IMAGES), small(IMAGES)
        for layer, other, args in zip(layers_of(exact), layers_of(small), list(inputs), strict=True):
            layer.neuron = other.neuron = None
            current = layer(*args)
            assert (other(*args) - current).std() < 0.02 * current.std()
    assert (found - expected).std() < 0.5 * expected.std()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_what_is_no_multiple_of_a_quarter_stays_in_float32():
    class Half(nn.Module):
        def forward(self, current):
            return 0.3 * (current > 0).float()

    net = network()
    net.layers[0].neuron = Half()
    assert [in_int8(layer) for layer in layers_of(quantize(net, IMAGES))] == [False, False, True]


@pytest.mark.parametrize("use", [copy.deepcopy, pickle.dumps, eisnn.fold, lambda net: quantize(net, IMAGES)])
def test_it_stays_where_it_is(use):
    with pytest.raises(TypeError, match="neither copied, saved, folded nor quantized again"):
        use(quantize(network(), IMAGES))


def test_errors():
    with pytest.raises(ValueError, match=r"takes a float32 network on the CPU, got torch\.float64"):
        quantize(network().double(), IMAGES.double())
    with pytest.raises(ValueError, match="nothing would run in int8"):
        quantize(network(model="mlp", image_size=16), IMAGES)
    with pytest.raises(RuntimeError, match="never initialised"):
        quantize(eisnn.create_model("convnet3"), IMAGES)
