"""Approximate divisions, and networks that hold their divisors."""

import pytest
import torch
from circuits import rng
from hypothesis import given
from hypothesis import strategies as st
from networks import SEMISATURATED, images, small

import eisnn
from eisnn.deploy import Division, divide, hold
from eisnn.deploy.division import divides
from eisnn.nn.projection import ProjectionLayer


@given(st.floats(1e-30, 1e30), st.integers(1, 10))
def test_errors_of_the_reciprocals_are_bounded(divisor, bits):
    d = torch.tensor([divisor], dtype=torch.float64)
    shifted = Division("shift").reciprocal(d)
    assert torch.frexp(shifted).mantissa == 0.5  # a power of two
    assert 2**-0.51 <= float(shifted * d) <= 2**0.51
    table = Division("lut", 2**bits)
    assert len(table.reciprocals()) == 2**bits
    assert abs(float(table.reciprocal(d) * d) - 1) <= 0.5 / 2**bits + 2**-14


def test_the_gradient_is_that_of_the_exact_reciprocal():
    d = torch.tensor([0.7, 3.0, 40.0], dtype=torch.float64, requires_grad=True)
    for kind in ("exact", "shift", "lut"):
        (grad,) = torch.autograd.grad(Division(kind).reciprocal(d).sum(), d)
        torch.testing.assert_close(grad, -1 / d.detach() ** 2)


def test_nothing_is_divided_by_infinity():
    assert Division("lut").reciprocal(torch.tensor([torch.inf])) == 0


@pytest.mark.parametrize("bad", [{"kind": "half"}, {"kind": "lut", "entries": 48}, {"entries": 1}, {"entries": 4096}])
def test_what_is_no_division(bad):
    with pytest.raises(ValueError, match=r"division is|entries must be"):
        Division(**bad)


@pytest.mark.parametrize("options", [None, SEMISATURATED])
def test_a_fine_table_divides_like_the_network_and_a_coarse_one_nearly(options):
    model, x = small(options), images()
    exact = eisnn.fold(model)
    currents = {}
    for division in (Division("lut", 1024), Division("lut", 16), Division("shift")):
        layer, other = exact.layers[1], divide(model, division).layers[1]
        assert other.division == division
        spikes = (torch.rand(3, 6, 8, 4, 4, generator=rng(3)) < 0.3).double()
        ours, theirs = (m.measure(spikes, spikes)["I_E"] for m in (other, layer))
        currents[division] = float((ours - theirs).std() / theirs.std())
    assert list(currents.values()) == sorted(currents.values())
    fine, coarse, shifted = currents.values()
    assert 0 < fine < 1e-3
    assert coarse < 0.03
    assert 0.05 < shifted < 0.35
    torch.testing.assert_close(divide(model, Division())(x), exact(x))


def test_a_layer_trains_through_an_approximate_division():
    model, x = small(dtype=torch.float32), images(dtype=torch.float32)
    before = model(x)
    for layer in model.layers:
        layer.division = Division("shift")
    assert not torch.equal(model(x), before)
    torch.testing.assert_close(model(x), divide(model, Division("shift"))(x), atol=1e-4, rtol=0)
    model(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("options", [None, SEMISATURATED])
def test_held_divisors_are_means(options):
    """By a count in a loop; what is left is plain convolutions."""
    model, x = small(options), images()
    folded = eisnn.fold(model)
    first = folded.layers[0]
    held = hold(model, x, batch=4)
    assert all(type(layer) is ProjectionLayer for layer in held.layers)
    assert not divides(held)
    assert divides(model)
    total, count = torch.zeros(8, dtype=torch.float64), 0
    for image in x:
        i_div = first.measure(image[None, None], image)["I_div"]
        smallest = i_div[i_div > 0].min()
        for row in range(8):
            for column in range(8):
                here = i_div[0, 0, :, row, column]
                total += torch.where(here > 0, here, smallest)
                count += 1
    expected = first.kernel[:8] * (first.gain_e / (total / count))[:, None, None, None]
    torch.testing.assert_close(held.layers[0].projection.weight.detach(), expected)
    assert held(x).shape == model(x).shape


def test_errors():
    twin = eisnn.create_model("convnet3", circuit="bn", width=0.25).eval()
    for make in (lambda: divide(twin, Division("shift")), lambda: hold(twin, images(dtype=torch.float32))):
        with pytest.raises(ValueError, match="nothing divides in this VGG"):
            make()
    with pytest.raises(TypeError, match=r"as Division\('shift'\), got 'shift'"):
        divide(small(), "shift")
    uninhibited = small()
    uninhibited.layers[0].gain_i.data.zero_()
    with pytest.raises(ValueError, match=r"nothing ever divides in layers\.0"):
        hold(uninhibited, images())
    for options in (None, SEMISATURATED):
        for bad, problem in [(0 * images(), "nothing but zeros"), (images()[:0], r"shape \[0, 3, 8, 8\]")]:
            with pytest.raises(ValueError, match=problem):
                hold(small(options), bad)
        with pytest.raises(ValueError, match=r"in \[0, 1\]; got values up to 25\d\.\d*: divide pixels by 255"):
            hold(small(options), 255 * images())
