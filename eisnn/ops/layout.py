"""How maps and weights lie in memory."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Layout(NamedTuple):
    """How maps `[T, B, n, ...]` lie in memory: neurons inside (channels last, dense layers), or positions inside."""

    neurons_inside: bool
    rows: int
    inner: int

    def strides(self, maps: Tensor | None) -> tuple[int, int, int]:
        """From one step, image and row to the next of `maps` `[T, B, n, ...]` or `[B, n, ...]`, which `fits`."""
        if maps is None:
            return 0, 0, 0
        strides = maps.stride()
        step, strides = (strides[0], strides[1:]) if len(strides) in (3, 5) else (0, strides)
        row = 0 if len(strides) == 2 else strides[-1] if self.neurons_inside else strides[1]
        return step, strides[0], row

    def fits(self, maps: Tensor) -> bool:
        """Whether a back end can walk through `maps` `[T, B, n, ...]` or `[B, n, ...]` as it lies in memory."""
        sizes, strides = (maps.shape, maps.stride()) if maps.ndim in (2, 4) else (maps.shape[1:], maps.stride()[1:])
        if len(sizes) == 2:
            return strides[1] == 1 or sizes[1] == 1
        rows_join = strides[2] == sizes[3] * strides[3] or sizes[2] == 1
        return rows_join and (strides[1] == 1 or sizes[1] == 1 if self.neurons_inside else strides[3] == 1)

    def empty(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device | None = None) -> Tensor:
        """An uninitialised tensor `[T, B, n, ...]` or `[B, n, ...]` that lies so."""
        if self.neurons_inside and len(shape) > 3:
            *outer, n, height, width = shape
            return torch.empty(*outer, height, width, n, dtype=dtype, device=device).movedim(-1, len(outer))
        return torch.empty(shape, dtype=dtype, device=device)

    def arrange(self, maps: Tensor | None) -> Tensor | None:
        """`maps`, copied only where it does not lie so."""
        if maps is None or self.fits(maps):
            return maps
        return self.empty(maps.shape, maps.dtype, maps.device).copy_(maps)


def layout_of(maps: Tensor, neurons: int | None = None) -> Layout:
    """The layout of `maps` `[T, B, n, ...]`, or the nearest one; contiguous where the back ends know none.

    Args:
        neurons: n, if `maps` holds more on the same axis.
    """
    if maps.ndim not in (3, 5):
        return Layout(False, 1, 1)
    n, positions = neurons or maps.shape[2], maps[0, 0, 0].numel()
    if maps.ndim == 3 or (maps.stride(2) == 1 and maps.shape[2] > 1):
        return Layout(True, positions, n)
    return Layout(False, n, positions)


def by_position(maps: Tensor) -> Tensor:
    """`[T, B, n, ...]` as a matrix `[T B ..., n]` with a row for each step, image and position."""
    return maps.movedim(2, -1).flatten(0, -2)


def padded(n: int, maps: Tensor) -> int:
    """How many currents `project` gives for a kernel of n rows, where `maps` are.

    On CUDA a multiple of 16: the matrix units want 8, and Triton loads several neighbours at once only where it knows
    that each position begins at a multiple of 16.
    """
    return -(-n // 16) * 16 if maps.is_cuda else n


def weight_rows(weight: Tensor) -> Tensor:
    """Weights of each neuron in one row, in the order in which they lie in memory."""
    return weight.movedim(1, -1).flatten(1) if channels_last(weight) else weight.flatten(1)


def from_rows(rows: Tensor, like: Tensor) -> Tensor:
    """The inverse of `weight_rows`: rows of any number of neurons, shaped otherwise like `like`."""
    if channels_last(like):
        return rows.view(-1, *like.movedim(1, -1).shape[1:]).movedim(-1, 1)
    return rows.view(-1, *like.shape[1:])


def laid_out_like(weight: Tensor, other: Tensor) -> Tensor:
    """`weight` in the memory format of `other`; copied only if need be."""
    return weight.contiguous(memory_format=torch.channels_last if channels_last(other) else torch.contiguous_format)


def channels_last(weight: Tensor) -> bool:
    return weight.ndim == 4 and weight.stride(1) == 1 and weight.shape[1] > 1
