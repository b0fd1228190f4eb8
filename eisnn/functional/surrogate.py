"""Heaviside step with a named surrogate derivative (eq. (4) and its backward pass).

The forward pass is exact: a spike where the membrane potential has reached the threshold. The backward pass
replaces the derivative of the step, zero almost everywhere, by a bump of `h = H - theta`, the distance to the
threshold in units of the threshold current.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

Derivative = Callable[[Tensor, float], Tensor]


class Surrogate(NamedTuple):
    """An entry of the one table of surrogates.

    Args:
        derivative: of `h` and the width parameter alpha, >= 0.
        alpha: the default width parameter.
        number: of its form in the compiled and the Triton routines (`slopes` in surrogate.h, `_slope` in triton.py);
            None where they have none, and torch operations serve it.
    """

    derivative: Derivative
    alpha: float
    number: int | None


SURROGATES: dict[str, Surrogate] = {}


def register_surrogate(name: str, alpha: float, number: int | None = None) -> Callable[[Derivative], Derivative]:
    """Decorator that enters a derivative `(h, alpha) -> Tensor` as the surrogate `name`; see `Surrogate`."""

    def enter(derivative: Derivative) -> Derivative:
        SURROGATES[name] = Surrogate(derivative, alpha, number)
        return derivative

    return enter


@register_surrogate("sigmoid", 4.0, 0)
def _sigmoid(h: Tensor, alpha: float) -> Tensor:
    """`a sig(a h) (1 - sig(a h))`, the paper's; height a/4."""
    s = torch.sigmoid(h * alpha)
    return (s - s * s).mul_(alpha)


@register_surrogate("atan", 2.0, 1)
def _atan(h: Tensor, alpha: float) -> Tensor:
    """`(a/2) / (1 + (pi a h / 2)^2)` (Fang et al. 2021); with a = 2: `1 / (1 + (pi h)^2)`."""
    return (alpha / 2) / (1 + (h * (math.pi / 2 * alpha)) ** 2)


@register_surrogate("fast_sigmoid", 10.0, 2)
def _fast_sigmoid(h: Tensor, alpha: float) -> Tensor:
    """`1 / (1 + a |h|)^2` (SuperSpike, Zenke and Ganguli 2018)."""
    return (1 + h.abs() * alpha) ** -2


@register_surrogate("triangle", 1.0, 3)
def _triangle(h: Tensor, alpha: float) -> Tensor:
    """`a max(0, 1 - a |h|)` (Bellec et al. 2018)."""
    return (1 - h.abs() * alpha).clamp_min(0) * alpha


@register_surrogate("rectangle", 1.0, 4)
def _rectangle(h: Tensor, alpha: float) -> Tensor:
    """`a` where `|h| < 1/(2a)`, else 0 (Wu et al. 2018)."""
    return (h.abs() < 0.5 / alpha).to(h.dtype) * alpha


@register_surrogate("leaky_relu", 0.0, 5)
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
    entry = SURROGATES[surrogate]
    return entry.derivative(h, entry.alpha if alpha is None else alpha)


class _Heaviside(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, surrogate: str, alpha: float | None) -> Tensor:
        ctx.save_for_backward(h)
        ctx.surrogate, ctx.alpha = surrogate, alpha
        return torch.where(h.isnan(), h, (h >= 0).to(h.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (h,) = ctx.saved_tensors
        return grads[0] * surrogate_derivative(h, ctx.surrogate, ctx.alpha), None, None


def heaviside(h: Tensor, surrogate: str = "sigmoid", alpha: float | None = None) -> Tensor:
    """1 where `h >= 0` (at the threshold it fires), else 0; differentiable through `surrogate_derivative`. Where `h` is
    NaN so is the spike: it is not to vanish."""
    return _Heaviside.apply(h, surrogate, alpha)
