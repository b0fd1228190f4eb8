"""Measures of recorded values recover what was planted in synthetic data."""

from math import pi, sqrt

import numpy as np
import pytest
import torch
from circuits import gaussian, rng, spikes
from networks import SEMISATURATED, images, small
from scipy import special, stats
from torch import nn

import eisnn
from eisnn import analysis as EA

# Rates and intervals


def test_rates_silence_and_saturation_are_counted():
    train = torch.zeros(10, 20, 4)
    train[:, :, 1] = 1
    train[::2, :, 2] = 1
    train[0, 0, 3] = 1
    assert EA.firing_rate(train).tolist() == pytest.approx([0, 1, 0.5, 1 / 200])
    assert EA.silent_fraction(train) == 0.25
    assert EA.saturated_fraction(train) == 0.25
    with pytest.raises(ValueError, match=r"got values from 0 to 2"):
        EA.firing_rate(2 * train)
    with pytest.raises(ValueError, match=r"must be \[T, B, n_E, ...\]"):
        EA.firing_rate(train[0])


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_intervals_of_a_bernoulli_train_are_geometric(p):
    cv = EA.interval_cv(spikes((4000, 3, 40), p, seed=1))
    assert cv.shape == (3, 40)
    assert cv.mean().item() == pytest.approx(sqrt(1 - p), abs=0.02)


def test_intervals_of_a_clock_and_of_two_alternating_ones():
    train = torch.zeros(120, 1, 4)
    train[::5, 0, 0] = 1
    times = np.cumsum([1, 3] * 20)
    train[times, 0, 1] = 1  # intervals 1 and 3: mean 2, standard deviation 1
    train[[3, 70], 0, 2] = 1  # one interval only
    cv = EA.interval_cv(train)[0]
    assert cv[0] == 0
    intervals = np.diff(times)
    assert cv[1].item() == pytest.approx(intervals.std() / intervals.mean())
    assert cv[2:].isnan().all()
    with pytest.raises(ValueError, match=r"at least 100 time steps, got T = 16; .*run_for"):
        EA.interval_cv(train[:16])


def test_a_network_shown_a_static_image_for_long_fires_like_a_clock():
    model = small()
    with EA.run_for(model, 200), EA.record(model, "layers.0", "spikes", neurons=200) as recorded:
        model(images(2))
    assert model.time_steps == 3
    cv = EA.interval_cv(recorded["layers.0"]["spikes"])
    assert recorded["layers.0"]["spikes"].shape[0] == 200
    assert cv[cv.isfinite()].mean() < 0.2  # constant current: regular but for rounding to steps


# Balance


def test_ratio_and_residual_are_those_planted():
    e = 1 + torch.rand(5, 6, 3, 4, 4, generator=rng(0), dtype=torch.float64)
    factors = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    ratio = EA.balance_ratio(e, e * factors.view(3, 1, 1))
    torch.testing.assert_close(ratio, factors.view(3, 1, 1).expand(3, 4, 4))
    assert EA.residual(e, e) == 0
    assert EA.residual(e, torch.zeros_like(e)) == 1
    assert EA.residual(e, 3 * e) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="one shape"):
        EA.residual(e, e[:1])


@pytest.mark.parametrize(
    ("over", "shape", "varies"),
    [
        ("time", (7, 3, 4, 4), (2000, 7, 3, 4, 4)),
        ("space", (3, 7, 2), (3, 7, 2, 50, 40)),
        ("neurons", (2, 3, 2, 2), (2, 3, 2000, 2, 2)),
        ("images", (4, 2, 2), (4, 500, 4, 2, 2)),
    ],
)
def test_correlation_is_that_planted_along_its_axis(over, shape, varies):
    """Two currents that share a part: correlation 0.8 along the axis, whatever their means."""
    shared, own = gaussian(*varies), gaussian(*varies, seed=1)
    e, i = 20 + shared, 40 + 3 * (0.8 * shared + 0.6 * own)
    found = EA.ei_correlation(e, i, over=over)
    assert found.shape == shape
    assert found.mean().item() == pytest.approx(0.8, abs=0.01)


def test_loose_balance_has_equal_means_and_no_correlation():
    e, i = 20 + gaussian(1000, 2, 3), 20 + gaussian(1000, 2, 3, seed=1)
    assert EA.balance_ratio(e, i).sub(1).abs().max() < 0.01
    assert EA.ei_correlation(e, i, over="time").abs().max() < 0.15
    assert EA.ei_correlation(e[:1], i[:1], over="time").isnan().all()  # one step has no time course
    with pytest.raises(ValueError, match="no correlation over space"):
        EA.ei_correlation(e, i, over="space")
    with pytest.raises(ValueError, match="over must be"):
        EA.ei_correlation(e, i, over="layers")


def test_tight_balance_is_how_alike_the_receptive_fields_are():
    """Both currents are linear in the same input: for independent inputs their correlation is the cosine of the rows of
    `W_EE` and `W_EI W_IE`."""
    layer = eisnn.EILinear(30, 12).double()
    x = torch.rand(1, 8000, 30, generator=rng(4), dtype=torch.float64)
    eisnn.ei_init_(layer, x, generator=rng(5))
    with torch.no_grad():
        layer.weight_ei[0] = torch.tensor([1.0, 0.0, 0.0])
        layer.weight_ee[0] = 2 * layer.weight_ie[0]
        layer.weight_ee[1, :15] = 0
    with EA.record(layer, what=["I_EE", "I_sub"]) as recorded:
        layer(x)
    (currents,) = recorded.values()
    cosine = nn.functional.cosine_similarity(layer.weight_ee, layer.weight_ei @ layer.weight_ie)
    found = EA.ei_correlation(currents["I_EE"], currents["I_sub"], over="images")
    torch.testing.assert_close(found, cosine, rtol=0, atol=0.03)
    assert found[0].item() == pytest.approx(1)
    assert found.min() < 0.6


def test_a_circuit_of_conserved_totals_is_balanced_in_every_neuron():
    """For the same input at every synapse excitation and subtractive inhibition are equal, as total weights are."""
    model = small(SEMISATURATED)
    with EA.record(model, "layers.0") as recorded:
        model(torch.full((1, 3, 8, 8), 0.7, dtype=torch.float64))
    currents = recorded["layers.0"]
    inner = currents["I_EE"][..., 1:-1, 1:-1], currents["I_sub"][..., 1:-1, 1:-1]
    torch.testing.assert_close(EA.balance_ratio(*inner), torch.ones(8, 6, 6, dtype=torch.float64))


# Choices


def test_a_choice_probability_is_the_overlap_of_two_distributions():
    """Gaussians d standard deviations apart: Phi(d / sqrt 2)."""
    choices, shift = torch.arange(4000) % 2, torch.tensor([0.0, 1.0, -2.0, 0.0])
    responses = gaussian(4000, 4) + choices[:, None] * shift
    responses[:, 3] = 0.1
    found = EA.choice_probability(responses, choices)
    assert found.tolist() == pytest.approx(stats.norm.cdf(shift / sqrt(2)).tolist(), abs=0.02)
    assert found[3] == 0.5
    assert EA.choice_probability([[1.0], [2.0], [2.0], [3.0]], [5, 5, 7, 7]).item() == 7 / 8  # one tie of four pairs
    with pytest.raises(ValueError, match=r"two different numbers, got \[0.0, 1.0, 2.0\]"):
        EA.choice_probability(responses, torch.arange(4000) % 3)
    with pytest.raises(ValueError, match=r"to \[B\] choices, got \[4000, 4\] and \[9\]"):
        EA.choice_probability(responses, choices[:9])


# Weights


@pytest.mark.parametrize("options", [None, SEMISATURATED])
def test_synapses_are_what_the_circuit_acts_with(options):
    model = small(options)
    with torch.no_grad():
        model.layers[0].weight_ee[0] = 0
    found = EA.synapses(model)
    assert list(found) == ["layers.0", "layers.1", "layers.2"]
    weights = found["layers.0"]
    assert (weights.sigma is None) == (options is None)
    assert all((w >= 0).all() and not w.requires_grad for w in weights if w is not None)
    assert EA.weight_summary(weights.weight_ee).zero == pytest.approx(1 / 8)
    assert torch.equal(weights.weight_ie, model.layers[0].weight_ie) == (options is None)
    assert EA.dale_violations(model) == {}


def test_weights_of_e_i_init_are_exponential():
    layer = eisnn.EILinear(400, 100).double()
    eisnn.ei_init_(nn.Sequential(layer), spikes((2, 30, 400)), generator=rng(2))
    weights = EA.synapses(nn.Sequential(layer))["0"]
    summary = EA.weight_summary(weights.weight_ee)
    assert summary.n == 40_000
    assert summary.cv == pytest.approx(1, abs=0.03)
    assert EA.weight_summary(weights.subtractive).cv == pytest.approx(0, abs=1e-12)
    assert np.isnan(EA.weight_summary(torch.zeros(3)).cv)


# Geometry


def test_effective_dimension_counts_planted_dimensions():
    basis = torch.linalg.qr(gaussian(50, 50, seed=1))[0][:7]
    assert EA.effective_dimension(gaussian(20_000, 7) @ basis) == pytest.approx(7, rel=0.01)
    few = EA.effective_dimension(gaussian(5, 3, 20))  # 4 is the most that five samples can have
    assert 3 < few <= 4
    along = gaussian(2000, 1) * torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    assert EA.effective_dimension(along) == pytest.approx(1)
    scales = torch.tensor([2.0, 1.0, 1.0], dtype=torch.float64).sqrt()
    assert EA.effective_dimension(gaussian(50_000, 3) * scales) == pytest.approx(16 / 6, rel=0.02)
    with pytest.raises(ValueError, match="at least two samples"):
        EA.effective_dimension(gaussian(1, 4))


def test_dissimilarity_is_one_minus_correlation():
    patterns = gaussian(6, 30)
    found = EA.dissimilarity(patterns)
    torch.testing.assert_close(found, 1 - torch.corrcoef(patterns), rtol=0, atol=1e-12)
    assert (found.diagonal() == 0).all()
    assert EA.dissimilarity(torch.stack([patterns[0], -patterns[0]]))[0, 1].item() == pytest.approx(2)


def test_similarity_of_geometries_is_that_of_ranks():
    a, b = gaussian(12, 30), gaussian(12, 30, seed=1)
    one, other = EA.dissimilarity(a), EA.dissimilarity(0.7 * a + b)
    above = np.triu_indices(12, 1)
    expected = stats.spearmanr(one.numpy()[above], other.numpy()[above]).statistic
    assert EA.representational_similarity(one, other) == pytest.approx(expected)
    assert EA.representational_similarity(one, one.exp()) == pytest.approx(1)  # any monotone change
    coarse = torch.round(one * 4)  # ties share their rank
    expected = stats.spearmanr(one.numpy()[above], coarse.numpy()[above]).statistic
    assert EA.representational_similarity(one, coarse) == pytest.approx(expected)
    with pytest.raises(ValueError, match="square matrices of one size"):
        EA.representational_similarity(one, one[:5])
    with pytest.raises(ValueError, match="at least three pairs"):
        EA.representational_similarity(one[:2, :2], one[:2, :2])


# Variability


def test_noise_correlation_and_signal_to_noise_are_those_planted():
    repeats, stimuli, n = 2000, 30, 4
    signal = 2 * gaussian(1, stimuli, n)
    shared, own = gaussian(repeats, stimuli, 1, seed=1), gaussian(repeats, stimuli, n, seed=2)
    trials = 10 + signal + sqrt(0.3) * shared + sqrt(0.7) * own
    found = EA.noise_correlation(trials)
    assert found.fill_diagonal_(0.3).sub(0.3).abs().max() < 0.05
    ratio = EA.signal_to_noise(trials)
    torch.testing.assert_close(ratio, signal[0].var(0), rtol=0.04, atol=0.0)
    silent = EA.signal_to_noise(gaussian(50, 400, 3, seed=3))
    assert silent.max() < 0.01
    trials[..., 0] = 1
    assert EA.noise_correlation(trials)[0].isnan().all()
    assert EA.signal_to_noise(trials)[0].isnan()
    with pytest.raises(ValueError, match="at least two repeats"):
        EA.noise_correlation(trials[:1])


def test_noise_on_the_image_is_the_only_source_of_variability():
    model = small()
    still = EA.noisy_responses(model, images(), "layers.1", 0.0, 3)
    assert still.shape == (3, 6, 16)
    assert torch.equal(still[0], still[2])
    noisy = EA.noisy_responses(model, images(), "layers.1", 0.2, 3, what="I_E")
    assert noisy.var(0).max() > 0
    assert torch.equal(noisy, EA.noisy_responses(model, images(), "layers.1", 0.2, 3, what="I_E"))


def test_the_angle_of_a_phasor_is_taken_modulo_pi():
    orientations = torch.arange(12, dtype=torch.float64) * pi / 12
    peak = torch.tensor([0.1, 1.2, 3.0], dtype=torch.float64)
    tuned = torch.exp(2 * (torch.cos(2 * (orientations - peak[:, None])) - 1))
    preferred, selectivity = EA.orientation_selectivity(tuned, orientations)
    torch.testing.assert_close(preferred, peak, rtol=0, atol=1e-6)
    von_mises = float(special.i1(2) / special.i0(2))
    torch.testing.assert_close(selectivity, torch.full((3,), von_mises, dtype=torch.float64), rtol=0, atol=1e-6)
    assert EA.orientation_selectivity(torch.eye(12)[:1], orientations)[1].item() == pytest.approx(1)
