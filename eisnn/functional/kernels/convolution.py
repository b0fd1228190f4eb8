"""Convolutions of small maps on a CPU as products of matrices: for each row of the kernel and each column of the map,
the stretches of the input under it, of all images and output rows, by the stretch of the weights that they meet.

Beside the stock operator nothing is multiplied by padding, which is more than half of all products at 2x2 positions,
and weights are read for all images at once.
"""

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional as F

if TYPE_CHECKING:
    from eisnn.functional.connection import Conv, Pair

# Where it pays, measured on an Intel processor (docs/developers/performance.md): few positions, fewer forwards than
# backwards, which as many images share, more of them where the weights are rearranged first; weights that do not fit
# the cache.
MOST_FORWARD, MOST_BACKWARD = 36, 64
LEAST_IMAGES, LEAST_TO_REARRANGE, LEAST_WEIGHTS = 16, 64, 1 << 15
_MKL = torch.backends.mkl.is_available()


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: "Conv") -> Tensor:
    """As torch's, `[N, C, H, W]`, `[n, C, kh, kw]` -> `[N, n, H', W']`: by products where that is faster."""
    if not pays(x, weight, geometry, MOST_BACKWARD):
        return F.conv2d(x, weight, bias, *_options(geometry))
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        y: Tensor = _Convolution.apply(x, weight, geometry)
    else:
        y = _forward(x, weight, geometry)
    return y if bias is None else y + bias[:, None, None]


def conv2d_backward(
    grad: Tensor, x: Tensor, weight: Tensor, geometry: "Conv", input_too: bool, weight_too: bool = True
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of `x` and of `weight`, where asked for, by the faster way too."""
    differentiable = torch.is_grad_enabled() and any(t.requires_grad for t in (grad, x, weight))  # as products are not
    if pays(x, weight, geometry, MOST_BACKWARD) and not differentiable:
        return backward_by_products(grad, x, weight, geometry, input_too, weight_too)
    stride, padding, dilation = map(list, _options(geometry))
    grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
        grad, x, weight, None, stride, padding, dilation, False, [0, 0], 1, [input_too, weight_too, False]
    )
    return grad_x, grad_weight


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, geometry: "Conv") -> Tensor:
        ctx.geometry = geometry
        ctx.save_for_backward(x, weight)
        return _forward(x, weight, geometry)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), (input_too, weight_too, _) = ctx.saved_tensors, ctx.needs_input_grad
        return *conv2d_backward(grads[0], x, weight, ctx.geometry, input_too, weight_too), None


def _forward(x: Tensor, weight: Tensor, geometry: "Conv") -> Tensor:
    rearranged = geometry.stride != (1, 1) and not _channels_inside(weight)  # the sum of both costs too much
    if pays(x, weight, geometry, MOST_FORWARD) and not rearranged:
        return by_products(x, weight, geometry)
    return F.conv2d(x, weight, None, *_options(geometry))


def pays(x: Tensor, weight: Tensor, geometry: "Conv", most: int) -> bool:
    """Whether products of matrices can serve these maps and weights, up to `most` positions, and are faster.

    They serve plain eager tensors: what compiles, exports, transforms or differentiates forwards knows torch's
    operator.
    """
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return False
    if not (x.is_cpu and weight.is_cpu and x.dtype == weight.dtype and x.dtype in (torch.float32, torch.float64)):
        return False
    if torch.is_autocast_enabled("cpu") or not _MKL:
        return False
    positions = prod(geometry.out_size(x, weight))
    return (
        geometry.dilation == (1, 1)
        and 0 < positions <= most
        and len(x) >= max(LEAST_IMAGES if _channels_inside(weight) else LEAST_TO_REARRANGE, positions)
        and weight.shape[0] * weight.shape[1] >= LEAST_WEIGHTS
        and weight.shape[1] == x.shape[1]
    )


def _options(geometry: "Conv") -> "tuple[Pair, Pair, Pair]":
    """As torch's operator takes them."""
    return geometry.stride, geometry.padding, geometry.dilation


def _channels_inside(maps: Tensor) -> bool:
    return maps.is_contiguous(memory_format=torch.channels_last)


def _format(*tensors: Tensor) -> torch.memory_format:
    """The memory format of what torch's operator makes of them."""
    inside = any(_channels_inside(t) and not t.is_contiguous() for t in tensors)
    return torch.channels_last if inside else torch.contiguous_format


def by_products(x: Tensor, weight: Tensor, geometry: "Conv") -> Tensor:
    """The convolution, whether it pays or not; without a dilation."""
    height, width = geometry.out_size(x, weight)
    y, inside = x.new_zeros(height, len(x), width, len(weight)), weight.contiguous(memory_format=torch.channels_last)
    for output, inputs, weights in _meetings(_rows_outside(x), inside, y, geometry):
        torch.addmm(output, inputs, weights.T, out=output)
    return _back(y, _format(x, weight))


def backward_by_products(
    grad: Tensor, x: Tensor, weight: Tensor, geometry: "Conv", input_too: bool, weight_too: bool = True
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of `x` and of `weight`, in the memory format of each; None where not asked for."""
    rows_of_grad, rows_of_x = _rows_outside(grad), _rows_outside(x)
    inside = weight.contiguous(memory_format=torch.channels_last)
    grad_x = grad_weight = None
    if weight_too:
        grad_weight = torch.zeros_like(inside)
        for outputs, inputs, weights in _meetings(rows_of_x, grad_weight, rows_of_grad, geometry):
            torch.addmm(weights, outputs.T, inputs, out=weights)
        grad_weight = grad_weight.contiguous(memory_format=_format(weight))
    if input_too:
        grad_rows = torch.zeros_like(rows_of_x)
        for outputs, inputs, weights in _meetings(grad_rows, inside, rows_of_grad, geometry):
            torch.addmm(inputs, outputs, weights, out=inputs)
        grad_x = _back(grad_rows, _format(x))
    return grad_x, grad_weight


class Meeting(NamedTuple):
    """What meets in one row of the kernel and one column of the map: matrices in the memory of maps and weights."""

    output: Tensor  # [rows N, n]
    input: Tensor  # [rows N, taps C]
    weight: Tensor  # [n, taps C]


def _meetings(x: Tensor, weight: Tensor, y: Tensor, geometry: "Conv") -> Iterator[Meeting]:
    """Everything that meets on the map, of `x` `[H, N, W, C]`, `y` `[H', N, W', n]` and `weight` `[n, C, kh, kw]`."""
    stride, padding = geometry.stride, geometry.padding
    weight = weight.permute(0, 2, 3, 1)
    (height, _, width, _), (rows, _, columns, _), (_, kh, kw, _) = x.shape, y.shape, weight.shape
    for k in range(kh):
        on_map = [i for i in range(rows) if 0 <= i * stride[0] - padding[0] + k < height]
        # Rows that follow one another in the output do so in the input without a stride only.
        for i, end in [(on_map[0], on_map[-1] + 1)] if stride[0] == 1 and on_map else [(i, i + 1) for i in on_map]:
            above = i * stride[0] - padding[0] + k
            for j in range(columns):
                left = j * stride[1] - padding[1]
                first, last = max(0, -left), min(kw, width - left)
                if first < last:
                    yield Meeting(
                        y[i:end, :, j].flatten(0, 1),
                        x[above : above + end - i, :, left + first : left + last].flatten(2).flatten(0, 1),
                        weight[:, k, first:last].flatten(1),
                    )


def _rows_outside(maps: Tensor) -> Tensor:
    """`[N, C, H, W]` -> `[H, N, W, C]`, which lies so in memory too."""
    return maps.permute(2, 0, 3, 1).contiguous()


def _back(maps: Tensor, memory_format: torch.memory_format) -> Tensor:
    """`[H, N, W, C]` -> `[N, C, H, W]`."""
    return maps.permute(1, 3, 0, 2).contiguous(memory_format=memory_format)
