"""What every measure asks of its numbers, and when they count as constant."""

from math import inf
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Values = Tensor | NDArray[Any]
ROUNDING = 8  # in units of the precision: what varies by no more than this is constant


def numbers(name: str, values: Values) -> Tensor:
    """A tensor of at least float32, without a gradient, of a tensor, or of an array or list, whose numbers are float64.

    Raises: ValueError that calls the values `name` if there are none, or some are NaN or infinite.
    """
    found = values.detach() if isinstance(values, Tensor) else torch.as_tensor(np.asarray(values))
    precise = torch.promote_types(found.dtype, torch.float32) if found.is_floating_point() else torch.float64
    if found.numel() == 0:
        raise ValueError(f"{name} must hold at least one value, got shape {list(found.shape)}")
    if wrong := int((~found.isfinite()).sum()):
        raise ValueError(f"{name} must be finite, got {wrong} of {found.numel()} values that are NaN or infinite")
    return found.to(precise)


def not_negative(name: str, values: Values, beside: Tensor | None = None) -> Tensor:
    """`numbers` that are >= 0; ValueError for others. What a convolution rounds to below 0 is taken as 0: rounding is
    that of the largest value, here or `beside`."""
    found = numbers(name, values)
    smallest, largest = (float(value) for value in found.aminmax())
    if smallest < -1e-5 * max(largest, 0.0 if beside is None else float(beside.max()), 0.0):
        raise ValueError(f"{name} must be >= 0, got {smallest:.3g}")
    return found.clamp_min(0)


def sequence(name: str, values: Values, dt: float) -> Tensor:
    """`numbers` `[T, B, ...]` in steps of `dt` ms; ValueError for another shape, or unless `dt` is finite and > 0."""
    found = numbers(name, values)
    if found.ndim < 2:
        raise ValueError(f"{name} must be [T, B, ...], got shape {list(found.shape)}")
    if not 0 < dt < inf:
        raise ValueError(f"dt must be finite and > 0, in ms, got {dt!r}")
    return found


def whole_steps(name: str, ms: float, step: float, most: int, fewest: int = 1) -> int:
    """Of `ms` milliseconds; ValueError unless they are `fewest` to `most` steps of `step` ms, with no rest."""
    steps = ms / step
    if not (fewest - 0.5 < steps < most + 0.5 and abs(steps - round(steps)) < 1e-6 * steps):
        raise ValueError(
            f"{name} must be a multiple of {step:g} ms, here from {fewest * step:g} to {most * step:g} ms, got {ms!r}"
        )
    return round(steps)


def binned(values: Tensor, dt: float, width: float) -> Tensor:
    """Means `[S, B, ...]`, float64, of `values` `[T, B, ...]` in bins of `width` ms; without the rest at the end."""
    steps = whole_steps("width", width, dt, len(values))
    bins = len(values) // steps
    return values[: bins * steps].unflatten(0, (bins, steps)).mean(1, dtype=torch.float64)


def rounding(values: Tensor) -> float:
    """Below which part of their size differences between `values` are rounding."""
    return ROUNDING * torch.finfo(values.dtype).eps


def deviations(values: Tensor, axis: int) -> Tensor:
    """From the mean along `axis`, float64; exactly 0 where the values are constant up to rounding."""
    low, high = values.aminmax(dim=axis, keepdim=True)
    varies = high - low > rounding(values) * torch.maximum(high.abs(), low.abs())
    exact = values.double()
    return torch.where(varies, exact - exact.mean(axis, keepdim=True), 0)


def unit(vectors: Tensor, axis: int) -> Tensor:
    """Scaled to length 1 along `axis`; NaN where the length is 0."""
    return vectors / torch.linalg.vector_norm(vectors, dim=axis, keepdim=True)


def correlation(a: Tensor, b: Tensor, axis: int) -> Tensor:
    """Pearson's correlation along `axis`, float64 in [-1, 1]; NaN where one of the two is constant up to rounding."""
    return (unit(deviations(a, axis), axis) * unit(deviations(b, axis), axis)).sum(axis).clamp(-1, 1)
