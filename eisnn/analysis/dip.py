"""Hartigan's dip test of unimodality (Hartigan and Hartigan 1985, Annals of Statistics 13:70-84)."""

from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]
SHORTEST = 4  # values; of three or fewer any distribution is unimodal


class DipTest(NamedTuple):
    """`dip` of the sample, and `p`: part of uniform samples of the same size whose dip is at least as large."""

    dip: float
    p: float


def dip_statistic(values: Tensor) -> float:
    """The dip: the largest distance between the empirical distribution function and the nearest unimodal one.

    Between 1/(2n), for n values evenly spaced, and 1/4, for two equal atoms.

    Args:
        values: any shape, at least four finite values.
    Raises: ValueError for fewer, or for values that are not finite.
    """
    return _dip(_checked(values))


def dip_test(values: Tensor, sample: int = 1000, draws: int = 500, generator: torch.Generator | None = None) -> DipTest:
    """Dip of a sample of `values`, and how often a uniform distribution (the hardest unimodal one) dips as much.

    A small p speaks against one mode. With many values any atom, such as the current `b_E` of silent patches or zero,
    is a mode of its own: look at the histogram too.

    Args:
        values: any shape.
        sample: at most so many of them, drawn without replacement.
        draws: uniform samples that p is estimated from; the smallest p is 1 / (draws + 1).
        generator: of the sample, on the CPU; None draws with seed 0. The uniform samples are the same in every call.
    Raises: ValueError as `dip_statistic`.
    """
    numbers = _checked(values)
    if len(numbers) > sample:
        drawn = torch.Generator().manual_seed(0) if generator is None else generator
        numbers = numbers[torch.randperm(len(numbers), generator=drawn)[:sample].numpy()]
    dip = _dip(numbers)
    at_least = int((_uniform_dips(len(numbers), draws) >= dip).sum())
    return DipTest(dip, (at_least + 1) / (draws + 1))


@cache
def _uniform_dips(n: int, draws: int) -> Array:
    """Dips of uniform samples of n values."""
    rng = np.random.default_rng(0)
    return np.array([_dip(rng.random(n)) for _ in range(draws)])


def _checked(values: Tensor) -> Array:
    numbers = values.detach().double().flatten().cpu().numpy()
    if len(numbers) < SHORTEST or not np.isfinite(numbers).all():
        raise ValueError(f"the dip needs at least {SHORTEST} values, all finite; got {len(numbers)} values")
    return numbers


def _dip(values: Array) -> float:
    """Of an array of values.

    The nearest unimodal function is convex up to a modal interval and concave after it. From the whole range on, the
    interval is narrowed to where the greatest convex minorant of the empirical function F and its least concave
    majorant are farthest apart, while what lies outside is compared with the minorant (left) and the majorant (right).
    F steps from `before` to `after` at each value x; heights count values. The minorant lies under the points
    (x, before), the majorant over the points (x, after).
    """
    x, counts = np.unique(values, return_counts=True)
    after = counts.cumsum().astype(np.float64)
    before = after - counts
    low, high, dip = 0, len(x) - 1, 1.0
    while True:
        below, above = _hull(x, before, low, high, 1), _hull(x, after, low, high, -1)
        gap_above = after[above] - np.interp(x[above], x[below], before[below])
        gap_below = np.interp(x[below], x[above], after[above]) - before[below]
        if max(gap_above.max(), gap_below.max()) <= dip:
            break
        if gap_below.max() >= gap_above.max():
            left = below[int(gap_below.argmax())]
            right = above[np.searchsorted(above, left)]
        else:
            right = above[int(gap_above.argmax())]
            left = below[np.searchsorted(below, right, side="right") - 1]
        outside = slice(low, left)
        dip = max(dip, (after[outside] - np.interp(x[outside], x[below], before[below])).max(initial=0.0))
        outside = slice(right + 1, high + 1)
        dip = max(dip, (np.interp(x[outside], x[above], after[above]) - before[outside]).max(initial=0.0))
        if (low, high) == (left, right):
            break
        low, high = left, right
    return float(dip) / (2 * len(values))


def _hull(x: Array, y: Array, low: int, high: int, sign: int) -> NDArray[np.int64]:
    """Indices of the corners of the greatest convex minorant (sign 1) or least concave majorant (-1) of the points
    `low` to `high`."""
    corners: list[int] = []
    for i in range(low, high + 1):
        while len(corners) > 1:
            a, b = corners[-2:]
            if sign * ((y[b] - y[a]) * (x[i] - x[a]) - (y[i] - y[a]) * (x[b] - x[a])) < 0:
                break
            corners.pop()
        corners.append(i)
    return np.array(corners)
