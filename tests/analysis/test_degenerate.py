"""What each measure says of data from which nothing can be measured: the documented value, or an error."""

from math import isnan, nan, pi

import numpy as np
import pytest
import torch

import eisnn.analysis as an

THETA = torch.arange(6) * pi / 6
CONTRAST = torch.linspace(0, 1, 6)


def all_nan(values):
    return bool(torch.as_tensor(values).isnan().all())


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1e-30, 1e30])
def test_what_does_not_vary_has_no_dimension_correlation_or_contrast_response(value):
    same = torch.full((4, 3, 6), value)  # float32: its mean is not exactly itself
    assert all_nan(an.effective_dimension(same[0]))
    assert all_nan(an.noise_correlation(same))
    assert all_nan(an.signal_to_noise(same))
    assert all_nan(an.bimodality_coefficient(same))
    assert torch.equal(an.dissimilarity(same[:, 0]).isnan(), ~torch.eye(4, dtype=torch.bool))
    fit = an.fit_naka_rushton(CONTRAST, same[0, 0])
    assert fit.r_max == 0
    assert isnan(fit.c50)
    assert isnan(fit.exponent)
    assert isnan(fit.r_squared)
    assert fit(CONTRAST).numpy() == pytest.approx(np.full(6, value), rel=1e-6)


def test_a_response_that_falls_has_no_c50():
    fit = an.fit_naka_rushton(CONTRAST, 1 - CONTRAST)
    assert (fit.r_max, fit.r_squared) == (0, 0)
    assert isnan(fit.c50)


@pytest.mark.parametrize("contrast", [torch.zeros(6), torch.full((6,), 0.5), torch.tensor([0, 0, 0.5, 0.5, 1, 1])])
def test_too_few_different_contrasts_are_no_curve(contrast):
    with pytest.raises(ValueError, match="at least 5 different contrasts"):
        an.fit_naka_rushton(contrast, torch.arange(6.0))


@pytest.mark.parametrize("value", [0.1, 1.0, 7.3])
def test_a_flat_tuning_has_no_preference(value):
    preferred, selectivity = an.orientation_selectivity(torch.full((2, 6), value), THETA)
    assert all_nan(preferred)
    assert selectivity.tolist() == [0, 0]


def test_without_a_response_nothing_is_preferred_selective_or_suppressed():
    preferred, selectivity = an.orientation_selectivity(torch.zeros(2, 6), THETA)
    assert all_nan(preferred)
    assert all_nan(selectivity)
    assert all_nan(an.suppression_index(torch.zeros(2, 4)))


def test_without_currents_there_is_no_balance():
    zeros = torch.zeros(4, 3, 6)
    assert all_nan(an.balance_ratio(zeros, zeros))
    assert all_nan(an.residual(zeros, zeros))
    assert isnan(an.weight_summary(zeros).cv)


RESPONSES = {
    "effective_dimension": lambda x: an.effective_dimension(x.reshape(len(x), 18)),
    "noise_correlation": an.noise_correlation,
    "signal_to_noise": an.signal_to_noise,
    "dissimilarity": lambda x: an.dissimilarity(x.reshape(len(x), 18)),
    "firing_rate": an.firing_rate,
    "interval_cv": an.interval_cv,
    "saturated_fraction": an.saturated_fraction,
    "silent_fraction": an.silent_fraction,
    "bimodality_coefficient": an.bimodality_coefficient,
    "dip_test": lambda x: an.dip_test(x.reshape(-1)),
    "weight_summary": an.weight_summary,
    "balance_ratio": lambda x: an.balance_ratio(x, x),
    "residual": lambda x: an.residual(x, x),
    "contour_strength": lambda x: an.contour_strength(x[None]),
    "suppression_index": lambda x: an.suppression_index(x.reshape(len(x), 18)),
    "fit_naka_rushton": lambda x: an.fit_naka_rushton(CONTRAST, x.reshape(-1)[:6]),
}


@pytest.mark.parametrize("bad", [nan, float("inf")])
@pytest.mark.parametrize("measure", RESPONSES.values(), ids=RESPONSES)
def test_one_value_that_is_not_finite_is_an_error(measure, bad):
    x = torch.zeros(4, 3, 6)
    x[0, 0, 3] = bad
    with pytest.raises(ValueError, match="must be finite, got 1 of"):
        measure(x)


@pytest.mark.parametrize("measure", RESPONSES.values(), ids=RESPONSES)
def test_no_value_at_all_is_an_error(measure):
    with pytest.raises(ValueError, match="must hold at least one value"):
        measure(torch.zeros(0, 3, 6))


def test_measures_take_arrays_as_they_take_tensors():
    x = np.random.default_rng(0).random((5, 3, 6))
    assert torch.equal(an.noise_correlation(x), an.noise_correlation(torch.from_numpy(x)))
    assert an.bimodality_coefficient(x) == an.bimodality_coefficient(torch.from_numpy(x))


@pytest.mark.parametrize("wrong", [THETA / 2, 2 * THETA, THETA[[0, 1, 2, 3, 4, 4]]])
def test_orientations_must_cover_the_half_circle(wrong):
    with pytest.raises(ValueError, match="evenly spaced over pi"):
        an.orientation_selectivity(torch.ones(2, 6), wrong)


@pytest.mark.parametrize("wrong", [{"c50": 0.0}, {"exponent": 0.0}, {"c50": nan}, {"exponent": float("inf")}])
def test_the_function_needs_a_c50_and_an_exponent(wrong):
    with pytest.raises(ValueError, match="c50 and exponent must be > 0"):
        an.naka_rushton(CONTRAST, 1.0, **({"c50": 0.3, "exponent": 2.0} | wrong))


def test_the_fewest_that_can_be_measured():
    third = torch.arange(3) * pi / 3
    assert an.orientation_selectivity(torch.eye(3), third)[0].numpy() == pytest.approx(third.numpy(), abs=1e-6)
    assert an.signal_to_noise(torch.tensor([[[0.0], [4]], [[2.0], [6]]])).tolist() == [3.5]
    assert an.effective_dimension(torch.tensor([[0.0], [1]])) == 1
    assert an.dissimilarity(torch.eye(2)).flatten().tolist() == pytest.approx([0, 2, 2, 0])
