"""The population operation on a GPU, in Triton: the same mathematics as `population.cpp`, one pass each way.

A program works on one tile of one image, over all time steps. A map is `[step, image, row, inner]` as in the compiled
kernel: `inner` runs over neurons (channels last, dense layers; INSIDE) or rows do. Sums over positions are
written tile by tile and added up by torch, in the same order every time: no atomic additions.

What divides (DIVISION):

ALONE   nothing: the LIF neuron by itself
MAP     `I_div`, made by torch; less than the sample's smallest positive value it is replaced by that, as Algorithm 2
        has it, for nothing lies between 0 and the smallest
TONIC   one current of the I neurons, pooled, and that of a tonic one, which is 1 everywhere, with their weights

Up to KEPT steps the membrane trajectory of the backward pass stays in registers; longer ones go through memory.

The interpreter (`TRITON_INTERPRET=1`, set before this module is imported) runs it on CPU tensors, for the tests.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from eisnn.functional.lif import LIFConstants
from eisnn.ops.layout import Layout

ROWS, COLUMNS = 16, 64  # of one tile
BLOCK = 4096  # of a reduction over one sample
ALONE, MAP, TONIC = 0, 1, 2
WARPS = 8  # two elements of a tile for each thread and row keep the registers of the backward pass few
KEPT = 4

# ruff: noqa: RET505 - nor different types after a return: what follows one is compiled as well


@triton.jit
def _slope(x, alpha, SURROGATE: tl.constexpr):
    """Surrogate derivative at x = H - theta."""
    if SURROGATE == 0:  # sigmoid
        s = 1.0 / (1.0 + tl.exp(-(x * alpha)))
        return (s - s * s) * alpha
    if SURROGATE == 1:  # atan
        y = x * (tl.full((1, 1), 1.5707963267948966, x.dtype) * alpha)
        return (0.5 * alpha) / (1.0 + y * y)
    if SURROGATE == 2:  # fast_sigmoid
        y = 1.0 + tl.abs(x) * alpha
        return 1.0 / (y * y)
    if SURROGATE == 3:  # triangle
        y = 1.0 - tl.abs(x) * alpha
        return tl.where(y > 0, y * alpha, 0.0)
    if SURROGATE == 4:  # rectangle
        return tl.where(tl.abs(x) < 0.5 / alpha, alpha, 0.0)
    # leaky_relu
    return tl.where(x >= 0, 1.0, alpha)


@triton.jit
def _tile(n_rows, n_inner, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Row and column numbers of this program's tile, and which of them exist."""
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    return row, column, (row[:, None] < n_rows) & (column[None, :] < n_inner)


@triton.jit
def _per_neuron(pointer, row, column, here, stride: tl.constexpr, INSIDE: tl.constexpr, C: tl.constexpr):
    """Gain, bias or one of the weights of each element of the tile; `stride` 0 stands for what is not there."""
    if stride == 0:
        return tl.zeros(here.shape, C)
    neuron = column[None, :] * INSIDE + row[:, None] * (1 - INSIDE)
    return tl.load(pointer + neuron * stride, mask=here, other=0).to(C)


@triton.jit
def _at(image, row, column, image_stride, row_stride):
    """Where this tile of one step of a map lies."""
    return image * image_stride + row[:, None] * row_stride + column[None, :]


@triton.jit
def _at_dividing(
    image, row, column, n_rows, n_inner, d_image, d_row, here, DIVISION: tl.constexpr, INSIDE: tl.constexpr
):
    """Where what divides lies in one step of its map, and which elements exist. The pooled current has one value for
    each position: a column of the tile, or a row of it."""
    if DIVISION != 2:
        return _at(image, row, column, d_image, d_row), here
    else:
        if INSIDE:
            return image * d_image + row[:, None] * d_row, row[:, None] < n_rows
        else:
            return image * d_image + column[None, :], column[None, :] < n_inner


@triton.jit
def _quotient(
    balanced, i_div, smallest, t, batch, at_b, at_d, b_step, d_step, w0, w1, here, there,
    DIVISION: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """`q = N / I_div~`, `I_div~`, and the pooled current, if there is one; what does not exist is 0 / 1."""
    n = tl.load(balanced + t * b_step + at_b, mask=here, other=0).to(C)
    if DIVISION == 0:
        return n, tl.full(here.shape, 1.0, C), n
    else:
        divides = tl.load(i_div + t * d_step + at_d, mask=there, other=1).to(C)
        if DIVISION == 1:
            least = tl.load(smallest + t * batch + tl.program_id(0)).to(C)
            d = tl.maximum(divides, least, propagate_nan=tl.PropagateNan.ALL)
            return n / d, d, n
        else:
            d = tl.where(here, w0 * divides + w1, 1.0).to(C)
            return n / d, d, divides


@triton.jit
def _integrated(q, g, offset, DIVISION: tl.constexpr):
    """`I_E = g_E q + b_E`, or the given current."""
    if DIVISION != 0:
        q = q * g + offset
    return q


@triton.jit
def _after_reset(h, theta, HARD: tl.constexpr, C: tl.constexpr):
    if HARD:
        return tl.where(h >= theta, 0.0, h).to(C)
    return (h - tl.where(h >= theta, theta, 0.0)).to(C)


@triton.jit
def _fire(potential, current, spikes, at, decay, theta, here, HARD: tl.constexpr, C: tl.constexpr):
    """One step: writes the spikes, returns the potential after it."""
    h = (decay * potential + current).to(C)
    tl.store(spikes + at, tl.where(h >= theta, 1.0, tl.where(h < theta, 0.0, h)).to(spikes.dtype.element_ty), mask=here)
    return _after_reset(h, theta, HARD, C)


@triton.jit
def _fire_back(
    h, carried, grad_spikes, at, decay, theta, alpha, here, SPIKES: tl.constexpr, HARD: tl.constexpr,
    DETACH: tl.constexpr, SURROGATE: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """The same backwards: `dL/dI_E[t]`, and `dL/dV[t-1]` of `carried`, which is `dL/dV[t]`."""
    slope = _slope(h - theta, alpha, SURROGATE).to(C)
    if HARD:
        delta = tl.where(h >= theta, 0.0, carried).to(C)
        if not DETACH:
            delta -= carried * h * slope
    elif DETACH:
        delta = carried
    else:
        delta = carried * (1.0 - theta * slope)
    if SPIKES:
        delta += tl.load(grad_spikes + at, mask=here, other=0).to(C) * slope
    return delta, (delta * decay).to(C)


@triton.jit
def _store_gradients(
    delta, q, d, g, w0, grad_balanced, grad_dividing, at_balanced, at_dividing, row, column, n_rows, n_inner, here,
    DIVISION: tl.constexpr, INSIDE: tl.constexpr,
):  # fmt: skip
    """From `dL/dI_E` to the gradients of the balanced current and of what divides; returns `dL/dI_div`."""
    if DIVISION != 0:
        delta = delta * g / d
    tl.store(grad_balanced + at_balanced, delta.to(grad_balanced.dtype.element_ty), mask=here)
    through = -(delta * q)
    if DIVISION == 1:
        tl.store(grad_dividing + at_dividing, through.to(grad_dividing.dtype.element_ty), mask=here)
    if DIVISION == 2:  # [step, image, tile along the neurons, position]
        if INSIDE:
            at = grad_dividing + (at_dividing * tl.num_programs(2) + tl.program_id(2)) * n_rows + row
            tl.store(at, tl.sum(through * w0, 1), mask=row < n_rows)
        else:
            at = grad_dividing + (at_dividing * tl.num_programs(1) + tl.program_id(1)) * n_inner + column
            tl.store(at, tl.sum(through * w0, 0), mask=column < n_inner)
    return through


@triton.jit
def _store_sum(sums, which: tl.constexpr, values, image, row, column, n_rows, n_inner, neurons, INSIDE: tl.constexpr):
    """The sum of `values` over the positions of the tile; `sums` is `[which, images, tiles along positions, neurons]`,
    with one plane for each parameter."""
    first = which * tl.num_programs(0) + image
    if INSIDE:
        at = (first * tl.num_programs(1) + tl.program_id(1)) * neurons + column
        tl.store(sums + at, tl.sum(values, 0), mask=column < n_inner)
    else:
        at = (first * tl.num_programs(2) + tl.program_id(2)) * neurons + row
        tl.store(sums + at, tl.sum(values, 1), mask=row < n_rows)


@triton.jit
def forward_kernel(
    balanced, i_div, smallest, weight, gain, bias, v, spikes, v_last,
    b_step, b_image, b_row, d_step, d_image, d_row, v_image, v_row, s_step, s_image, s_row, l_image, l_row,
    batch, n_rows, n_inner, STEPS: tl.constexpr, DECAY: tl.constexpr, THETA: tl.constexpr,
    STATIC: tl.constexpr, STATE: tl.constexpr, HARD: tl.constexpr, INSIDE: tl.constexpr, DIVISION: tl.constexpr,
    C: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    decay, theta = tl.full((1, 1), DECAY, C), tl.full((1, 1), THETA, C)  # else they would be rounded to float32
    image = tl.program_id(0).to(tl.int64)
    zero = image * 0  # whole steps of large maps are beyond 32 bits
    b_step, d_step, s_step = b_step + zero, d_step + zero, s_step + zero
    row, column, here = _tile(n_rows, n_inner, ROWS, COLUMNS)
    divided: tl.constexpr = 0 if DIVISION == 0 else 1
    two: tl.constexpr = 2 if DIVISION == 2 else 0
    g = _per_neuron(gain, row, column, here, divided, INSIDE, C)
    offset = _per_neuron(bias, row, column, here, divided, INSIDE, C)
    w0 = _per_neuron(weight, row, column, here, two, INSIDE, C)
    w1 = _per_neuron(weight + 1, row, column, here, two, INSIDE, C)
    at_b = _at(image, row, column, b_image, b_row)
    at_s = _at(image, row, column, s_image, s_row)
    at_d, there = _at_dividing(image, row, column, n_rows, n_inner, d_image, d_row, here, DIVISION, INSIDE)
    potential = tl.zeros((ROWS, COLUMNS), C)
    if STATE:
        potential = tl.load(v + _at(image, row, column, v_image, v_row), mask=here, other=0).to(C)
    q, _, _ = _quotient(
        balanced, i_div, smallest, 0, batch, at_b, at_d, b_step, d_step, w0, w1, here, there, DIVISION, C
    )
    current = _integrated(q, g, offset, DIVISION)
    potential = _fire(potential, current, spikes, at_s, decay, theta, here, HARD, C)
    if KEEP:
        for t in tl.static_range(1, STEPS):
            if not STATIC:
                q, _, _ = _quotient(
                    balanced, i_div, smallest, t, batch, at_b, at_d, b_step, d_step, w0, w1, here, there,
                    DIVISION, C,
                )  # fmt: skip
                current = _integrated(q, g, offset, DIVISION)
            potential = _fire(potential, current, spikes, t * s_step + at_s, decay, theta, here, HARD, C)
    else:
        for t in range(1, STEPS):
            if not STATIC:
                q, _, _ = _quotient(
                    balanced, i_div, smallest, t, batch, at_b, at_d, b_step, d_step, w0, w1, here, there,
                    DIVISION, C,
                )  # fmt: skip
                current = _integrated(q, g, offset, DIVISION)
            potential = _fire(potential, current, spikes, t * s_step + at_s, decay, theta, here, HARD, C)
    tl.store(v_last + _at(image, row, column, l_image, l_row), potential, mask=here)


@triton.jit
def backward_kernel(
    balanced, i_div, smallest, weight, gain, bias, v, grad_spikes, grad_v_last,
    grad_balanced, grad_dividing, sums, grad_v, h_scratch,
    b_step, b_image, b_row, d_step, d_image, d_row, v_image, v_row, s_step, s_image, s_row, l_image, l_row,
    gb_step, gb_image, gb_row, gd_step, gd_image, gd_row, gv_image, gv_row, h_step, h_image, h_row,
    batch, n_rows, n_inner, neurons, STEPS: tl.constexpr, DECAY: tl.constexpr, THETA: tl.constexpr,
    ALPHA: tl.constexpr, STATIC: tl.constexpr, STATE: tl.constexpr, SPIKES: tl.constexpr, LAST: tl.constexpr,
    HARD: tl.constexpr, DETACH: tl.constexpr, SURROGATE: tl.constexpr, INSIDE: tl.constexpr, DIVISION: tl.constexpr,
    C: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    decay, theta, alpha = tl.full((1, 1), DECAY, C), tl.full((1, 1), THETA, C), tl.full((1, 1), ALPHA, C)
    image = tl.program_id(0).to(tl.int64)
    zero = image * 0  # whole steps of large maps are beyond 32 bits
    b_step, d_step, s_step = b_step + zero, d_step + zero, s_step + zero
    gb_step, gd_step, h_step = gb_step + zero, gd_step + zero, h_step + zero
    row, column, here = _tile(n_rows, n_inner, ROWS, COLUMNS)
    divided: tl.constexpr = 0 if DIVISION == 0 else 1
    two: tl.constexpr = 2 if DIVISION == 2 else 0
    g = _per_neuron(gain, row, column, here, divided, INSIDE, C)
    offset = _per_neuron(bias, row, column, here, divided, INSIDE, C)
    w0 = _per_neuron(weight, row, column, here, two, INSIDE, C)
    w1 = _per_neuron(weight + 1, row, column, here, two, INSIDE, C)
    at_b = _at(image, row, column, b_image, b_row)
    at_s = _at(image, row, column, s_image, s_row)
    at_h = _at(image, row, column, h_image, h_row)
    at_gb = _at(image, row, column, gb_image, gb_row)
    at_gd = _at(image, row, column, gd_image, gd_row)
    at_d, there = _at_dividing(image, row, column, n_rows, n_inner, d_image, d_row, here, DIVISION, INSIDE)
    # The trajectory once more.
    potential = tl.zeros((ROWS, COLUMNS), C)
    if STATE:
        potential = tl.load(v + _at(image, row, column, v_image, v_row), mask=here, other=0).to(C)
    q, d, pooled = _quotient(
        balanced, i_div, smallest, 0, batch, at_b, at_d, b_step, d_step, w0, w1, here, there, DIVISION, C
    )
    h = (decay * potential + _integrated(q, g, offset, DIVISION)).to(C)
    h0, h1, h2, h3 = h, h, h, h
    if not KEEP:
        tl.store(h_scratch + at_h, h, mask=here)
    potential = _after_reset(h, theta, HARD, C)
    if KEEP:
        for t in tl.static_range(1, STEPS):
            if not STATIC:
                q, d, pooled = _quotient(
                    balanced, i_div, smallest, t, batch, at_b, at_d, b_step, d_step, w0, w1, here, there,
                    DIVISION, C,
                )  # fmt: skip
            h = (decay * potential + _integrated(q, g, offset, DIVISION)).to(C)
            if t == 1:
                h1 = h
            if t == 2:
                h2 = h
            if t == 3:
                h3 = h
            potential = _after_reset(h, theta, HARD, C)
    else:
        for t in range(1, STEPS):
            if not STATIC:
                q, d, pooled = _quotient(
                    balanced, i_div, smallest, t, batch, at_b, at_d, b_step, d_step, w0, w1, here, there,
                    DIVISION, C,
                )  # fmt: skip
            h = (decay * potential + _integrated(q, g, offset, DIVISION)).to(C)
            tl.store(h_scratch + t * h_step + at_h, h, mask=here)
            potential = _after_reset(h, theta, HARD, C)
    # Backwards in time: `carried` is dL/dV[t], `delta` dL/dI_E[t].
    carried = tl.zeros((ROWS, COLUMNS), C)
    if LAST:
        at_l = _at(image, row, column, l_image, l_row)
        carried = tl.load(grad_v_last + at_l, mask=here, other=0).to(C)
    sum_gain, sum_bias, total = tl.zeros((ROWS, COLUMNS), C), tl.zeros((ROWS, COLUMNS), C), tl.zeros((ROWS, COLUMNS), C)
    sum_w0, sum_w1 = tl.zeros((ROWS, COLUMNS), C), tl.zeros((ROWS, COLUMNS), C)
    if KEEP:
        for t in tl.static_range(STEPS - 1, -1, -1):
            if t == 0:
                h = h0
            if t == 1:
                h = h1
            if t == 2:
                h = h2
            if t == 3:
                h = h3
            delta, carried = _fire_back(
                h, carried, grad_spikes, t * s_step + at_s, decay, theta, alpha, here, SPIKES, HARD, DETACH, SURROGATE,
                C,
            )  # fmt: skip
            if STATIC:
                total += delta
            else:
                q, d, pooled = _quotient(
                    balanced, i_div, smallest, t, batch, at_b, at_d, b_step, d_step, w0, w1, here, there,
                    DIVISION, C,
                )  # fmt: skip
                at_t = t * batch + image if DIVISION == 2 else t * gd_step + at_gd
                through = _store_gradients(
                    delta, q, d, g, w0, grad_balanced, grad_dividing, t * gb_step + at_gb, at_t, row, column,
                    n_rows, n_inner, here, DIVISION, INSIDE,
                )  # fmt: skip
                sum_gain += tl.where(here, delta * q, 0.0)
                sum_bias += tl.where(here, delta, 0.0)
                if DIVISION == 2:
                    sum_w0 += tl.where(here, through * pooled, 0.0)
                    sum_w1 += tl.where(here, through, 0.0)
    else:
        for i in range(STEPS):
            t = STEPS - 1 - i
            h = tl.load(h_scratch + t * h_step + at_h, mask=here, other=0)
            delta, carried = _fire_back(
                h, carried, grad_spikes, t * s_step + at_s, decay, theta, alpha, here, SPIKES, HARD, DETACH, SURROGATE,
                C,
            )  # fmt: skip
            if STATIC:
                total += delta
            else:
                q, d, pooled = _quotient(
                    balanced, i_div, smallest, t, batch, at_b, at_d, b_step, d_step, w0, w1, here, there,
                    DIVISION, C,
                )  # fmt: skip
                at_t = t * batch + image if DIVISION == 2 else t * gd_step + at_gd
                through = _store_gradients(
                    delta, q, d, g, w0, grad_balanced, grad_dividing, t * gb_step + at_gb, at_t, row, column,
                    n_rows, n_inner, here, DIVISION, INSIDE,
                )  # fmt: skip
                sum_gain += tl.where(here, delta * q, 0.0)
                sum_bias += tl.where(here, delta, 0.0)
                if DIVISION == 2:
                    sum_w0 += tl.where(here, through * pooled, 0.0)
                    sum_w1 += tl.where(here, through, 0.0)
    if STATIC:
        at_t = image if DIVISION == 2 else at_gd
        through = _store_gradients(
            total, q, d, g, w0, grad_balanced, grad_dividing, at_gb, at_t, row, column, n_rows, n_inner, here,
            DIVISION, INSIDE,
        )  # fmt: skip
        sum_gain += tl.where(here, total * q, 0.0)
        sum_bias += tl.where(here, total, 0.0)
        if DIVISION == 2:
            sum_w0 += tl.where(here, through * pooled, 0.0)
            sum_w1 += tl.where(here, through, 0.0)
    if STATE:
        tl.store(grad_v + _at(image, row, column, gv_image, gv_row), carried, mask=here)
    if DIVISION != 0:
        _store_sum(sums, 0, sum_gain, image, row, column, n_rows, n_inner, neurons, INSIDE)
        _store_sum(sums, 1, sum_bias, image, row, column, n_rows, n_inner, neurons, INSIDE)
    if DIVISION == 2:
        _store_sum(sums, 2, sum_w0, image, row, column, n_rows, n_inner, neurons, INSIDE)
        _store_sum(sums, 3, sum_w1, image, row, column, n_rows, n_inner, neurons, INSIDE)


@triton.jit
def smallest_kernel(
    i_div, smallest, step, image, out_step, batch, size, NOISE: tl.constexpr, C: tl.constexpr, B: tl.constexpr
):
    sample = tl.program_id(0).to(tl.int64)
    at = i_div + (sample // batch) * step + (sample % batch) * image + tl.arange(0, B)
    level = tl.zeros((B,), C)
    if NOISE > 0:
        for start in range(0, size, B):
            level = tl.maximum(level, tl.load(at + start, mask=start + tl.arange(0, B) < size, other=0).to(C))
        level = tl.zeros((B,), C) + tl.max(level, 0) * NOISE
    least = tl.full((B,), float("inf"), C)
    for start in range(0, size, B):  # the second time from the cache
        x = tl.load(at + start, mask=start + tl.arange(0, B) < size, other=0).to(C)
        least = tl.minimum(least, tl.where(x > level, x, float("inf")))
    tl.store(smallest + (sample // batch) * out_step + sample % batch, tl.min(least, 0))


def smallest_positive(i_div: Tensor, noise: float, smallest: Tensor) -> None:
    """`eisnn.functional.smallest_positive` of `i_div` `[T, B, n, ...]`, in one pass.

    Args:
        noise: what is not larger than this part of the sample's largest value counts as 0.
        smallest: where it is written, `[T, B, 1, ...]` or some images of it, at least float32.
    """
    if sum((n - 1) * stride for n, stride in zip(i_div.shape[2:], i_div.stride()[2:], strict=True)) + 1 != (
        size := i_div[0, 0].numel()
    ):  # a sample does not lie in one piece
        i_div = i_div.contiguous()
    smallest_kernel[(smallest.numel(),)](
        i_div, smallest, i_div.stride(0), i_div.stride(1), smallest.stride(0), i_div.shape[1], size,
        NOISE=noise, C=_type(smallest.dtype), B=min(BLOCK, triton.next_power_of_2(size)), num_warps=8,
    )  # fmt: skip


def forward(
    layout: Layout, balanced: Tensor, dividing: Tensor | None, smallest: Tensor | None, weight: Tensor | None,
    gain: Tensor | None, bias: Tensor | None, v: Tensor | None, constants: LIFConstants, spikes: Tensor,
    v_last: Tensor,
) -> None:  # fmt: skip
    """Write `spikes` `[T, B, n, ...]` and the last potential `[B, n, ...]`, which lie as `layout` says.

    Args:
        layout: of the maps.
        balanced: `[T or 1, B, n, ...]`.
        dividing: `I_div`, like `balanced`; or with `weight` a pooled current `[T or 1, B, 1, ...]`; or None: this is
            the LIF neuron alone.
        smallest: `[T or 1, B, 1, ...]`, or some images of it: what `I_div` is at least.
        weight: `[n, 2]`, of the pooled and of a tonic I neuron; like gain and bias in the dtype of the arithmetic.
        gain, bias: `[n]`.
        v: potential before the first step, or None.
    """
    maps = [layout.arrange(x) for x in (balanced, dividing, v)]
    absent = spikes  # any pointer will do for what is never read
    at = [layout.strides(x) for x in (*maps, spikes, v_last)]
    forward_kernel[_grid(layout, balanced.shape[1])](
        *_pointers(absent, *maps[:2], smallest, weight, gain, bias, maps[2]), spikes, v_last,
        *at[0], *at[1], *at[2][1:], *at[3], *at[4][1:], _samples(balanced, smallest), layout.rows, layout.inner,
        **_options(layout, constants, v_last.dtype, balanced, dividing, weight, v, len(spikes)),
    )  # fmt: skip


def backward(
    layout: Layout, balanced: Tensor, dividing: Tensor | None, smallest: Tensor | None, weight: Tensor | None,
    gain: Tensor | None, bias: Tensor | None, v: Tensor | None, constants: LIFConstants, steps: int,
    grad_spikes: Tensor | None, grad_v_last: Tensor | None, grad_balanced: Tensor,
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """Gradients of what divides, of its weight, of gain, bias and `v`; that of the balanced current is written into
    `grad_balanced`, that of a map `dividing` in place of the map: it is read for the last time here."""
    shape, device = balanced.shape, balanced.device
    wide = torch.promote_types(balanced.dtype, torch.float32)
    maps = [layout.arrange(x) for x in (balanced, dividing, v, grad_spikes, grad_v_last)]
    written = grad_balanced if layout.fits(grad_balanced) else layout.empty(shape, balanced.dtype, device)
    grad_v = None if v is None else layout.empty(shape[1:], wide, device)
    h = balanced.new_empty(0, dtype=wide) if steps <= KEPT else layout.empty((steps, *shape[1:]), wide, device)
    grid = _grid(layout, shape[1])
    along_positions, along_neurons = (grid[1], grid[2]) if layout.neurons_inside else (grid[2], grid[1])
    planes = 0 if gain is None else 2 if weight is None else 4
    sums = balanced.new_empty(planes, shape[1], along_positions, shape[2], dtype=wide)
    if weight is not None:
        room = (*shape[:2], along_neurons, balanced[0, 0, 0].numel())
        grad_dividing: Tensor | None = balanced.new_empty(room, dtype=wide)
    else:
        grad_dividing = maps[1]  # each value where the one lay that is read for the last time
    at = [layout.strides(x) for x in (*maps, written, None if weight is not None else grad_dividing, grad_v)]
    at.append(layout.strides(h if steps > KEPT else None))
    backward_kernel[grid](
        *_pointers(
            written, *maps[:2], smallest, weight, gain, bias, *maps[2:], written, grad_dividing, sums, grad_v, h
        ),
        *at[0], *at[1], *at[2][1:], *at[3], *at[4][1:], *at[5], *at[6], *at[7][1:], *at[8],
        _samples(balanced, smallest), layout.rows, layout.inner, shape[2], ALPHA=constants.width,
        SPIKES=grad_spikes is not None, LAST=grad_v_last is not None, DETACH=constants.detach_reset,
        SURROGATE=constants.surrogate_number,
        **_options(layout, constants, wide, balanced, dividing, weight, v, steps),
    )  # fmt: skip
    if written is not grad_balanced:
        grad_balanced.copy_(written)
    if gain is None:
        return None, None, None, None, grad_v
    grad_gain, grad_bias, *of_weight = sums.sum((1, 2)).unbind()
    grad_bias = grad_bias.clone()  # what an operator returns must not share memory
    if weight is None or grad_dividing is None:
        return grad_dividing, None, grad_gain, grad_bias, grad_v
    of_pooled = grad_dividing.sum(2).view(*shape[:2], 1, *shape[3:])
    return of_pooled, torch.stack(of_weight, 1), grad_gain, grad_bias, grad_v


def _pointers(absent: Tensor, *tensors: Tensor | None) -> list[Tensor]:
    return [absent if tensor is None else tensor for tensor in tensors]


def _samples(balanced: Tensor, smallest: Tensor | None) -> int:
    """How far one step lies from the next where there is one value for each sample."""
    return balanced.shape[1] if smallest is None else smallest.stride(0)


def _grid(layout: Layout, batch: int) -> tuple[int, int, int]:
    return batch, triton.cdiv(layout.rows, _rows(layout)), triton.cdiv(layout.inner, COLUMNS)


def _rows(layout: Layout) -> int:
    return ROWS if layout.rows > 1 else 1


def _type(wide: torch.dtype) -> Any:
    return tl.float64 if wide == torch.float64 else tl.float32


def _options(
    layout: Layout, constants: LIFConstants, wide: torch.dtype, balanced: Tensor, dividing: Tensor | None,
    weight: Tensor | None, v: Tensor | None, steps: int,
) -> dict[str, Any]:  # fmt: skip
    """What both kernels are specialised for."""
    return {
        "STEPS": steps,
        "DECAY": constants.decay,
        "THETA": constants.theta,
        "STATIC": len(balanced) != steps,
        "STATE": v is not None,
        "HARD": constants.reset == "hard",
        "INSIDE": int(layout.neurons_inside),
        "DIVISION": ALONE if dividing is None else MAP if weight is None else TONIC,
        "C": _type(wide),
        "ROWS": _rows(layout),
        "COLUMNS": COLUMNS,
        "KEEP": steps <= KEPT,
        "num_warps": WARPS,
        "enable_fp_fusion": False,  # the bits of the reference
    }
