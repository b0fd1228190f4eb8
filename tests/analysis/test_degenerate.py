"""Degenerate data of every measure gives the documented value, or a ValueError that says what was wrong."""

import re
from functools import partial
from inspect import isfunction
from math import inf, isnan, nan, pi
from pathlib import Path

import numpy as np
import pytest
import torch
from circuits import gaussian, spikes
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from networks import images, small

from eisnn import analysis as EA
from eisnn.analysis.stimuli import add_noise, grating, plaid, scale_intensity

ANGLES = torch.arange(4, dtype=torch.float64) * pi / 4
LEVELS = torch.linspace(0, 1, 6, dtype=torch.float64)
E, I, T = gaussian(4, 3, 5, 2, 2).abs(), gaussian(4, 3, 5, 2, 2, seed=1).abs(), spikes((120, 2, 3))
# By name: a measure of some arguments, and valid ones.
MEASURES = {
    "balance_ratio": (EA.balance_ratio, E, I),
    "bimodality_coefficient": (EA.bimodality_coefficient, E),
    "contour_correlation": (EA.contour_correlation, E[0], images(3)),
    "contour_strength": (EA.contour_strength, images(3)),
    "dip_test": (partial(EA.dip_test, draws=9), E),
    "dissimilarity": (EA.dissimilarity, E),
    "effective_dimension": (EA.effective_dimension, E),
    "ei_correlation": (partial(EA.ei_correlation, over="images"), E, I),
    "firing_rate": (EA.firing_rate, T),
    "fit_naka_rushton": (EA.fit_naka_rushton, LEVELS, LEVELS.sqrt()),
    "fit_psychometric": (EA.fit_psychometric, torch.arange(12.0) % 6, (torch.arange(12.0) % 5 > 1).double()),
    "fraction_by": (EA.fraction_by, torch.arange(12.0) % 6, torch.arange(12.0) % 2),
    "interval_cv": (EA.interval_cv, T),
    "naka_rushton": (partial(EA.naka_rushton, r_max=1, c50=0.3, exponent=2), LEVELS),
    "noise_correlation": (EA.noise_correlation, gaussian(4, 3, 5)),
    "orientation_selectivity": (EA.orientation_selectivity, gaussian(5, 4).abs(), ANGLES),
    "residual": (EA.residual, E, I),
    "saturated_fraction": (EA.saturated_fraction, T),
    "signal_to_noise": (EA.signal_to_noise, gaussian(4, 3, 5)),
    "silent_fraction": (EA.silent_fraction, T),
    "suppression_index": (EA.suppression_index, gaussian(5, 4).abs()),
    "weight_summary": (EA.weight_summary, E),
}
NOISE = gaussian(160, 12, 3)
MEASURES |= {
    "direction_selectivity": (EA.direction_selectivity, gaussian(5, 4).abs(), 2 * ANGLES),
    "choice_probability": (EA.choice_probability, gaussian(6, 3), torch.arange(6.0) // 3),
    "cross_correlation": (partial(EA.cross_correlation, dt=2.0), NOISE, gaussian(160, 12, 3, seed=1)),
    "ei_lag": (partial(EA.ei_lag, dt=2.0), NOISE.abs(), NOISE.abs().roll(2, 0)),
    "intrinsic_timescale": (partial(EA.intrinsic_timescale, dt=2.0, width=4.0), NOISE.unfold(0, 30, 1).sum(-1)),
    "peak_frequency": (EA.peak_frequency, torch.arange(9.0), torch.ones(2, 9).cumsum(1) % 5),
    "power_spectrum": (partial(EA.power_spectrum, dt=2.0), NOISE),
    "psth": (partial(EA.psth, dt=2.0, width=10.0, smooth=5.0), T),
    "spectrogram": (partial(EA.spectrogram, dt=2.0), NOISE),
    "spike_count_correlation": (partial(EA.spike_count_correlation, dt=2.0, width=10.0), T),
    "spike_counts": (partial(EA.spike_counts, dt=2.0, width=10.0), T),
    "spike_field_coherence": (partial(EA.spike_field_coherence, dt=2.0), spikes((160, 12, 3)), NOISE),
    "time_course": (partial(EA.time_course, dt=2.0, width=10.0), NOISE),
}
DISSIMILAR = EA.dissimilarity(gaussian(5, 9)), EA.dissimilarity(gaussian(5, 9, seed=1))


def leaves(found):
    """All numbers of a result, in a row."""
    one = isinstance(found, torch.Tensor | float)
    parts = [found] if one else found if isinstance(found, tuple) else vars(found).values()
    return torch.cat([torch.as_tensor(part, dtype=torch.float64).flatten() for part in parts])


def test_the_table_has_every_measure():
    rooms = {name: getattr(EA, name) for name in EA.__all__ if isfunction(getattr(EA, name))}
    measures = {name for name, f in rooms.items() if f.__module__.startswith("eisnn.analysis.measures")}
    assert measures == {*MEASURES, "representational_similarity"}


def test_the_pages_speak_of_every_measure():
    page = (Path(__file__).parents[2] / "docs/how-to/record-measure-perturb.md").read_text(encoding="utf-8")
    assert [name for name in MEASURES if not re.search(rf"\b{name}\b", page)] == []


@pytest.mark.parametrize("name", MEASURES)
def test_arrays_and_tensors_give_the_same_finite_numbers(name):
    measure, *given_ = MEASURES[name]
    expected = leaves(measure(*given_))
    assert expected.isfinite().all()
    assert torch.equal(leaves(measure(*(values.numpy() for values in given_))), expected)
    grown = [values.clone().requires_grad_() for values in given_]
    assert not any(isinstance(part, torch.Tensor) and part.requires_grad for part in [measure(*grown)])


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("wrong", [nan, inf, -inf])
def test_values_that_are_not_finite_are_an_error(name, wrong):
    measure, *given_ = MEASURES[name]
    for k in range(len(given_)):
        broken = [values.clone() for values in given_]
        broken[k].view(-1)[-1] = wrong
        with pytest.raises(ValueError, match=r"must be finite, got 1 of \d+ values that are NaN or infinite"):
            measure(*broken)


@pytest.mark.parametrize("name", MEASURES)
def test_no_values_and_a_scalar_are_an_error(name):
    measure, *given_ = MEASURES[name]
    for values in given_:
        with pytest.raises(ValueError, match=r"must hold at least one value, got shape"):
            measure(*[values[:0]] * len(given_))
    if name not in ("naka_rushton", "weight_summary"):
        with pytest.raises(ValueError, match=r"must be|must have|a fit needs"):
            measure(*[torch.tensor(1.0)] * len(given_))


@pytest.mark.parametrize("name", [n for n in MEASURES if MEASURES[n][1] is E and len(MEASURES[n]) == 3])
def test_inhibition_with_a_negative_sign_is_an_error(name):
    with pytest.raises(ValueError, match=r"I_sub must be >= 0, got -"):
        MEASURES[name][0](E, -I)


# Constant data, exactly and up to rounding: 0.1 and its neighbour in float32


def nearly(*shape: int, value: float = 0.1) -> torch.Tensor:
    """Float32 values that differ in their last bit only."""
    above = torch.full(shape, value).nextafter(torch.tensor(inf))
    return torch.where(spikes(shape) > 0, above, value).float()


CONSTANTS = {
    "zero": torch.zeros,
    "tiny": partial(torch.full, fill_value=1e-30),
    "huge": partial(torch.full, fill_value=1e30),
    "tenth": partial(torch.full, fill_value=0.1, dtype=torch.float64),
    "rounding": lambda shape: nearly(*shape),
    "array": lambda shape: np.full(shape, 0.7, dtype=np.float32),
}


@pytest.fixture(params=CONSTANTS)
def constant(request):
    return CONSTANTS[request.param]


def test_constant_data_has_no_correlation(constant):
    still = constant((4, 3, 5, 2, 2))
    for over in ("time", "space", "neurons", "images"):
        assert EA.ei_correlation(still, E, over).isnan().all()
        assert EA.ei_correlation(E, still, over).isnan().all()
    assert EA.contour_correlation(constant((3, 4, 2, 2)), images(3)).isnan().all()
    assert EA.contour_correlation(E[0], constant((3, 3, 8, 8))).isnan().all()
    trials = gaussian(4, 3, 2)
    mixed = torch.cat([trials, torch.as_tensor(constant((4, 3, 1)))], 2)
    assert EA.noise_correlation(mixed)[2].isnan().all() or mixed.dtype is torch.float64
    assert EA.noise_correlation(constant((4, 3, 2))).isnan().all()


def test_constant_data_has_no_shape_and_no_dimension(constant):
    assert isnan(EA.bimodality_coefficient(constant((40,))))
    assert EA.dip_test(constant((40,)), draws=9) == (1 / 80, 1.0)
    assert isnan(EA.effective_dimension(constant((9, 5))))
    alike = EA.dissimilarity(constant((3, 5)))
    assert (alike.diagonal() == 0).all()
    assert alike.isnan().sum() == 6


def test_constant_trials_have_neither_signal_nor_noise(constant):
    still = torch.as_tensor(constant((4, 3, 2)))
    assert EA.signal_to_noise(still).isnan().all()
    signal = torch.where(still == 0, 1, still) * (1 + torch.arange(3))[:, None]
    assert (EA.signal_to_noise(signal) == inf).all()


def test_a_response_that_does_not_rise_has_no_c50(constant):
    flat = EA.fit_naka_rushton(LEVELS, constant((6,)))
    assert flat.r_max == 0
    assert all(map(isnan, (flat.c50, flat.exponent, flat.r_squared)))
    falling = EA.fit_naka_rushton(LEVELS, 1 - 0.6 * LEVELS**2)
    assert falling.r_max == falling.r_squared == 0
    assert isnan(falling.c50)
    assert isnan(falling.exponent)
    assert falling(LEVELS).tolist() == [falling.baseline] * 6


def test_contrasts_that_determine_nothing_are_an_error(constant):
    for contrasts in (constant((6,)), [0, 0, 0.2, 0.2, 0.5, 1.0], LEVELS[:4]):
        with pytest.raises(ValueError, match="at least 5 different contrasts"):
            EA.fit_naka_rushton(contrasts, LEVELS)
    with pytest.raises(ValueError, match="one response to each"):
        EA.fit_naka_rushton(LEVELS, LEVELS[1:])
    with pytest.raises(ValueError, match="contrast must be >= 0"):
        EA.fit_naka_rushton(-LEVELS, LEVELS)
    for wrong in ({"c50": 0.0}, {"exponent": 0.0}, {"c50": nan}, {"exponent": inf}):
        with pytest.raises(ValueError, match="c50 and exponent must be > 0"):
            EA.naka_rushton(LEVELS, 1.0, **({"c50": 0.3, "exponent": 2.0} | wrong))


def test_the_function_has_its_ends():
    found = EA.naka_rushton([0.0, 0.3, 1e300], 2.0, 0.3, 10.0, 1.0)
    assert found.tolist() == [1.0, 2.0, 3.0]


def test_a_flat_response_prefers_no_orientation(constant):
    flat = torch.as_tensor(constant((1, 8)))
    angles = torch.arange(8) * pi / 8
    for preferred, selectivity in (EA.orientation_selectivity(flat, a) for a in (angles, angles.double())):
        assert preferred.isnan()
        assert selectivity.isnan() if flat.max() == 0 else selectivity == 0
    crossed = torch.tensor([[0.1, 0, 0, 0, 0.1, 0, 0, 0]])  # two orientations at right angles
    for rounded in (angles, angles.double(), (angles * 1e4).round() / 1e4):
        assert EA.orientation_selectivity(flat, rounded)[0].isnan()
    assert EA.orientation_selectivity(crossed.double(), angles.double())[0].isnan()
    preferred, selectivity = EA.orientation_selectivity(torch.eye(8)[:1].roll(4, 1) + 1e-9, angles)
    assert 0 <= preferred < pi
    assert selectivity <= 1


def test_orientations_must_cover_the_half_circle():
    responses = torch.ones(2, 4)
    for wrong in (ANGLES / 2, ANGLES[[0, 1, 2, 2]], 2 * ANGLES):
        with pytest.raises(ValueError, match="evenly spaced over pi"):
            EA.orientation_selectivity(responses, wrong)
    shifted = EA.orientation_selectivity(torch.tensor([[0.0, 0, 0, 1]]), ANGLES + 2 * pi)  # turned by whole turns
    assert shifted[0].item() == pytest.approx(3 * pi / 4)
    with pytest.raises(ValueError, match="at least three"):
        EA.orientation_selectivity(responses[:, :2], ANGLES[:2])
    with pytest.raises(ValueError, match="responses must be >= 0"):
        EA.orientation_selectivity(-responses, ANGLES)


@given(st.integers(0, 10**6), st.floats(-10, 10))
def test_a_preference_lies_in_the_half_circle(seed, turn):
    preferred, selectivity = EA.orientation_selectivity(gaussian(20, 4, seed=seed).clamp_min(0), ANGLES + turn)
    seen = ~preferred.isnan()
    assert ((preferred[seen] >= 0) & (preferred[seen] < pi)).all()
    assert ((selectivity[seen] > 0) & (selectivity[seen] <= 1)).all()


def test_without_current_there_is_no_balance():
    nothing = torch.zeros(4, 3, 2)
    one = torch.ones(4, 3, 2)
    assert EA.balance_ratio(nothing, nothing).isnan().all()
    assert (EA.balance_ratio(nothing, one) == inf).all()
    assert (EA.balance_ratio(one, nothing) == 0).all()
    assert isnan(EA.residual(nothing, nothing))
    assert EA.residual(nothing, one) == 1
    rounded = torch.full((4, 3, 2), -1e-7)  # what a convolution rounds to
    assert (EA.balance_ratio(one, rounded) == 0).all()
    assert (EA.balance_ratio(rounded, one) == inf).all()
    with pytest.raises(ValueError, match="I_sub must be >= 0, got -1e-07"):
        EA.balance_ratio(one * 1e-3, rounded)


def test_without_response_there_is_no_suppression():
    assert EA.suppression_index(torch.zeros(2, 3)).isnan().all()
    assert EA.suppression_index([[1.0, 2, 2], [0, 4, 1], [1, 1, 0]]).tolist() == [0, 0.75, 1]
    with pytest.raises(ValueError, match="responses must be >= 0"):
        EA.suppression_index(torch.tensor([[1.0, -1.0]]))


def test_trains_without_intervals_and_without_pauses():
    trains = torch.zeros(100, 1, 4)
    trains[:, :, 1] = 1
    trains[5, :, 2] = 1
    trains[:3, :, 3] = 1
    cv = EA.interval_cv(trains)[0]
    assert cv[[0, 2]].isnan().all()
    assert cv[[1, 3]].tolist() == [0, 0]
    for kind in (torch.bool, torch.int64, torch.float16):
        assert EA.firing_rate(trains.to(kind)).tolist() == [0, 1, 0.01, 0.03]
    assert EA.silent_fraction(trains) == EA.saturated_fraction(trains) == 0.25
    with pytest.raises(ValueError, match=r"spikes must be 0 or 1, got values from 0 to 0.5"):
        EA.firing_rate(trains / 2)
    with pytest.raises(ValueError, match=r"spikes must be \[T, B, n_E, ...\]"):
        EA.firing_rate(trains[0])


def test_weights_of_one_value():
    assert EA.weight_summary(torch.zeros(3))[::3] == (3, 1)
    assert isnan(EA.weight_summary(torch.zeros(3)).cv)
    assert EA.weight_summary([0.5]) == (1, 0.5, 0, 0)


def test_geometries_that_cannot_be_compared():
    one, other = DISSIMILAR
    assert isnan(EA.representational_similarity(one, torch.ones(5, 5)))
    missing = one.clone()
    missing[0] = missing[:, 0] = nan
    assert EA.representational_similarity(missing, other) == pytest.approx(
        EA.representational_similarity(one[1:, 1:], other[1:, 1:])
    )
    missing[:3] = missing[:, :3] = nan
    with pytest.raises(ValueError, match="at least three pairs of stimuli must be comparable, got 1"):
        EA.representational_similarity(missing.numpy(), other.numpy())


@pytest.mark.parametrize("fewest", [EA.bimodality_coefficient, EA.dip_test])
def test_shapes_need_four_values(fewest):
    with pytest.raises(ValueError, match="values must be at least 4, got 3"):
        fewest(torch.rand(3))
    assert fewest([0, 0, 1, 1]) is not None


@pytest.mark.parametrize("wrong", [{"sample": 3}, {"draws": 0}])
def test_a_dip_test_needs_samples(wrong):
    with pytest.raises(ValueError, match=r"dip_test: (sample|draws) must be an int >= "):
        EA.dip_test(torch.rand(9), **wrong)


finite = st.floats(-1e6, 1e6, width=32)


@given(arrays(np.float32, (5, 4), elements=finite), st.floats(-3, 3), st.integers(-20, 20))
def test_dimension_and_shape_do_not_depend_on_unit(values, turn, power):
    """Scaling by a power of two is exact, so that even what counts as constant stays what it is."""
    scaled = values * np.float32(2.0**power)
    for measure in (EA.effective_dimension, EA.bimodality_coefficient, EA.dissimilarity):
        assert np.allclose(measure(values), measure(scaled), rtol=1e-6, equal_nan=True)
    dimension = EA.effective_dimension(values)
    assert isnan(dimension) or 1 - 1e-9 <= dimension <= 4 + 1e-9


def test_the_fewest_that_can_be_measured():
    third = torch.arange(3) * pi / 3
    assert EA.orientation_selectivity(torch.eye(3), third)[0].numpy() == pytest.approx(third.numpy(), abs=1e-6)
    assert EA.signal_to_noise(torch.tensor([[[0.0], [4]], [[2.0], [6]]])).tolist() == [3.5]
    assert EA.effective_dimension(torch.tensor([[0.0], [1]])) == 1
    assert EA.dissimilarity(torch.eye(2)).flatten().tolist() == pytest.approx([0, 2, 2, 0])


# Stimuli, and what shows them


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: grating(0, 0.0, 0.1), "size must be an int >= 1"),
        (lambda: grating(8, nan, 0.1), "orientation and phase must be finite"),
        (lambda: grating(8, 0.0, 0.1, inf), "orientation and phase must be finite"),
        (lambda: grating(8, 0.0, nan), r"frequency must be in \[0, 0.5\], got nan"),
        (lambda: grating(8, 0.0, 0.1, channels=0), "channels must be an int >= 1"),
        (lambda: grating(8, 0.0, 0.1, radius=-1), "radius must be finite and >= 0, got -1"),
        (lambda: plaid(torch.full((3, 8, 8), nan), torch.zeros(3, 8, 8)), "add up to more than 1"),
        (lambda: scale_intensity(images(), inf), "factor must be finite and >= 0, got inf"),
        (lambda: add_noise(images(), nan), "deviation must be finite and >= 0, got nan"),
        (lambda: EA.responses(small(), images()[:0], "layers.0"), r"B >= 1, got shape \[0, 3, 8, 8\]"),
        (lambda: EA.responses(small(), images(), "layers.0", batch_size=0), "batch_size must be an int >= 1"),
        (lambda: EA.noisy_responses(small(), images(), "layers.0", 0.1, 1), "repeats must be an int >= 2"),
        (lambda: EA.gain_curve(small(), images(), [], "layers.0"), "at least one level, got none"),
        (lambda: EA.size_tuning(small(), "layers.0", [], size=8), "at least one orientation or radius"),
        (lambda: EA.size_tuning(small(), "layers.0", [1], size=8, phases=0), "phases must be an int >= 1"),
        (lambda: EA.orientation_tuning(small(), "layers.0", orientations=[0, 1, 2]), "evenly spaced over pi"),
        (lambda: EA.assess(small(), images()[:0], torch.arange(0)), "N >= 1"),
        (lambda: EA.dose_response(small(), images(), torch.arange(6), "activity", []), "doses must be at least one"),
        (lambda: EA.dose_response(small(), images(), torch.arange(6), "activity", [1], [0, 0]), "all different"),
    ],
)
def test_a_stimulus_or_a_dose_that_is_none_is_an_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()
