"""How one population projects to another: all-to-all, or as a convolution.

The mathematics of the circuit is the same for both; only `x -> W x` (from the layer below) differs. `u -> M u`
(lateral, from the I to the E population at the same position) is one function. Sequences are `[T, B, C, ...]`,
C = features or channels.
"""

from dataclasses import dataclass
from math import prod

from torch import Tensor
from torch.nn import functional as F

Pair = tuple[int, int]


@dataclass(frozen=True)
class Dense:
    """All-to-all: `x` `[T, B, d]`, weights `[n, d]`."""

    spatial = 0

    def feedforward(self, x: Tensor, weight: Tensor) -> Tensor:
        """`W x`: `[T, B, d]` -> `[T, B, n]`."""
        return F.linear(x, weight)


@dataclass(frozen=True)
class Conv:
    """Convolution: `x` `[T, B, C, H, W]`, weights `[n, C, kh, kw]`; the lateral projection is a 1x1 convolution."""

    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)

    spatial = 2

    def out_size(self, x: Tensor, weight: Tensor) -> Pair:
        """H' and W' of `x` `[N, C, H, W]` and `weight` `[n, C, kh, kw]`."""
        height, width = (
            (x.shape[2 + a] + 2 * self.padding[a] - self.dilation[a] * (weight.shape[2 + a] - 1) - 1) // self.stride[a]
            + 1
            for a in (0, 1)
        )
        return height, width

    def feedforward(self, x: Tensor, weight: Tensor) -> Tensor:
        """`W x`: `[T, B, C, H, W]` -> `[T, B, n, H', W']`."""
        y = F.conv2d(x.flatten(0, 1), weight, None, self.stride, self.padding, self.dilation)
        return y.unflatten(0, x.shape[:2])


Connection = Dense | Conv


def lateral(u: Tensor, weight: Tensor) -> Tensor:
    """`M u` at each position: `[T, B, n_I, ...]`, `[n_E, n_I]` -> `[T, B, n_E, ...]`.

    A matrix product, and not a 1x1 convolution: it takes the I part of stacked currents as it lies in memory.
    """
    if u.ndim == 3 or u.stride(2) == 1:
        inside = u.movedim(2, -1)  # a matrix for each step: also that of some images of larger maps needs no copy
        return F.linear(inside.flatten(1, -2), weight).unflatten(1, inside.shape[1:-1]).movedim(-1, 2)
    return (weight @ u.flatten(3)).unflatten(3, u.shape[3:])


def fan_in(weight: Tensor) -> int:
    """`d`: how many inputs one neuron has; `in_features`, or `C_in kh kw` of a convolution."""
    return prod(weight.shape[1:])


def per_neuron(parameter: Tensor, like: Tensor) -> Tensor:
    """Shape a `[n]` parameter so that it multiplies the neuron axis (the third) of `like` `[T, B, n, ...]`."""
    return parameter.view(-1, *(1,) * (like.ndim - 3))
