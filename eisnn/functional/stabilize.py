"""Adaptive stabilisation of the divisive current, Algorithm 2 of the paper (E-I Prop)."""

import torch
from torch import Tensor
from torch.nn import functional as F

# cuDNN may compute a 3x3 convolution by Winograd's algorithm, which returns +-1e-8 where the sum is exactly 0;
# such rounding noise must not become the smallest positive value that everything silent is divided by.
WINOGRAD_NOISE = 1e-6


def smallest_positive(i_div: Tensor) -> Tensor:
    """`m = min{ I_div > 0 }` of every sample: one image at one time step.

    Args:
        i_div: divisive current `[T, B, C, ...]`, >= 0.
    Returns: `[T, B, 1, ...]`; `inf`, the minimum of the empty set, for a sample that is zero everywhere.
    """
    axes = tuple(range(2, i_div.ndim))
    if i_div.is_cuda:
        return i_div.masked_fill(i_div <= zero_level(i_div), torch.inf).amin(axes, keepdim=True)
    return F.threshold(i_div, 0, torch.inf).amin(axes, keepdim=True)  # masked_fill takes over ten times as long here


def replace_zeros(i_div: Tensor, smallest: Tensor) -> Tensor:
    """`I_div~`: `I_div` where it is positive, `smallest` (of `smallest_positive`) where it is zero; there is nothing
    between the two, so this is the larger one."""
    return torch.maximum(i_div, smallest)


def noise_of(i_div: Tensor) -> float:
    """Which part of a sample's largest value still counts as zero: 0 but for noise on CUDA."""
    return WINOGRAD_NOISE if i_div.is_cuda and i_div.dtype != torch.float64 else 0.0


def zero_level(i_div: Tensor) -> Tensor:
    """Up to which value `i_div` `[T, B, C, ...]` counts as zero, `[T, B, 1, ...]`."""
    return i_div.amax(tuple(range(2, i_div.ndim)), keepdim=True).mul_(noise_of(i_div))


def undivided(balanced: Tensor, i_div: Tensor) -> Tensor:
    """1 where nothing divides a balanced current `I_EE - I_sub` that is not zero, else 0; `[T, B, C, ...]`."""
    return ((i_div <= zero_level(i_div)) & (balanced.abs() > zero_level(balanced.abs()))).to(balanced)


def stabilize(i_div: Tensor) -> Tensor:
    """`I_div~`: `I_div` where it is positive and the sample's smallest positive value where it is zero.

    The backward pass is straight-through, `dL/dI_div = dL/dI_div~` also at the replaced sites. A sample that is zero
    everywhere becomes `inf`: dividing by it gives a current of 0 and passes no gradient, so that `I_E = b_E`.
    No device synchronisation.

    Args:
        i_div: divisive current `[T, B, C, ...]`, >= 0.
    Returns: tensor like `i_div`, > 0.
    """
    return _StraightThrough.apply(i_div)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, i_div: Tensor) -> Tensor:
        return replace_zeros(i_div, smallest_positive(i_div))

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> Tensor:
        return grads[0]
