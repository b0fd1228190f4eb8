"""Convolutions of small maps by products of matrices: against torch's, and where they are chosen."""

import copy

import pytest
import torch
from circuits import assert_agree, rng, spikes
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import eisnn
from eisnn.methods.bn import BNConv2d
from eisnn.nn.projection import PlainConv2d
from eisnn.ops import Conv
from eisnn.ops.conv2d import cpu, op
from eisnn.ops.conv2d.op import conv2d, conv2d_backward

BY_PRODUCTS = pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="torch without MKL")


def last(x):
    return x.contiguous(memory_format=torch.channels_last)


def wide(images=32, size=4, channels=256, n=160, taps=3, dtype=torch.float64):
    """Spikes and weights of a layer that products serve."""
    x = last(spikes((images, channels, size, size), dtype=dtype))
    return x, last(torch.randn(n, channels, taps, taps, generator=rng(1), dtype=dtype))


@pytest.fixture
def served(monkeypatch):
    """How often products were taken, forward and backward."""
    counts = {"forward": 0, "backward": 0}
    for name, function in (("forward", "by_products"), ("backward", "backward_by_products")):
        original = getattr(op, function)

        def count(*args, name=name, original=original):
            counts[name] += 1
            return original(*args)

        monkeypatch.setattr(op, function, count)
    return counts


formats = st.sampled_from([torch.contiguous_format, torch.channels_last])
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@given(
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    taps=pairs,
    stride=pairs,
    padding=pairs,
    images=st.integers(1, 4),
    formats=st.tuples(formats, formats),
)
@settings(max_examples=150, deadline=None)
def test_as_torch_in_value_and_gradient(size, taps, stride, padding, images, formats):
    padding = tuple(p - 1 for p in padding)
    if any(s + 2 * p < k for s, p, k in zip(size, padding, taps, strict=True)):
        return
    g = rng(sum(size))
    x = torch.rand(images, 5, *size, generator=g, dtype=torch.float64).to(memory_format=formats[0]).requires_grad_()
    weight = torch.randn(7, 5, *taps, generator=g, dtype=torch.float64).to(memory_format=formats[1]).requires_grad_()
    theirs = F.conv2d(x, weight, None, stride, padding)
    ours = cpu.by_products(x.detach(), weight.detach(), Conv(stride, padding))
    assert_agree(ours, theirs, 1e-13, 1)
    if min(*size, *taps) > 1:  # else both formats may be the same
        for memory_format in (torch.contiguous_format, torch.channels_last):
            if theirs.is_contiguous(memory_format=memory_format):
                assert ours.is_contiguous(memory_format=memory_format)
    upstream = torch.randn(theirs.shape, generator=g, dtype=torch.float64)
    # As it may come: contiguous, channels last, a part of something larger, one value for all.
    larger = torch.cat([upstream, upstream], 1)[:, :7]
    for given_grad in (upstream, last(upstream), larger, upstream[:1, :, :1, :1].expand_as(upstream)):
        expected = torch.autograd.grad(theirs, (x, weight), given_grad, retain_graph=True)
        found = cpu.backward_by_products(given_grad, x.detach(), weight.detach(), Conv(stride, padding), True)
        for a, b in zip(found, expected, strict=True):
            assert_agree(a, b, 1e-13, 1)


@BY_PRODUCTS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_wide_layers_with_few_positions_take_products(served, dtype):
    x, weight = wide(dtype=dtype)
    geometry = Conv((1, 1), (1, 1))
    y = conv2d(x, weight, None, geometry)
    assert served["forward"] == 1
    assert y.is_contiguous(memory_format=torch.channels_last)
    truth = F.conv2d(x.double(), weight.double(), padding=1)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-14
    assert_agree(y, truth, tolerance)
    grad = torch.randn(y.shape, generator=rng(2), dtype=dtype)
    for input_too in (True, False):
        grad_x, grad_weight = conv2d_backward(grad, x, weight, geometry, input_too)
        assert (grad_x is not None) == input_too
        expected = torch.ops.aten.convolution_backward(
            grad.double(),
            x.double(),
            weight.double(),
            None,
            [1, 1],
            [1, 1],
            [1, 1],
            False,
            [0, 0],
            1,
            [True, True, False],
        )
        assert_agree(grad_weight, expected[1], tolerance)
        if grad_x is not None:
            assert_agree(grad_x, expected[0], tolerance)
    assert served["backward"] == 2


@pytest.mark.parametrize(
    "change",
    [{"size": 9, "images": 96}, {"images": 8}, {"size": 5, "images": 20}, {"channels": 64}, {"dtype": torch.bfloat16}],
    ids=["many positions", "few images", "fewer images than positions", "few weights", "bf16"],
)
def test_others_take_torchs_operator(served, change):
    x, weight = wide(**change)
    y = conv2d(x, weight, None, Conv((1, 1), (1, 1)))
    assert served["forward"] == 0
    assert torch.equal(y, F.conv2d(x, weight, padding=1))


def test_what_products_do_not_serve_takes_torchs_operator(served):
    x, weight = wide(dtype=torch.float32)
    torch.testing.assert_close(
        conv2d(x, weight, None, Conv((1, 1), (2, 2), (2, 2))), F.conv2d(x, weight, padding=2, dilation=2)
    )
    torch.testing.assert_close(
        conv2d(x, weight.contiguous(), None, Conv((1, 1), (1, 1))), F.conv2d(x, weight, padding=1)
    )
    with torch.autocast("cpu", torch.bfloat16):
        assert conv2d(x, weight, None, Conv((1, 1), (1, 1))).dtype == torch.bfloat16
    assert served["forward"] == 0
    with pytest.raises(RuntimeError, match="channels"):
        conv2d(x, weight[:, :255], None, Conv((1, 1), (1, 1)))


def test_taps_that_meet_nothing_get_no_gradient():
    """At one position a 3x3 kernel has its middle alone."""
    x, weight = wide(size=1)
    grad_x, grad_weight = conv2d_backward(
        torch.ones(32, 160, 1, 1, dtype=x.dtype), x, weight, Conv((1, 1), (1, 1)), True
    )
    middle = torch.zeros(3, 3, dtype=torch.bool)
    middle[1, 1] = True
    assert not grad_weight[:, :, ~middle].any()
    assert grad_weight[:, :, middle].any()
    assert grad_x is not None
    assert_agree(grad_x[0, :, 0, 0], weight[:, :, 1, 1].sum(0), 1e-13)


@BY_PRODUCTS
def test_circuit_and_twin_take_products(served):
    torch.manual_seed(0)
    for layer in (eisnn.EIConv2d(256, 160, 3, padding=1), BNConv2d(256, 160, 3, padding=1)):
        served.update(forward=0, backward=0)
        layer = layer.to(memory_format=torch.channels_last)
        x = last(spikes((64, 256, 4, 4), dtype=torch.float32)).unflatten(0, (4, 16)).requires_grad_()
        eisnn.ei_init_(layer, x) if isinstance(layer, eisnn.EIConv2d) else None
        served.update(forward=0)
        layer(x).sum().backward()
        assert served["forward"] == 1
        assert served["backward"] >= 1


@BY_PRODUCTS
@pytest.mark.parametrize("few", [True, False], ids=["through the currents", "through the weights"])
def test_gradients_of_a_wide_circuit(few, served):
    """Both ways back of the stacked kernel, with the convolutions by products: against plain autograd in float64."""
    steps, batch = (2, 16) if few else (4, 64)
    x, ee = wide(images=steps * batch, channels=144)
    ie, ei = last(ee[:64].abs().clone()), torch.rand(160, 64, generator=rng(3), dtype=torch.float64) / 64
    ee = last(torch.cat([ee, ee])[:320].abs())
    ei = torch.cat([ei, ei]) / 10
    leaves = [t.detach().clone().requires_grad_() for t in (x, ee, ie, ei)]
    gain, connection = torch.ones(64, dtype=x.dtype), eisnn.ops.Conv(padding=(1, 1))
    y = leaves[0].unflatten(0, (steps, batch))
    currents, _ = eisnn.ops.stacked_currents(y, *leaves[1:], gain, connection)
    i_ie = F.conv2d(leaves[0], leaves[2], padding=1)
    written = torch.cat(
        [F.conv2d(leaves[0], leaves[1], padding=1) - F.conv2d(i_ie, leaves[3][:, :, None, None]), i_ie], 1
    )
    assert_agree(currents.flatten(0, 1), written, 1e-12)
    upstream = torch.randn(written.shape, generator=rng(4), dtype=x.dtype)
    found = torch.autograd.grad(currents, leaves, upstream.view(currents.shape))
    expected = torch.autograd.grad(written, leaves, upstream)
    for a, b, factor in zip(found, expected, (1, 1, 1, 144 * 9), strict=True):
        assert_agree(a * factor, b, 1e-12)
    assert served["backward"] == 1  # the I neurons of the first way have too few weights


@BY_PRODUCTS
def test_the_plain_convolution_is_torchs(served):
    torch.manual_seed(0)
    ours = PlainConv2d(256, 160, 3, 2, 1, bias=True).to(memory_format=torch.channels_last)
    theirs = nn.Conv2d(256, 160, 3, 2, 1, bias=True)
    theirs.load_state_dict(ours.state_dict())
    x, _ = wide(size=7, dtype=torch.float32)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
    assert served["forward"] == 1
    assert torch.equal(copy.deepcopy(ours)(x), ours(x))


@BY_PRODUCTS
@pytest.mark.parametrize("kind", [eisnn.EIConv2d, BNConv2d])
def test_compiled_in_one_graph_for_any_batch(kind):
    torch.manual_seed(0)
    layer = kind(256, 160, 3, padding=1).to(memory_format=torch.channels_last)
    batches = [last(spikes((2 * n, 256, 4, 4), dtype=torch.float32)).unflatten(0, (2, n)) for n in (16, 20)]
    if isinstance(layer, eisnn.EIConv2d):
        eisnn.ei_init_(layer, batches[0])
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch._dynamo.mark_dynamic(batches[0], 1)
    for x in batches:
        results = []
        for run in (layer, compiled):
            y = run(x)
            results.append([y, *torch.autograd.grad(y.sum(), list(layer.parameters()))])
        for eager, other in zip(*results, strict=True):
            torch.testing.assert_close(other, eager, rtol=1e-3, atol=1e-3)


@BY_PRODUCTS
def test_derivatives_of_all_kinds(served):
    """Second and forward derivatives and transforms are torch's, where the first one is ours."""
    x, weight = wide()
    geometry = Conv((1, 1), (1, 1))

    def second(conv):
        leaf = x.detach().clone().requires_grad_()
        (first,) = torch.autograd.grad(conv(leaf, weight).square().sum(), leaf, create_graph=True)
        return torch.autograd.grad(first.square().sum(), leaf)[0]

    def ours(x, weight):
        return conv2d(x, weight, None, geometry)

    def theirs(x, weight):
        return F.conv2d(x, weight, padding=1)

    assert_agree(second(ours), second(theirs), 1e-12)
    assert served["forward"] == 1
    scale = torch.tensor(2.0, dtype=x.dtype)
    for transform in (torch.func.grad, torch.func.jacfwd):
        found, expected = (
            transform(lambda s, conv=conv: conv(x * s, weight).square().sum())(scale) for conv in (ours, theirs)
        )
        assert_agree(found, expected, 1e-12)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        tangent = torch.autograd.forward_ad.unpack_dual(ours(dual, weight)).tangent
        assert_agree(tangent, theirs(torch.ones_like(x), weight), 1e-12)


@BY_PRODUCTS
@pytest.mark.parametrize("frozen", ["x", "weight"])
def test_only_what_is_asked_for_is_computed(frozen, monkeypatch):
    asked = []
    original = op.backward_by_products
    monkeypatch.setattr(op, "backward_by_products", lambda *a: asked.append(a[4:]) or original(*a))
    x, weight = wide()
    x.requires_grad_(frozen != "x")
    weight.requires_grad_(frozen != "weight")
    conv2d(x, weight, None, Conv((1, 1), (1, 1))).sum().backward()
    assert asked == [(frozen != "x", frozen != "weight")]
    assert (x.grad is None) == (frozen == "x")
    assert (weight.grad is None) == (frozen == "weight")


@pytest.mark.parametrize(
    "changes", [{"padding_mode": "circular"}, {"groups": 2}, {"padding": "same"}, {"dilation": 2}], ids=lambda c: str(c)
)
def test_the_plain_convolution_takes_what_torchs_takes(changes):
    torch.manual_seed(0)
    arguments = {"padding": 1, **changes}
    ours, theirs = (kind(256, 160, 3, **arguments) for kind in (PlainConv2d, nn.Conv2d))
    theirs.load_state_dict(ours.state_dict())
    x, _ = wide(images=64, size=5, dtype=torch.float32)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours(x[0]), theirs(x[0]), rtol=1e-5, atol=1e-5)
