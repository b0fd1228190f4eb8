"""The row operations of exact balance (torch.py) on a GPU, in Triton: one program for each neuron,
which holds all its weights, and so one pass each where torch takes ten.

A neuron's weights are looked at as `[taps, channels]`, whichever of the two lies inside; not tap by tap, they are one
tap.
"""

import triton
import triton.language as tl


@triton.jit
def _tile(taps, channels, tap_stride, channel_stride, TAPS: tl.constexpr, CHANNELS: tl.constexpr):
    """Where the weights of this program's neuron lie, and which elements of the tile exist."""
    tap, channel = tl.arange(0, TAPS), tl.arange(0, CHANNELS)
    row = tl.program_id(0).to(tl.int64) * taps * channels
    here = (tap[:, None] < taps) & (channel[None, :] < channels)
    return row + tap[:, None] * tap_stride + channel[None, :] * channel_stride, here


@triton.jit
def _share(total, taps, TOTAL: tl.constexpr, C: tl.constexpr):
    """What the weights of one tap are to sum to."""
    share = tl.full((1,), 1.0, C)
    if TOTAL:
        share = share * tl.load(total).to(C)
    return share / taps


@triton.jit
def _at_tap(taps, TAPS: tl.constexpr):
    """Where this neuron's numbers for each tap lie, and which exist."""
    return tl.program_id(0) * taps + tl.arange(0, TAPS), tl.arange(0, TAPS) < taps


@triton.jit
def _shared(
    weight, total, sums, taps, here, LEAST: tl.constexpr, TOTAL: tl.constexpr, C: tl.constexpr, TAPS: tl.constexpr
):
    """This neuron's weights, each tap scaled to its share; keeps what the taps summed to."""
    share = _share(total, taps, TOTAL, C)
    w = tl.load(weight, mask=here, other=0).to(C)
    s = tl.maximum(tl.sum(w, 1), LEAST * share)
    at_tap, there = _at_tap(taps, TAPS)
    tl.store(sums + at_tap, s, mask=there)
    return w * (share / s)[:, None]


@triton.jit
def share_kernel(
    weight, total, shared, sums, taps, channels, tap_stride, channel_stride,
    LEAST: tl.constexpr, TOTAL: tl.constexpr, C: tl.constexpr, TAPS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    at, here = _tile(taps, channels, tap_stride, channel_stride, TAPS, CHANNELS)
    tl.store(shared + at, _shared(weight + at, total, sums, taps, here, LEAST, TOTAL, C, TAPS), mask=here)


@triton.jit
def fold_kernel(
    weight, product, total, row_norm, sums, norms, taps, channels, tap_stride, channel_stride,
    LEAST: tl.constexpr, SMALLEST: tl.constexpr, TOTAL: tl.constexpr, C: tl.constexpr, TAPS: tl.constexpr,
    CHANNELS: tl.constexpr,
):  # fmt: skip
    at, here = _tile(taps, channels, tap_stride, channel_stride, TAPS, CHANNELS)
    w = _shared(weight + at, total, sums, taps, here, LEAST, TOTAL, C, TAPS)
    f = w - tl.load(product + at, mask=here, other=0).to(C)
    norm = tl.maximum(tl.sqrt(tl.sum(tl.sum(f * f, 1), 0)), SMALLEST)
    tl.store(norms + tl.program_id(0), norm)
    tl.store(product + at, f * (tl.load(row_norm).to(C) / norm), mask=here)


@triton.jit
def through_fold_kernel(
    grad, folded, norms, row_norm, taps, channels, tap_stride, channel_stride,
    LEAST: tl.constexpr, TOTAL: tl.constexpr, C: tl.constexpr, TAPS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    at, here = _tile(taps, channels, tap_stride, channel_stride, TAPS, CHANNELS)
    norm_to = tl.load(row_norm).to(C)
    g = tl.load(grad + at, mask=here, other=0).to(C)
    unit = tl.load(folded + at, mask=here, other=0).to(C) / norm_to
    f = (g - unit * tl.sum(tl.sum(g * unit, 1), 0)) * (norm_to / tl.load(norms + tl.program_id(0)).to(C))
    tl.store(grad + at, f, mask=here)


@triton.jit
def through_share_kernel(
    grad, weight, sums, total, taps, channels, tap_stride, channel_stride,
    LEAST: tl.constexpr, TOTAL: tl.constexpr, C: tl.constexpr, TAPS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    at, here = _tile(taps, channels, tap_stride, channel_stride, TAPS, CHANNELS)
    at_tap, there = _at_tap(taps, TAPS)
    s = tl.load(sums + at_tap, mask=there, other=1).to(C)
    g = tl.load(grad + at, mask=here, other=0).to(C)
    w = tl.load(weight + at, mask=here, other=0).to(C)
    share = _share(total, taps, TOTAL, C)
    along = tl.where(s > LEAST * share, tl.sum(g * w, 1) / s, 0.0)
    tl.store(grad + at, (g - along[:, None]) * (share / s)[:, None], mask=here)
