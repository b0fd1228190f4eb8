"""Bimodality coefficient and dip have the values that theory and an independent computation give them."""

import numpy as np
import pytest
import torch
from circuits import gaussian, rng
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from eisnn import analysis as EA


def test_the_bimodality_coefficient_has_its_known_values():
    n = 200_000
    uniform = torch.rand(n, generator=rng(0), dtype=torch.float64)
    exponential = torch.empty(n, dtype=torch.float64).exponential_(generator=rng(0))
    two = gaussian(n) + 6 * (uniform > 0.5)
    for values, expected, tolerance in [
        (gaussian(n), 1 / 3, 0.005),
        (uniform, 5 / 9, 0.005),
        (exponential, 5 / 9, 0.02),
        ((uniform > 0.5).double(), 1.0, 0.001),
    ]:
        assert EA.bimodality_coefficient(values) == pytest.approx(expected, abs=tolerance)
    assert EA.bimodality_coefficient(two) > 5 / 9
    few = gaussian(9).numpy()  # the correction for few values, by the published formula
    kurtosis = stats.kurtosis(few, bias=False) + 3 * 8**2 / (7 * 6)
    expected = (stats.skew(few, bias=False) ** 2 + 1) / kurtosis
    assert EA.bimodality_coefficient(torch.from_numpy(few)) == pytest.approx(expected)


def nearest_unimodal(values: list[float]) -> float:
    """The dip by its definition: for every place of the mode, a linear program finds the function, convex before and
    concave after it, with a jump at the mode alone, that is nearest to the empirical distribution function."""
    x, counts = np.unique(values, return_counts=True)
    m, after = len(x), counts.cumsum() / len(values)
    before, best = after - counts / len(values), 1.0
    for k in range(m):  # unknowns: the function up to x_k from the left, from x_k on from the right, the distance
        rows, bounds, at = [], [], lambda i, k=k: i if i <= k else i + 1

        def add(entries: dict[int, float], bound: float, rows: list = rows, bounds: list = bounds) -> None:
            row = np.zeros(m + 2)
            for index, value in entries.items():
                row[index] += value
            rows.append(row)
            bounds.append(bound)

        for i in range(m):
            for index, target in ((at(i), before[i]), (k + 1 if i == k else at(i), after[i])):
                add({index: 1, m + 1: -1}, target)
                add({index: -1, m + 1: -1}, -target)
        for first in range(m):
            add({first: 1, first + 1: -1}, 0)
        for side, sign, shift in ((range(1, k), 1, 0), (range(k + 1, m - 1), -1, 1)):
            for i in side:
                left, right = sign / (x[i] - x[i - 1]), sign / (x[i + 1] - x[i])
                add({i + shift: left + right, i - 1 + shift: -left, i + 1 + shift: -right}, 0)
        goal = np.zeros(m + 2)
        goal[-1] = 1
        best = min(best, optimize.linprog(goal, np.array(rows), np.array(bounds), bounds=(0, 1)).fun)
    return best


@given(st.integers(0, 10**6), st.integers(4, 11), st.booleans(), st.booleans())
def test_the_dip_is_the_distance_to_the_nearest_unimodal_distribution(seed, n, ties, two):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=n) + two * 5 * (np.arange(n) < n // 2)
    x = np.round(2 * x) / 2 if ties else x
    if len(np.unique(x)) > 1:
        expected = max(nearest_unimodal(x.tolist()), 1 / (2 * n))
        assert EA.dip_test(x, draws=1).dip == pytest.approx(expected, abs=1e-7)


def test_the_dip_has_its_known_extremes():
    assert EA.dip_test(np.arange(50), draws=1).dip == pytest.approx(1 / 100)
    assert EA.dip_test(torch.tensor([0.0, 1.0]).repeat(20), draws=1).dip == pytest.approx(1 / 4)


def test_the_dip_test_tells_one_mode_from_two():
    one, two = gaussian(3000), gaussian(3000) + 5 * (torch.arange(3000) % 2)
    options = {"sample": 200, "draws": 99}
    assert EA.dip_test(one, **options).p > 0.1
    assert EA.dip_test(two, **options).p == pytest.approx(0.01)
    assert EA.dip_test(two, **options) == EA.dip_test(two, **options)
    uniform = torch.rand(400, 200, generator=rng(3), dtype=torch.float64)
    rejected = sum(EA.dip_test(sample, **options).p <= 0.1 for sample in uniform[:200])
    assert 8 <= rejected <= 34  # of 200, 20 are expected at the level of 10 %
