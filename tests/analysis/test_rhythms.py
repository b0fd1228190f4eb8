"""Measures over time recover what was planted: rhythms of a known frequency, decays of a known time, shifted copies."""

from math import exp, isnan, nan, pi, sqrt

import numpy as np
import pytest
import torch
from circuits import gaussian, rng, spikes

from eisnn import analysis as EA

DT = 2.0


def wave(hertz: float, steps: int = 1000, dt: float = DT, phase: float = 0.0) -> torch.Tensor:
    """`[T, 1, 1]`."""
    return torch.sin(2 * pi * hertz * torch.arange(steps, dtype=torch.float64) * dt / 1000 + phase)[:, None, None]


def autoregressive(tau: float, shape: tuple[int, ...], dt: float) -> torch.Tensor:
    """Noise of variance 1 whose autocorrelation is `exp(-lag / tau)`."""
    noise, kept = gaussian(*shape), exp(-dt / tau)
    made = [noise[0]]
    for step in noise[1:]:
        made.append(kept * made[-1] + sqrt(1 - kept**2) * step)
    return torch.stack(made)


# Spectra


@pytest.mark.parametrize("hertz", [12.3, 40.0, 87.6])
@pytest.mark.parametrize("segment", [None, 200.0])
def test_a_peak_is_at_the_frequency_of_the_rhythm(hertz, segment):
    activity = wave(hertz) + gaussian(1000, 3, 5)
    frequencies, power = EA.power_spectrum(activity, DT, segment)
    peak = EA.peak_frequency(frequencies, power)
    assert peak.frequency.numpy() == pytest.approx(hertz, abs=0.15 * float(frequencies[1]))
    assert (peak.prominence > 50).all()
    assert frequencies[-1] == 500 / DT
    variance = activity.mean(2).var(0)
    torch.testing.assert_close(power.sum(1) * frequencies[1], variance, rtol=0.05, atol=0)  # Parseval


@pytest.mark.parametrize("segment", [None, 130.0])
def test_a_spectrum_is_the_mean_of_its_spectrogram(segment):
    activity = wave(30.0, 700) + gaussian(700, 3, 5)
    whole, parts = EA.power_spectrum(activity, DT, segment), EA.spectrogram(activity, DT, segment)
    torch.testing.assert_close(parts.power.mean(2), whole.power)
    assert torch.equal(parts.frequencies, whole.frequencies)


def test_a_spectrogram_shows_when_a_rhythm_changes():
    activity = torch.cat([wave(20.0), wave(60.0)]) + 0.1 * gaussian(2000, 1, 1)
    times, frequencies, power = EA.spectrogram(activity, DT, 200.0)
    peak = EA.peak_frequency(frequencies, power[0].T).frequency
    assert peak[times < 1900].numpy() == pytest.approx(20.0, abs=1)
    assert peak[times > 2100].numpy() == pytest.approx(60.0, abs=1)
    assert times[0] == 100.0


def test_a_spectrum_without_peak_has_none():
    falling = EA.power_spectrum(gaussian(4000, 2, 1).cumsum(0), DT)
    assert EA.peak_frequency(*falling).frequency.isnan().all()
    still = EA.power_spectrum(torch.full((100, 2, 3), 0.1), DT)
    assert not still.power.any()
    assert EA.peak_frequency(*still).prominence.isnan().all()
    two = EA.power_spectrum(wave(20.0) + 0.3 * wave(70.0) + 0.01 * gaussian(1000, 1, 1), DT)
    assert EA.peak_frequency(*two, band=(40.0, 100.0)).frequency.item() == pytest.approx(70.0, abs=0.5)
    assert EA.peak_frequency(*two, band=(25.0, 60.0)).frequency.isnan()


def test_neurons_that_keep_time_are_coherent_with_the_field_at_its_frequency():
    field = wave(40.0, 2000) + 0.3 * gaussian(2000, 4, 1)
    keeping = (torch.rand(2000, 4, 3, generator=rng(1)) < 0.1 * (1 + wave(40.0, 2000, phase=1.0))).double()
    train = torch.cat([keeping, spikes((2000, 4, 3), 0.1, seed=2)], 2)
    frequencies, coherence = EA.spike_field_coherence(train, field[..., 0], DT, 200.0)
    assert coherence.shape == (6, len(frequencies))
    assert frequencies[coherence[:3].argmax(1)].tolist() == [40.0] * 3
    assert coherence[:3].amax(1).min() > 0.4
    assert coherence[3:].max() < 0.15
    assert coherence[3:].mean() < 1.5 / (4 * 39)  # of 39 segments in each of 4 trials
    same = EA.spike_field_coherence(3 * field, field, DT, 200.0).coherence
    torch.testing.assert_close(same, torch.ones_like(same))
    silent = EA.spike_field_coherence(torch.zeros(2000, 4, 1), field, DT, 200.0)
    assert silent.coherence.isnan().all()


# Courses and counts


def test_a_psth_has_the_rates_that_were_planted_by_condition():
    conditions = torch.tensor([1, 7] * 300)
    rate = torch.full((50, 600, 2), 0.05)
    rate[25:, conditions == 7] = 0.2
    train = (torch.rand(rate.shape, generator=rng(0)) < rate).float()
    times, values, labels = EA.psth(train, DT, 10.0, conditions)
    assert times.tolist() == [5.0 + 10 * k for k in range(10)]
    assert labels.tolist() == [1, 7]
    planted = torch.full((2, 10, 2), 25.0, dtype=torch.float64)
    planted[1, 5:] = 100.0
    torch.testing.assert_close(values, planted, rtol=0.25, atol=0)
    whole = EA.psth(train, DT, 10.0)
    torch.testing.assert_close(whole.values[0], values.mean(0))  # as many trials of each
    assert whole.conditions.tolist() == [0]
    smooth = EA.psth(train, DT, 10.0, conditions, smooth=20.0).values
    torch.testing.assert_close(smooth.mean(1), values.mean(1))
    assert (smooth[1].diff(dim=0).abs().max() < values[1].diff(dim=0).abs().max() / 2).all()
    assert EA.time_course(3 * train, DT, 10.0).values.mean() == pytest.approx(3 * float(train.mean()))
    assert EA.time_course(train[:49], DT, 10.0).values.shape == (1, 9, 2)  # the rest is left out


def test_a_smooth_course_is_the_convolution_with_a_gaussian():
    impulse = torch.zeros(101, 1, 1)
    impulse[50] = 1
    found = EA.time_course(impulse, DT, DT, smooth=10.0).values[0, :, 0]
    lag = DT * (torch.arange(101) - 50)
    gauss = torch.exp(-(lag.double() ** 2) / 200)
    torch.testing.assert_close(found, gauss / gauss.sum(), rtol=0, atol=1e-4)


def test_counts_are_correlated_as_planted():
    """Two neurons that take half of their spikes from a train in common: correlation 0.5 for rare spikes."""
    p, shape = 0.02, (20000, 2, 1)
    common, *own = (spikes(shape, p / 2, seed=seed) for seed in range(3))
    train = torch.cat([common.maximum(own[0]), common.maximum(own[1]), spikes(shape, p, seed=3)], 2)
    found = EA.spike_count_correlation(train, DT, 20.0)
    assert found[0, 1].item() == pytest.approx(0.5, abs=0.03)
    assert found[2, :2].abs().max() < 0.06
    assert found.diagonal().tolist() == pytest.approx([1, 1, 1])
    assert EA.spike_counts(train, DT, 20.0).sum() == train.sum()
    silent = EA.spike_count_correlation(torch.cat([train, torch.zeros(shape)], 2), DT, 20.0)
    assert silent[3].isnan().all()


def test_what_a_stimulus_brings_about_in_every_trial_is_no_noise_correlation():
    rate = 0.1 * (1 + wave(10.0))
    train = (torch.rand(1000, 40, 2, generator=rng(0)) < rate).double()
    assert EA.spike_count_correlation(train, DT, 20.0)[0, 1] > 0.15
    assert EA.noise_correlation(EA.spike_counts(train, DT, 20.0).transpose(0, 1))[0, 1].abs() < 0.05


# Time scales and lags


@pytest.mark.parametrize(("tau", "dt", "width"), [(20.0, 10.0, 10.0), (50.0, 10.0, 10.0), (100.0, 5.0, 5.0)])
def test_the_time_scale_is_that_of_the_autoregression(tau, dt, width):
    activity = 3 + 2 * autoregressive(tau, (100, 100, 10), dt) + 5 * wave(3.0, 100, dt)  # alike in every trial
    found = EA.intrinsic_timescale(activity, dt, width, longest=50 * width)
    assert found.tau == pytest.approx(tau, rel=0.1)
    assert found.amplitude == pytest.approx(1, abs=0.05)
    assert found.offset == pytest.approx(0, abs=0.05)
    assert found.autocorrelation.numpy() == pytest.approx(np.exp(-found.lags.numpy() / tau), abs=0.1)


def test_refractoriness_at_the_first_lag_is_left_out_of_the_fit():
    slow = autoregressive(60.0, (100, 100, 10), 10.0)
    fast = gaussian(101, 100, 10, seed=9)
    found = EA.intrinsic_timescale(slow + 1.5 * (fast[1:] - fast[:-1]), 10.0, 10.0)  # correlates neighbours by -1/2
    assert found.autocorrelation[0] < found.autocorrelation[1]
    assert found.tau == pytest.approx(60.0, rel=0.2)


@pytest.mark.parametrize("seed", range(5))
def test_what_does_not_decay_has_no_time_scale(seed):
    white = EA.intrinsic_timescale(gaussian(60, 20, 3, seed=seed), 10.0, 10.0)
    assert isnan(white.tau)
    assert isnan(white.amplitude)
    assert isnan(white.offset)
    phases = 2 * pi * torch.rand(1, 50, 1, generator=rng(seed))
    rhythm = torch.sin(2 * pi * 10 * torch.arange(60)[:, None, None] * 0.01 + phases)
    assert isnan(EA.intrinsic_timescale(rhythm, 10.0, 10.0).tau)
    constant = torch.full((60, 20, 3), 0.1)
    assert isnan(EA.intrinsic_timescale(constant, 10.0, 10.0).tau)
    memory = gaussian(1, 20, 3, seed=seed).expand(60, 20, 3) + 0.01 * gaussian(60, 20, 3)
    assert isnan(EA.intrinsic_timescale(memory, 10.0, 10.0).tau)


@pytest.mark.parametrize("steps", [-3, 0, 4])
def test_the_lag_of_a_shifted_copy_is_its_shift(steps):
    e = gaussian(600, 3, 4).abs()
    i = 2 * e.roll(steps, 0) + 0.3 * gaussian(600, 3, 4, seed=1).abs()
    assert EA.ei_lag(e, i, DT, 20.0).tolist() == [steps * DT] * 4
    lags, found = EA.cross_correlation(e, i, DT, 20.0)
    assert found.shape == (4, 21)
    assert lags[found.argmax(1)].tolist() == [steps * DT] * 4
    itself = EA.cross_correlation(e, e, DT, 20.0).correlation
    torch.testing.assert_close(itself[:, 10], torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(itself, itself.flip(1))
    at_zero = EA.ei_correlation(e.flatten(1, 2)[:, None], i.flatten(1, 2)[:, None], "time")
    torch.testing.assert_close(
        EA.cross_correlation(e.flatten(1, 2)[:, None], i.flatten(1, 2)[:, None], DT, 20.0).correlation[:, 10],
        at_zero[0],
    )


def test_there_is_no_lag_without_a_peak():
    e = gaussian(200, 2, 2).abs()
    assert EA.ei_lag(e, e.roll(10, 0), DT, 20.0).isnan().all()  # at the longest lag
    assert EA.ei_lag(e, torch.full((200, 2, 2), 0.1), DT, 20.0).isnan().all()


# What is refused


@pytest.mark.parametrize("dt", [0, -1.0, nan, float("inf")])
def test_a_time_step_is_positive(dt):
    train, noise = spikes((200, 12, 2)), gaussian(200, 12, 2)
    for call in (
        lambda: EA.power_spectrum(noise, dt),
        lambda: EA.spectrogram(noise, dt),
        lambda: EA.spike_field_coherence(train, noise, dt),
        lambda: EA.psth(train, dt, 10.0),
        lambda: EA.time_course(noise, dt, 10.0),
        lambda: EA.spike_counts(train, dt, 10.0),
        lambda: EA.intrinsic_timescale(noise, dt, 10.0),
        lambda: EA.cross_correlation(noise, noise, dt),
        lambda: EA.ei_lag(train, train, dt),
    ):
        with pytest.raises(ValueError, match=r"dt must be finite and > 0, in ms, got"):
            call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: EA.power_spectrum(x[:60], DT), r"must be 16 steps or more \(32 ms\), got 15 of a sequence of 60"),
        (lambda x: EA.spectrogram(x, DT, 20.0), "must be 16 steps or more .* got 10 of a sequence of 200"),
        (lambda x: EA.power_spectrum(x, DT, 500.0), "segment must be a multiple of 2 ms, here from 2 to 400 ms,"),
        (lambda x: EA.power_spectrum(x, DT, 101.0), "segment must be a multiple of 2 ms, .* got 101.0"),
        (lambda x: EA.spike_field_coherence(x[:, :1], x[:, :1], DT, 400.0), "coherence must be over two segments"),
        (lambda x: EA.spike_field_coherence(x, x[:, :1], DT), r"one T and B, got \[200, 12\] and \[200, 1\]"),
        (lambda x: EA.peak_frequency(torch.arange(9.0), torch.ones(8)), r"got shapes \[8\] and \[9\]"),
        (lambda x: EA.peak_frequency(torch.arange(9.0), torch.ones(9), (3.0, 4.0)), "frequencies, got 2 from 3 to 4"),
        (lambda x: EA.peak_frequency(torch.arange(9.0), -torch.ones(9)), "power must be >= 0, got -1"),
        (lambda x: EA.time_course(x, DT, 0.0), "width must be a multiple of 2 ms, here from 2 to 400 ms, got 0.0"),
        (lambda x: EA.time_course(x, DT, 10.0, [1, 2]), r"one for each of the 12 trials, got shape \[2\]"),
        (lambda x: EA.time_course(x, DT, 10.0, smooth=-1.0), "smooth must be finite and >= 0, in ms, got -1.0"),
        (lambda x: EA.psth(x, DT, 10.0), "spikes must be 0 or 1"),
        (lambda x: EA.spike_count_correlation(x[:5, :1] > 0, DT, 10.0), "must be over two windows of 10 ms"),
        (lambda x: EA.intrinsic_timescale(x[:, :9], DT, 10.0), "must be 10 trials or more .* got 9 of 40"),
        (lambda x: EA.intrinsic_timescale(x, DT, 80.0), "at least 7 bins of 80 ms, got 12 of 5"),
        (lambda x: EA.intrinsic_timescale(x, DT, 10.0, 40.0), "longest must be a multiple of 10 ms, here from 60"),
        (lambda x: EA.cross_correlation(x, x[:9], DT), r"one shape .* got \[200, 12, 2\] and \[9, 12, 2\]"),
        (lambda x: EA.cross_correlation(x, x, DT, 400.0), "longest must be a multiple of 2 ms, here from 2 to 398 ms"),
        (lambda x: EA.ei_lag(x.abs(), -x.abs(), DT), "inhibition must be >= 0"),
    ],
)  # fmt: skip
def test_what_a_measure_over_time_cannot_take_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(gaussian(200, 12, 2))
