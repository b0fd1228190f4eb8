"""Choices: fractions by condition, and the psychometric fit."""

from math import isnan

import pytest
import torch
from circuits import rng
from hypothesis import given, settings
from hypothesis import strategies as st

from eisnn.analysis import Psychometric, fit_psychometric, fraction_by


def chosen(truth: Psychometric, trials: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Evidence at nine levels, and choices drawn from a psychometric function."""
    evidence = torch.linspace(-40, 40, 9, dtype=torch.float64).repeat(trials // 9)
    return evidence, (torch.rand(len(evidence), generator=rng(seed)) < truth(evidence)).double()


@given(st.floats(-10, 10), st.floats(5, 25), st.floats(0, 0.1))
@settings(max_examples=10, deadline=None)
def test_a_fit_finds_the_function_that_choices_were_drawn_from(bias: float, threshold: float, lapse: float) -> None:
    truth = Psychometric(bias, threshold, lapse)
    evidence, choices = chosen(truth, 36000)
    found = fit_psychometric(evidence, choices)
    assert found.bias == pytest.approx(bias, abs=1.5)
    assert found.threshold == pytest.approx(threshold, rel=0.15)
    assert found.lapse == pytest.approx(lapse, abs=0.03)
    assert torch.allclose(found(evidence), truth(evidence), atol=0.02)


def test_no_other_function_makes_the_choices_more_likely() -> None:
    evidence, choices = chosen(Psychometric(3.0, 12.0, 0.05), 900)

    def surprise(function: Psychometric) -> float:
        p = function(evidence)
        return -float((choices * p.log() + (1 - choices) * (1 - p).log()).sum())

    best = fit_psychometric(evidence, choices)
    fields = vars(best)
    assert min(fields.values()) > 0.01
    for name, value in fields.items():
        for factor in (0.9, 1.1):
            assert surprise(Psychometric(**fields | {name: value * factor})) > surprise(best)


def test_a_function_is_one_half_at_its_bias_and_84_percent_a_threshold_above() -> None:
    said = Psychometric(2.0, 5.0, 0.0)([2.0, 7.0, -1e6, 1e6])
    assert said.tolist() == pytest.approx([0.5, 0.8413, 0, 1], abs=1e-4)
    assert Psychometric(2.0, 5.0, 0.1)([-1e6, 1e6]).tolist() == pytest.approx([0.1, 0.9])


def test_choices_that_are_all_alike_have_no_threshold() -> None:
    found = fit_psychometric(torch.arange(8.0), torch.ones(8))
    assert isnan(found.bias)
    assert isnan(found.threshold)


def test_choices_without_doubt_end_at_the_narrowest() -> None:
    evidence = torch.linspace(-1, 1, 10)
    found = fit_psychometric(evidence, (evidence > 0).float())
    assert found.lapse == pytest.approx(0, abs=1e-3)
    assert abs(found.bias) < 0.12
    assert found.threshold < 0.1


def test_fractions_by_level() -> None:
    found = fraction_by([3.0, 1.0, 3.0, 3.0, 1.0], [1, 0, 1, 0, 0])
    assert found.levels.tolist() == [1, 3]
    assert found.fractions.tolist() == pytest.approx([0, 2 / 3])
    assert found.trials.tolist() == [2, 3]
    assert found.errors.tolist() == pytest.approx([0, (2 / 9 / 3) ** 0.5])


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(ValueError, match="one outcome for each of N trials"):
        fraction_by([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="must be 0 or 1, got 1 of 2"):
        fraction_by([1.0, 2.0], [1.0, 0.5])
    with pytest.raises(ValueError, match="at least 4 different levels"):
        fit_psychometric([1.0, 2.0, 3.0], [1, 0, 1])
