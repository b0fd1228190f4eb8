"""Convolutions of small maps on a CPU as products of matrices: for each row of the kernel and each column of the map,
the stretches of the input under it, of all images and output rows, by the stretch of the weights that they meet.

Beside the stock operator nothing is multiplied by padding, which is more than half of all products at 2x2 positions,
and weights are read for all images at once.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from eisnn.functional.connection import Conv


def channels_inside(maps: Tensor) -> bool:
    return maps.is_contiguous(memory_format=torch.channels_last)


def _format(*tensors: Tensor) -> torch.memory_format:
    """The memory format of what torch's operator makes of them."""
    inside = any(channels_inside(t) and not t.is_contiguous() for t in tensors)
    return torch.channels_last if inside else torch.contiguous_format


def by_products(x: Tensor, weight: Tensor, geometry: Conv) -> Tensor:
    """The convolution, whether it pays or not; without a dilation."""
    height, width = geometry.out_size(x, weight)
    y, inside = x.new_zeros(height, len(x), width, len(weight)), weight.contiguous(memory_format=torch.channels_last)
    for output, inputs, weights in _meetings(_rows_outside(x), inside, y, geometry):
        torch.addmm(output, inputs, weights.T, out=output)
    return _back(y, _format(x, weight))


def backward_by_products(
    grad: Tensor, x: Tensor, weight: Tensor, geometry: Conv, input_too: bool, weight_too: bool = True
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


def _meetings(x: Tensor, weight: Tensor, y: Tensor, geometry: Conv) -> Iterator[Meeting]:
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
