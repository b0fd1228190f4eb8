"""Adaptive stabilisation of the divisive current, Algorithm 2 of the paper (E-I Prop)."""

import torch
from torch import Tensor

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
    return i_div.masked_fill(i_div <= zero_level(i_div), torch.inf).amin(axes, keepdim=True)


def zero_level(i_div: Tensor) -> Tensor | float:
    """What counts as zero: exactly 0, except on CUDA, where it is Winograd's rounding noise."""
    if not i_div.is_cuda or i_div.dtype == torch.float64:
        return 0.0
    return i_div.amax(tuple(range(2, i_div.ndim)), keepdim=True).mul_(WINOGRAD_NOISE)


def stabilize(i_div: Tensor) -> Tensor:
    """`I_div~`: `I_div` where it is positive and the sample's smallest positive value where it is zero.

    The backward pass is straight-through, `dL/dI_div = dL/dI_div~` also at the replaced sites. A sample that is zero
    everywhere becomes `inf`: dividing by it gives a current of 0 and passes no gradient, so that `I_E = b_E`.
    No device synchronisation.

    Args:
        i_div: divisive current `[T, B, C, ...]`, >= 0.
    Returns: tensor like `i_div`, > 0.
    """
    return _StraightThrough.apply(i_div)  # type: ignore[no-untyped-call]


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, i_div: Tensor) -> Tensor:
        return torch.where(i_div > zero_level(i_div), i_div, smallest_positive(i_div))

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> Tensor:
        return grads[0]
