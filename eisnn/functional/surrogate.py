"""Heaviside step with a named surrogate derivative (eq. (4) and its backward pass).

The forward pass is exact: a spike where the membrane potential has reached the threshold. The backward pass
replaces the derivative of the step, zero almost everywhere, by a bump of `h = H - theta`, the distance to the
threshold in units of the threshold current.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# name -> (derivative of h and the width parameter alpha, default alpha)
SURROGATES: dict[str, tuple[Callable[[Tensor, float], Tensor], float]] = {}


def _surrogate(name: str, default_alpha: float) -> Callable:
    def register(derivative: Callable[[Tensor, float], Tensor]) -> Callable[[Tensor, float], Tensor]:
        SURROGATES[name] = (derivative, default_alpha)
        return derivative

    return register


@_surrogate("sigmoid", 4.0)
def _sigmoid(h: Tensor, alpha: float) -> Tensor:
    """`a sig(a h) (1 - sig(a h))`, the paper's; height a/4."""
    s = torch.sigmoid(h * alpha)
    return (s - s * s).mul_(alpha)


@_surrogate("atan", 2.0)
def _atan(h: Tensor, alpha: float) -> Tensor:
    """`(a/2) / (1 + (pi a h / 2)^2)` (Fang et al. 2021); with a = 2: `1 / (1 + (pi h)^2)`."""
    return (alpha / 2) / (1 + (h * (math.pi / 2 * alpha)) ** 2)


@_surrogate("fast_sigmoid", 10.0)
def _fast_sigmoid(h: Tensor, alpha: float) -> Tensor:
    """`1 / (1 + a |h|)^2` (SuperSpike, Zenke and Ganguli 2018)."""
    return (1 + h.abs() * alpha) ** -2


@_surrogate("triangle", 1.0)
def _triangle(h: Tensor, alpha: float) -> Tensor:
    """`a max(0, 1 - a |h|)` (Bellec et al. 2018)."""
    return (1 - h.abs() * alpha).clamp_min(0) * alpha


@_surrogate("rectangle", 1.0)
def _rectangle(h: Tensor, alpha: float) -> Tensor:
    """`a` where `|h| < 1/(2a)`, else 0 (Wu et al. 2018)."""
    return (h.abs() < 0.5 / alpha).to(h.dtype) * alpha


@_surrogate("leaky_relu", 0.0)
def _leaky_relu(h: Tensor, alpha: float) -> Tensor:
    """1 at and above the threshold, `a` below it."""
    return torch.where(h >= 0, torch.ones_like(h), alpha)


def surrogate_derivative(h: Tensor, surrogate: str = "sigmoid", alpha: float | None = None) -> Tensor:
    """Surrogate of `ds/dH` at `h = H - theta`.

    Args:
        h: distance to the threshold, any shape.
        surrogate: one of `SURROGATES`.
        alpha: width parameter; None takes the surrogate's default.
    Returns: tensor like `h`, >= 0.
    Raises: ValueError for an unknown name.
    """
    if surrogate not in SURROGATES:
        raise ValueError(f"unknown surrogate {surrogate!r}; known: {', '.join(sorted(SURROGATES))}")
    derivative, default = SURROGATES[surrogate]
    return derivative(h, default if alpha is None else alpha)


class _Heaviside(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, surrogate: str, alpha: float | None) -> Tensor:
        ctx.save_for_backward(h)
        ctx.surrogate, ctx.alpha = surrogate, alpha
        return (h >= 0).to(h.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (h,) = ctx.saved_tensors
        return grads[0] * surrogate_derivative(h, ctx.surrogate, ctx.alpha), None, None


def heaviside(h: Tensor, surrogate: str = "sigmoid", alpha: float | None = None) -> Tensor:
    """1 where `h >= 0` (at the threshold it fires), else 0; differentiable through `surrogate_derivative`."""
    return _Heaviside.apply(h, surrogate, alpha)
