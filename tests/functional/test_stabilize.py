"""Adaptive stabilisation (Algorithm 2): zeros become the smallest positive value of their own sample."""

import pytest
import torch
from circuits import rng, spikes
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import eisnn.functional as EF

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]


def divisive(seed: int, shape: tuple[int, ...] = (2, 3, 4, 3, 3), rate: float = 0.5) -> Tensor:
    """Exponential values of which `1 - rate` are exactly 0."""
    values = torch.empty(shape, dtype=torch.float64).exponential_(generator=rng(seed)) + 1e-3
    return values * spikes(shape, rate, seed + 1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_hand_example(dtype):
    i_div = torch.tensor([[[0.0, 2.0, 0.5], [4.0, 0.0, 0.0], [0.0, 0.0, 0.0]]], dtype=dtype)
    inf = torch.inf
    assert EF.smallest_positive(i_div).tolist() == [[[0.5], [4.0], [inf]]]
    out = EF.stabilize(i_div)
    assert out.dtype == dtype
    assert out.tolist() == [[[0.5, 2.0, 0.5], [4.0, 4.0, 4.0], [inf, inf, inf]]]


@given(seed=st.integers(0, 10**6), rate=st.sampled_from([0.0, 0.05, 0.5, 1.0]))
def test_each_sample_by_itself_as_the_algorithm_says(seed, rate):
    i_div = divisive(seed, rate=rate)
    out = EF.stabilize(i_div)
    for t in range(2):
        for b in range(3):
            sample = i_div[t, b]
            positive = sample[sample > 0]
            smallest = positive.min() if len(positive) else torch.tensor(torch.inf, dtype=torch.float64)
            assert torch.equal(out[t, b], torch.where(sample > 0, sample, smallest))


@given(seed=st.integers(0, 10**6))
def test_a_sample_never_depends_on_the_others(seed):
    i_div = divisive(seed)
    out = EF.stabilize(i_div)
    i_div[0, 1] *= 1e-6  # the smallest positive value of the batch
    i_div[1, 2] = 0
    changed = EF.stabilize(i_div)
    untouched = torch.ones(2, 3, dtype=torch.bool)
    untouched[0, 1] = untouched[1, 2] = False
    assert torch.equal(changed[untouched], out[untouched])
    assert torch.equal(EF.stabilize(i_div[:1, :1]), changed[:1, :1])


def test_the_backward_pass_is_straight_through():
    i_div = divisive(0).requires_grad_()
    upstream = torch.randn(i_div.shape, generator=rng(1), dtype=torch.float64)
    EF.stabilize(i_div).backward(upstream)
    assert (i_div == 0).any()
    assert torch.equal(i_div.grad, upstream)


def test_what_is_not_positive_counts_as_zero():
    assert EF.stabilize(torch.tensor([[[-1e-9, 0.0, -0.0, 3.0]]])).tolist()[0][0] == pytest.approx([3.0] * 4, abs=1e-8)


def test_any_memory_format_and_no_change_of_the_input():
    i_div = divisive(3)
    last = i_div.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, (2, 3))
    copied = last.clone()
    assert torch.equal(EF.stabilize(last), EF.stabilize(i_div))
    assert torch.equal(last, copied)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_smallest_number_of_the_dtype_is_positive(dtype):
    tiny = torch.finfo(dtype).tiny
    assert EF.stabilize(torch.tensor([[[0.0, tiny, 1.0]]], dtype=dtype)).tolist() == [[[tiny, tiny, 1.0]]]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_silent_sample_gives_the_bias_and_gradients_to_nothing_else(dtype):
    gain = torch.tensor([1.0, 2.0], dtype=dtype, requires_grad=True)
    bias = torch.tensor([0.25, -3.0], dtype=dtype, requires_grad=True)
    balanced, i_div = (torch.zeros(2, 3, 2, 4, 4, dtype=dtype, requires_grad=True) for _ in range(2))
    i_e = EF.integrate(balanced, i_div, gain, bias)
    assert torch.equal(i_e, bias.detach().view(2, 1, 1).expand(2, 3, 2, 4, 4))
    i_e.backward(torch.ones_like(i_e))
    for leaf in (balanced, i_div, gain):
        assert torch.equal(leaf.grad, torch.zeros_like(leaf))
    assert bias.grad.tolist() == [96, 96]


def test_divisor_without_any_inhibition_gives_the_bias_whatever_the_excitation():
    balanced = torch.full((1, 1, 2), 7.0, requires_grad=True)
    i_e = EF.integrate(balanced, torch.zeros(1, 1, 2), torch.ones(2), torch.tensor([1.0, -1.0]))
    assert i_e.tolist() == [[[1.0, -1.0]]]
    i_e.sum().backward()
    assert balanced.grad.tolist() == [[[0, 0]]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_division_is_done_in_float32_and_rounded_once(dtype):
    balanced = torch.randn(2, 3, 4, 5, generator=rng(0)).to(dtype)
    i_div, gain, bias = divisive(1, (2, 3, 4, 5)).to(dtype), torch.rand(4).to(dtype), torch.rand(4).to(dtype)
    wide = EF.integrate(balanced.float(), i_div.float(), gain.float(), bias.float())
    assert torch.equal(EF.integrate(balanced, i_div, gain, bias), wide.to(dtype))
    assert EF.integrate(balanced, i_div, gain.float(), bias.float()).dtype == torch.float32  # as under autocast
