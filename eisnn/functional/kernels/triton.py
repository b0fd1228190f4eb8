"""The population operation on a GPU, in Triton: the same mathematics as `population.cpp`, one pass each way.

A program works on one tile of one image, over all time steps. A map is `[step, image, row, inner]` as in the compiled
kernel: `inner` runs over neurons (channels last, dense layers; INSIDE) or rows do. Sums over positions are
written tile by tile and added up by torch, in the same order every time: no atomic additions.

The interpreter (`TRITON_INTERPRET=1`, set before this module is imported) runs it on CPU tensors, for the tests.
"""

from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from eisnn.functional.kernels.native import SURROGATES, Layout

if TYPE_CHECKING:
    from eisnn.functional.lif import LIFConstants

ROWS, COLUMNS = 16, 64  # of one tile
# ruff: noqa: SIM108 - Triton takes no conditional expressions on tensors


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
def _per_neuron(pointer, row, column, here, DIVIDE: tl.constexpr, INSIDE: tl.constexpr, C: tl.constexpr):
    """Gain or bias of each element of the tile; not used without division."""
    if not DIVIDE:
        return tl.zeros(here.shape, C)
    neuron = column[None, :] * INSIDE + row[:, None] * (1 - INSIDE)
    return tl.load(pointer + neuron, mask=here, other=0).to(C)


@triton.jit
def _at(image, row, column, image_stride, row_stride):
    """Where this tile of one step of a map lies."""
    return image * image_stride + row[:, None] * row_stride + column[None, :]


@triton.jit
def _quotient(
    balanced, i_div, smallest, zero, t, batch, at_b, at_d, b_step, d_step, here, DIVIDE: tl.constexpr, C: tl.constexpr
):
    """`q = N / I_div~` and `I_div~`; what does not exist is 0 / 1."""
    if not DIVIDE:
        n = tl.load(balanced + t * b_step + at_b, mask=here, other=0).to(C)
        return n, tl.full(here.shape, 1.0, C)
    sample = t * batch + tl.program_id(0)
    m, level = tl.load(smallest + sample).to(C), tl.load(zero + sample).to(C)
    d = tl.load(i_div + t * d_step + at_d, mask=here, other=1).to(C)
    d = tl.where(d > level, d, m)
    return tl.load(balanced + t * b_step + at_b, mask=here, other=0).to(C) / d, d


@triton.jit
def _integrated(q, g, offset, DIVIDE: tl.constexpr):
    """`I_E = g_E q + b_E`, or the given current."""
    if DIVIDE:
        q = q * g + offset
    return q


@triton.jit
def _store_gradients(delta, q, d, g, grad_balanced, grad_i_div, at_balanced, at_i_div, here, DIVIDE: tl.constexpr):
    """From `dL/dI_E` to the gradients of the two currents."""
    if DIVIDE:
        delta = delta * g / d
        tl.store(grad_i_div + at_i_div, (-(delta * q)).to(grad_i_div.dtype.element_ty), mask=here)
    tl.store(grad_balanced + at_balanced, delta.to(grad_balanced.dtype.element_ty), mask=here)


@triton.jit
def forward_kernel(
    balanced, i_div, smallest, zero, gain, bias, v, spikes, v_last,
    b_step, b_image, b_row, d_step, d_image, d_row, v_image, v_row, s_step, s_image, s_row, l_image, l_row,
    batch, n_rows, n_inner, steps, DECAY: tl.constexpr, THETA: tl.constexpr,
    STATIC: tl.constexpr, STATE: tl.constexpr, HARD: tl.constexpr, INSIDE: tl.constexpr, DIVIDE: tl.constexpr,
    C: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    decay, theta = tl.full((1, 1), DECAY, C), tl.full((1, 1), THETA, C)  # else they would be rounded to float32
    image = tl.program_id(0).to(tl.int64)
    row, column, here = _tile(n_rows, n_inner, ROWS, COLUMNS)
    g = _per_neuron(gain, row, column, here, DIVIDE, INSIDE, C)
    offset = _per_neuron(bias, row, column, here, DIVIDE, INSIDE, C)
    at_b = _at(image, row, column, b_image, b_row)
    at_d = _at(image, row, column, d_image, d_row)
    at_s = _at(image, row, column, s_image, s_row)
    potential = tl.zeros((ROWS, COLUMNS), C)
    if STATE:
        potential = tl.load(v + _at(image, row, column, v_image, v_row), mask=here, other=0).to(C)
    current = potential * 0
    for t in range(steps):
        if STATIC:
            if t == 0:
                q, _ = _quotient(balanced, i_div, smallest, zero, 0, batch, at_b, at_d, b_step, d_step, here, DIVIDE, C)
                current = _integrated(q, g, offset, DIVIDE)
        else:
            q, _ = _quotient(balanced, i_div, smallest, zero, t, batch, at_b, at_d, b_step, d_step, here, DIVIDE, C)
            current = _integrated(q, g, offset, DIVIDE)
        h = decay * potential + current
        fires = h >= theta
        tl.store(spikes + t * s_step + at_s, tl.where(fires, 1.0, 0.0).to(spikes.dtype.element_ty), mask=here)
        if HARD:
            potential = tl.where(fires, 0.0, h).to(C)
        else:
            potential = (h - tl.where(fires, theta, 0.0)).to(C)
    tl.store(v_last + _at(image, row, column, l_image, l_row), potential, mask=here)


@triton.jit
def backward_kernel(
    balanced, i_div, smallest, zero, gain, bias, v, grad_spikes, grad_v_last,
    grad_balanced, grad_i_div, grad_gain, grad_bias, grad_v, h_scratch,
    b_step, b_image, b_row, d_step, d_image, d_row, v_image, v_row, s_step, s_image, s_row, l_image, l_row,
    gb_step, gb_image, gb_row, gd_step, gd_image, gd_row, gv_image, gv_row, h_step, h_image, h_row,
    batch, n_rows, n_inner, neurons, steps, DECAY: tl.constexpr, THETA: tl.constexpr, ALPHA: tl.constexpr,
    STATIC: tl.constexpr, STATE: tl.constexpr, SPIKES: tl.constexpr, LAST: tl.constexpr, HARD: tl.constexpr,
    DETACH: tl.constexpr, SURROGATE: tl.constexpr, INSIDE: tl.constexpr, DIVIDE: tl.constexpr, C: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    decay, theta, alpha = tl.full((1, 1), DECAY, C), tl.full((1, 1), THETA, C), tl.full((1, 1), ALPHA, C)
    image = tl.program_id(0).to(tl.int64)
    row, column, here = _tile(n_rows, n_inner, ROWS, COLUMNS)
    g = _per_neuron(gain, row, column, here, DIVIDE, INSIDE, C)
    offset = _per_neuron(bias, row, column, here, DIVIDE, INSIDE, C)
    at_b = _at(image, row, column, b_image, b_row)
    at_d = _at(image, row, column, d_image, d_row)
    at_s = _at(image, row, column, s_image, s_row)
    at_h = _at(image, row, column, h_image, h_row)
    # The trajectory once more.
    potential = tl.zeros((ROWS, COLUMNS), C)
    if STATE:
        potential = tl.load(v + _at(image, row, column, v_image, v_row), mask=here, other=0).to(C)
    q, d = _quotient(balanced, i_div, smallest, zero, 0, batch, at_b, at_d, b_step, d_step, here, DIVIDE, C)
    for t in range(steps):
        if not STATIC:
            q, d = _quotient(balanced, i_div, smallest, zero, t, batch, at_b, at_d, b_step, d_step, here, DIVIDE, C)
        h = (decay * potential + _integrated(q, g, offset, DIVIDE)).to(C)
        tl.store(h_scratch + t * h_step + at_h, h, mask=here)
        if HARD:
            potential = tl.where(h >= theta, 0.0, h).to(C)
        else:
            potential = (h - tl.where(h >= theta, theta, 0.0)).to(C)
    # Backwards in time: `carried` is dL/dV[t], `delta` dL/dI_E[t].
    carried = tl.zeros((ROWS, COLUMNS), C)
    if LAST:
        at_l = _at(image, row, column, l_image, l_row)
        carried = tl.load(grad_v_last + at_l, mask=here, other=0).to(C)
    sum_gain, sum_bias, total = tl.zeros((ROWS, COLUMNS), C), tl.zeros((ROWS, COLUMNS), C), tl.zeros((ROWS, COLUMNS), C)
    for i in range(steps):
        t = steps - 1 - i
        h = tl.load(h_scratch + t * h_step + at_h, mask=here, other=0)
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
            delta += tl.load(grad_spikes + t * s_step + at_s, mask=here, other=0).to(C) * slope
        carried = (delta * decay).to(C)
        if STATIC:
            total += delta
        else:
            q, d = _quotient(balanced, i_div, smallest, zero, t, batch, at_b, at_d, b_step, d_step, here, DIVIDE, C)
            at_gb = t * gb_step + _at(image, row, column, gb_image, gb_row)
            at_gd = t * gd_step + _at(image, row, column, gd_image, gd_row)
            _store_gradients(delta, q, d, g, grad_balanced, grad_i_div, at_gb, at_gd, here, DIVIDE)
            sum_gain += tl.where(here, delta * q, 0.0)
            sum_bias += tl.where(here, delta, 0.0)
    if STATIC:
        at_gb = _at(image, row, column, gb_image, gb_row)
        at_gd = _at(image, row, column, gd_image, gd_row)
        _store_gradients(total, q, d, g, grad_balanced, grad_i_div, at_gb, at_gd, here, DIVIDE)
        sum_gain += tl.where(here, total * q, 0.0)
        sum_bias += tl.where(here, total, 0.0)
    if STATE:
        at_gv = _at(image, row, column, gv_image, gv_row)
        tl.store(grad_v + at_gv, carried, mask=here)
    # [images, tiles along positions, neurons]
    if DIVIDE and INSIDE:
        at_sum = (image * tl.num_programs(1) + tl.program_id(1)) * neurons + column
        tl.store(grad_gain + at_sum, tl.sum(sum_gain, 0), mask=column < n_inner)
        tl.store(grad_bias + at_sum, tl.sum(sum_bias, 0), mask=column < n_inner)
    if DIVIDE and not INSIDE:
        at_sum = (image * tl.num_programs(2) + tl.program_id(2)) * neurons + row
        tl.store(grad_gain + at_sum, tl.sum(sum_gain, 1), mask=row < n_rows)
        tl.store(grad_bias + at_sum, tl.sum(sum_bias, 1), mask=row < n_rows)


def forward(
    layout: Layout, balanced: Tensor, i_div: Tensor | None, smallest: Tensor | None, zero: Tensor | None,
    gain: Tensor | None, bias: Tensor | None, v: Tensor | None, constants: "LIFConstants", steps: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Spikes `[T, B, n, ...]` and last potential `[B, n, ...]`.

    Args:
        layout: of the maps.
        balanced, i_div: `[T or 1, B, n, ...]`. Without divisive current, this is the LIF neuron alone.
        smallest, zero: `[T or 1, B, 1, ...]`: what a zero of `i_div` is replaced by, and up to which value it is one.
        gain, bias: `[n]`, in the dtype of the arithmetic.
        v: potential before the first step, or None.
    """
    device, wide, static = balanced.device, torch.promote_types(balanced.dtype, torch.float32), len(balanced) != steps
    maps = [layout.arrange(x) for x in (balanced, i_div, v)]
    spikes = layout.empty((steps, *balanced.shape[1:]), balanced.dtype, device)
    v_last = layout.empty(balanced.shape[1:], wide, device)
    absent = spikes  # any pointer will do for what is never read
    at = [_strides(layout, x) for x in (*maps, spikes, v_last)]
    forward_kernel[_grid(layout, balanced.shape[1])](
        *_pointers(absent, *maps[:2], smallest, zero, gain, bias, maps[2]), spikes, v_last,
        *at[0], *at[1], *at[2][1:], *at[3], *at[4][1:], balanced.shape[1], layout.rows, layout.inner, steps,
        DECAY=constants.decay, THETA=constants.theta, STATIC=static, STATE=v is not None, DIVIDE=i_div is not None,
        **_options(layout, constants, wide),
    )  # fmt: skip
    return spikes, v_last


def backward(
    layout: Layout, balanced: Tensor, i_div: Tensor | None, smallest: Tensor | None, zero: Tensor | None,
    gain: Tensor | None, bias: Tensor | None, v: Tensor | None, constants: "LIFConstants", steps: int,
    grad_spikes: Tensor | None, grad_v_last: Tensor | None, grad_balanced: Tensor,
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """Gradients of `i_div`, gain, bias and `v`; that of the balanced current is written into `grad_balanced`."""
    shape, device = balanced.shape, balanced.device
    wide, static = torch.promote_types(balanced.dtype, torch.float32), len(balanced) != steps
    maps = [layout.arrange(x) for x in (balanced, i_div, v, grad_spikes, grad_v_last)]
    written = grad_balanced if layout.fits(grad_balanced) else layout.empty(shape, balanced.dtype, device)
    grad_i_div = None if i_div is None else layout.empty(shape, i_div.dtype, device)
    grad_v = None if v is None else layout.empty(shape[1:], wide, device)
    h = layout.empty((steps, *shape[1:]), wide, device)
    grid = _grid(layout, shape[1])
    tiles = grid[1] if layout.neurons_inside else grid[2]
    sums = [None if x is None else x.new_empty(shape[1], tiles, shape[2]) for x in (gain, bias)]
    at = [_strides(layout, x) for x in (*maps, written, grad_i_div, grad_v, h)]
    backward_kernel[grid](
        *_pointers(h, *maps[:2], smallest, zero, gain, bias, *maps[2:], written, grad_i_div, *sums, grad_v), h,
        *at[0], *at[1], *at[2][1:], *at[3], *at[4][1:], *at[5], *at[6], *at[7][1:], *at[8],
        shape[1], layout.rows, layout.inner, shape[2], steps,
        DECAY=constants.decay, THETA=constants.theta, ALPHA=constants.width,
        STATIC=static, STATE=v is not None, SPIKES=grad_spikes is not None, LAST=grad_v_last is not None,
        DETACH=constants.detach_reset, SURROGATE=SURROGATES.index(constants.surrogate), DIVIDE=i_div is not None,
        **_options(layout, constants, wide),
    )  # fmt: skip
    if written is not grad_balanced:
        grad_balanced.copy_(written)
    grad_gain, grad_bias = (None if x is None else x.sum((0, 1)) for x in sums)
    return grad_i_div, grad_gain, grad_bias, grad_v


def _pointers(absent: Tensor, *tensors: Tensor | None) -> list[Tensor]:
    return [absent if tensor is None else tensor for tensor in tensors]


def _grid(layout: Layout, batch: int) -> tuple[int, int, int]:
    return batch, triton.cdiv(layout.rows, _rows(layout)), triton.cdiv(layout.inner, COLUMNS)


def _rows(layout: Layout) -> int:
    return ROWS if layout.rows > 1 else 1


def _strides(layout: Layout, maps: Tensor | None) -> tuple[int, int, int]:
    m = layout.describe(maps)
    return m.step, m.image, m.row


def _options(layout: Layout, constants: "LIFConstants", wide: torch.dtype) -> dict[str, Any]:
    return {
        "HARD": constants.reset == "hard",
        "INSIDE": int(layout.neurons_inside),
        "C": tl.float64 if wide == torch.float64 else tl.float32,
        "ROWS": _rows(layout),
        "COLUMNS": COLUMNS,
        "enable_fp_fusion": False,  # the bits of the reference
    }
