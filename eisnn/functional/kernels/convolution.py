"""Convolutions of small maps on a CPU as products of matrices: for each row of the kernel and each column of the map,
the stretches of the input under it, of all images and output rows, by the stretch of the weights that they meet.

Beside the stock operator nothing is multiplied by padding, which is more than half of all products at 2x2 positions,
and weights are read for all images at once.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

# Where it pays, measured on an Intel processor (docs/developers/performance.md): few positions, which as many images
# share, more of them where the weights are rearranged first; weights that do not fit the cache.
MOST_POSITIONS, LEAST_IMAGES, LEAST_TO_REARRANGE, LEAST_WEIGHTS = 64, 16, 64, 1 << 15
_MKL = torch.backends.mkl.is_available()


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int] = (1, 1),
) -> Tensor:
    """As torch's, `[N, C, H, W]`, `[n, C, kh, kw]` -> `[N, n, H', W']`: by products where that is faster."""
    if not _pays(x, weight, stride, padding, dilation):
        return F.conv2d(x, weight, bias, stride, padding, dilation)
    y: Tensor = _forward(x, weight, stride, padding)
    return y if bias is None else y + bias[:, None, None]


def conv2d_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    input_too: bool,
) -> tuple[Tensor | None, Tensor]:
    """Gradients of `x`, if `input_too`, and of `weight`, by the faster way too."""
    if _pays(x, weight, stride, padding, dilation):
        return _gradients_of(grad, x, weight, stride, padding, input_too)
    geometry = list(stride), list(padding), list(dilation)
    grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
        grad, x, weight, None, *geometry, False, [0, 0], 1, [input_too, True, False]
    )
    return grad_x, grad_weight


def _pays(x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]) -> bool:
    """Whether products of matrices can serve these maps and weights, and are faster."""
    if not (x.is_cpu and weight.is_cpu and x.dtype == weight.dtype and x.dtype in (torch.float32, torch.float64)):
        return False
    if torch.is_autocast_enabled("cpu") or not _MKL:
        return False
    positions = 1
    for size in _output(x, weight, stride, padding):
        positions *= size
    return (
        tuple(dilation) == (1, 1)
        and 0 < positions <= MOST_POSITIONS
        and len(x) >= max(LEAST_IMAGES if _channels_inside(weight) else LEAST_TO_REARRANGE, positions)
        and weight.shape[0] * weight.shape[1] >= LEAST_WEIGHTS
        and weight.shape[1] == x.shape[1]
    )


def _channels_inside(maps: Tensor) -> bool:
    return maps.is_contiguous(memory_format=torch.channels_last)


def _format(*tensors: Tensor) -> torch.memory_format:
    """The memory format of what torch's operator would make of them."""
    inside = any(_channels_inside(t) and not t.is_contiguous() for t in tensors)
    return torch.channels_last if inside else torch.contiguous_format


class Meeting(NamedTuple):
    """What meets in one row of the kernel and one column of the map: matrices in the memory of maps and weights."""

    output: Tensor  # [rows N, n]
    input: Tensor  # [rows N, taps C]
    weight: Tensor  # [n, taps C]


def _meetings(x: Tensor, weight: Tensor, y: Tensor, stride: Sequence[int], padding: Sequence[int]) -> Iterator[Meeting]:
    """Everything that meets on the map, of `x` `[H, N, W, C]`, `y` `[H', N, W', n]` and `weight` `[n, C, kh, kw]`."""
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


def _output(x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int]) -> tuple[int, int]:
    """H' and W'."""
    height, width = ((x.shape[2 + a] + 2 * padding[a] - weight.shape[2 + a]) // stride[a] + 1 for a in (0, 1))
    return height, width


@torch.library.custom_op("eisnn::convolution", mutates_args=())
def _forward(x: Tensor, weight: Tensor, stride: list[int], padding: list[int]) -> Tensor:
    height, width = _output(x, weight, stride, padding)
    y, inside = x.new_zeros(height, len(x), width, len(weight)), weight.contiguous(memory_format=torch.channels_last)
    for output, inputs, weights in _meetings(_rows_outside(x), inside, y, stride, padding):
        output.addmm_(inputs, weights.T)
    return _back(y, _format(x, weight))


@_forward.register_fake
def _(x: Tensor, weight: Tensor, stride: Any, padding: Any) -> Tensor:
    shape = len(x), len(weight), *_output(x, weight, stride, padding)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=_format(x, weight))


@torch.library.custom_op("eisnn::convolution_backward", mutates_args=())
def _backward(
    grad: Tensor, x: Tensor, weight: Tensor, stride: list[int], padding: list[int], input_too: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of `x` (empty, if not `input_too`) and of `weight`, in the memory format of each."""
    inside = weight.contiguous(memory_format=torch.channels_last)
    rows_of_grad, rows_of_x = _rows_outside(grad), _rows_outside(x)
    grad_weight = torch.zeros_like(inside)
    for outputs, inputs, weights in _meetings(rows_of_x, grad_weight, rows_of_grad, stride, padding):
        weights.addmm_(outputs.T, inputs)
    grad_weight = grad_weight.contiguous(memory_format=_format(weight))
    if not input_too:
        return x.new_empty(0), grad_weight
    grad_x = torch.zeros_like(rows_of_x)
    for outputs, inputs, weights in _meetings(grad_x, inside, rows_of_grad, stride, padding):
        inputs.addmm_(outputs, weights)
    return _back(grad_x, _format(x)), grad_weight


@_backward.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor, stride: Any, padding: Any, input_too: bool) -> Any:
    of_x, of_weight = (torch.empty_like(t, memory_format=_format(t)) for t in (x, weight))
    return of_x if input_too else x.new_empty(0), of_weight


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, ctx.stride, ctx.padding = inputs
    ctx.save_for_backward(x, weight)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    return *_gradients_of(grad, x, weight, ctx.stride, ctx.padding, ctx.needs_input_grad[0]), None, None


def _gradients_of(
    grad: Tensor, x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int], input_too: bool
) -> tuple[Tensor | None, Tensor]:
    grad_x, grad_weight = _backward(grad, x, weight, stride, padding, input_too)
    return grad_x if input_too else None, grad_weight


_forward.register_autograd(_gradients, setup_context=_keep)
