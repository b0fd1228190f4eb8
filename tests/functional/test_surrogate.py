"""Surrogate derivatives: bumps around the threshold that stand for the derivative of the step."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import eisnn
import eisnn.functional as EF
from eisnn.functional.surrogate import register_surrogate

NAMES = sorted(EF.SURROGATES)
SYMMETRIC = [n for n in NAMES if n != "leaky_relu"]
NORMALISED = ["sigmoid", "atan", "triangle", "rectangle"]


def test_the_names():
    assert NAMES == ["atan", "fast_sigmoid", "leaky_relu", "rectangle", "sigmoid", "triangle"]


@pytest.mark.parametrize("name", NAMES)
@given(h=st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=20), alpha=st.none() | st.floats(0.1, 20))
def test_never_negative_and_finite(name, h, alpha):
    derivative = EF.surrogate_derivative(torch.tensor(h, dtype=torch.float64), name, alpha)
    assert torch.isfinite(derivative).all()
    assert (derivative >= 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_keeps_the_dtype_and_stays_finite_in_it(name, dtype):
    derivative = EF.surrogate_derivative(torch.tensor([-6e4, -1.0, -1e-7, 0.0, 0.3, 2.0, 6e4], dtype=dtype), name)
    assert derivative.dtype == dtype
    assert torch.isfinite(derivative).all()
    assert (derivative >= 0).all()


@pytest.mark.parametrize("name", SYMMETRIC)
@given(h=st.floats(0, 100), alpha=st.none() | st.floats(0.1, 20))
def test_symmetric_and_decreasing_from_the_threshold(name, h, alpha):
    at, mirrored, further = EF.surrogate_derivative(torch.tensor([h, -h, 1.5 * h], dtype=torch.float64), name, alpha)
    rounding = 1e-15 * (alpha or 10)  # of `s - s^2` far from the threshold
    assert abs(at - mirrored) <= rounding
    assert further <= at + rounding


@pytest.mark.parametrize("alpha", [None, 0.7, 5.0])
@pytest.mark.parametrize("name", NORMALISED)
def test_integrates_to_one(name, alpha):
    h = torch.linspace(-1000, 1000, 2_000_001, dtype=torch.float64)
    integral = torch.trapezoid(EF.surrogate_derivative(h, name, alpha), h)
    # the edges of the rectangle are good to the grid, 1e-3 a; the tails of the arctangent hold 4 / (pi^2 a 1000)
    assert integral == pytest.approx(1, abs=6e-3)


def test_the_other_integrals():
    h = torch.linspace(-1000, 1000, 2_000_001, dtype=torch.float64)
    fast = torch.trapezoid(EF.surrogate_derivative(h, "fast_sigmoid", 4.0), h)
    assert fast == pytest.approx(2 / 4, abs=1e-3)
    assert EF.surrogate_derivative(torch.tensor([-0.1, 0.0, 7.0]), "leaky_relu", 0.25).tolist() == [0.25, 1.0, 1.0]


@pytest.mark.parametrize("alpha", [1.0, 4.0])
def test_derivative_of_the_function_it_is_named_after(alpha):
    h = torch.linspace(-3, 3, 61, dtype=torch.float64, requires_grad=True)
    for name, primitive in [
        ("sigmoid", torch.sigmoid(alpha * h)),
        ("atan", torch.atan(math.pi / 2 * alpha * h) / math.pi + 0.5),
        ("fast_sigmoid", h / (1 + alpha * h.abs())),
    ]:
        (expected,) = torch.autograd.grad(primitive.sum(), h)
        torch.testing.assert_close(EF.surrogate_derivative(h.detach(), name, alpha), expected, rtol=1e-12, atol=1e-14)


def test_the_papers_defaults():
    h = torch.tensor([-0.5, 0.0, 0.2], dtype=torch.float64)
    s = torch.sigmoid(4 * h)
    torch.testing.assert_close(EF.surrogate_derivative(h), 4 * s * (1 - s))
    torch.testing.assert_close(EF.surrogate_derivative(h, "atan"), 1 / (1 + (math.pi * h) ** 2))


@pytest.mark.parametrize("name", NAMES)
def test_heaviside_fires_at_the_threshold_and_differentiates_as_the_surrogate(name):
    h = torch.tensor([-1.0, -1e-30, 0.0, 1e-30, 2.0], dtype=torch.float64, requires_grad=True)
    s = EF.heaviside(h, name)
    assert s.tolist() == [0, 0, 1, 1, 1]
    upstream = torch.tensor([1.0, 2.0, 3.0, -4.0, 5.0], dtype=torch.float64)
    s.backward(upstream)
    assert torch.equal(h.grad, upstream * EF.surrogate_derivative(h.detach(), name))


@pytest.mark.parametrize("call", [EF.heaviside, EF.surrogate_derivative])
def test_an_unknown_name_is_named(call):
    with pytest.raises(ValueError, match="unknown surrogate 'step'; known: atan"):
        call(torch.zeros(1, requires_grad=True), "step").sum().backward()


@pytest.mark.usefixtures("backend")
def test_an_entry_of_ones_own_trains_on_every_back_end():
    name = "of my own"
    register_surrogate(name, 2.0)(lambda h, alpha: (1 - (h * alpha).square()).clamp_min(0))
    try:
        layer = eisnn.EIConv2d(3, 8, 3, padding=1, neuron=eisnn.LIF(surrogate=name)).double()
        x = torch.rand(1, 4, 3, 6, 6, dtype=torch.float64)
        eisnn.ei_init_(layer, x)
        spikes = layer(x, time_steps=3)
        found = torch.autograd.grad(spikes.sum(), list(layer.parameters()))
        expected_spikes = EF.lif(layer.integrated(x), layer.neuron.constants, time_steps=3)[0]
        expected = torch.autograd.grad(expected_spikes.sum(), list(layer.parameters()))
        assert torch.equal(spikes, expected_spikes)
        for ours, theirs in zip(found, expected, strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12)
        assert any(gradient.abs().max() > 0 for gradient in found)
    finally:
        del EF.SURROGATES[name]
