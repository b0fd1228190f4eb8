"""Shape of distributions: that of currents (Gaussian at the start, of two modes after training?) and of weights.

The dip and its test are Hartigan and Hartigan's (1985, Annals of Statistics 13:70-84).
"""

from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from eisnn.analysis.measures.values import Values, numbers, rounding
from eisnn.functional.checks import check_int
from eisnn.libraries import library

Array = NDArray[np.float64]
FEWEST = 4  # values; of three or fewer any distribution is unimodal, and kurtosis has no meaning


def bimodality_coefficient(values: Values) -> float:
    """`(skewness^2 + 1) / (kurtosis + 3 (n-1)^2 / ((n-2)(n-3)))` of SAS (Pfister et al. 2013,
    doi:10.3389/fpsyg.2013.00700), with skewness and excess kurtosis corrected for the size of the sample.

    About 1/3 for a Gaussian, 5/9 for a uniform distribution, 1 for two equal atoms; above 5/9 it hints at two modes.
    Skewness alone raises it as well: an exponential distribution has 5/9 too.

    Args:
        values: any shape, at least four.
    Returns: a number > 0; NaN where the values do not vary by more than rounding.
    Raises: ValueError for fewer values, or some that are NaN or infinite; ImportError without SciPy (extra `analysis`).
    """
    x = _checked(values)
    if np.ptp(x) == 0:
        return float("nan")
    n, _, _, _, skewness, kurtosis = library("scipy.stats", "analysis").describe(x, bias=False)
    return float((skewness**2 + 1) / (kurtosis + 3 * (n - 1) ** 2 / ((n - 2) * (n - 3))))


class WeightSummary(NamedTuple):
    """Of some weights: their number, mean, coefficient of variation (1 for an exponential distribution) and the part of
    them that is exactly 0: the synapses that Dale's law has closed."""

    n: int
    mean: float
    cv: float
    zero: float


def weight_summary(weights: Values) -> WeightSummary:
    """Number, mean, coefficient of variation (NaN if the mean is 0 but for rounding) and part of zeros of weights, of
    any shape.

    Raises: ValueError for weights that are NaN or infinite, or none.
    """
    given = numbers("weights", weights)
    w, eps = given.double(), torch.finfo(given.dtype).eps if given.is_floating_point() else 0.0
    mean = float(w.mean())
    cv = float(w.std(correction=0)) / mean if abs(mean) > eps * float(w.abs().mean()) else float("nan")
    return WeightSummary(w.numel(), mean, cv, float((w == 0).double().mean()))


class DipTest(NamedTuple):
    """`dip` of the sample, and `p`: part of uniform samples of the same size whose dip is at least as large."""

    dip: float
    p: float


def dip_test(values: Values, sample: int = 1000, draws: int = 500, generator: torch.Generator | None = None) -> DipTest:
    """Dip of a sample of `values`, and how often a uniform distribution (the hardest unimodal one) dips as much.

    The dip is the largest distance between the empirical distribution function and the nearest unimodal one. It lies
    between 1/(2n), for n values evenly spaced or alike but for rounding (p is 1), and 1/4, for two equal atoms. A small
    p speaks against one mode. With many values any atom, such as the current `b_E` of silent patches or zero, is a mode
    of its own: look at the histogram too.

    Args:
        values: any shape, at least four.
        sample: at most so many of them, drawn without replacement; at least four.
        draws: uniform samples that p is estimated from; the smallest p is 1 / (draws + 1).
        generator: of the sample, on the CPU; None draws with seed 0. The uniform samples are the same in every call.
    Raises: ValueError for fewer values, or some that are NaN or infinite.
    """
    check_int("dip_test", "sample", sample, FEWEST)
    check_int("dip_test", "draws", draws)
    x = _checked(values)
    if len(x) > sample:
        drawn = torch.Generator().manual_seed(0) if generator is None else generator
        x = x[torch.randperm(len(x), generator=drawn)[:sample].numpy()]
    dip = _dip(x)
    at_least = int((_uniform_dips(len(x), draws) >= dip).sum())
    return DipTest(dip, (at_least + 1) / (draws + 1))


def _checked(values: Values) -> Array:
    """All values in a row, float64; of one value where they do not vary by more than rounding."""
    found = numbers("values", values)
    if found.numel() < FEWEST:
        raise ValueError(f"values must be at least {FEWEST}, got {found.numel()}")
    x: Array = found.double().flatten().cpu().numpy()
    return np.full_like(x, x[0]) if np.ptp(x) <= rounding(found) * np.abs(x).max() else x


@cache
def _uniform_dips(n: int, draws: int) -> Array:
    """Dips of uniform samples of n values."""
    rng = np.random.default_rng(0)
    return np.array([_dip(rng.random(n)) for _ in range(draws)])


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
