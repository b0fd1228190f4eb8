"""Rhythms of populations: spectra, their peaks, and neurons that keep time with a rhythm.

Activity is `[T, B, ...]` in steps of `dt` ms, and what is looked at is its mean over neurons: of spikes the population
rate, in spikes a step, whatever its mean. Segments of time are weighted by a Hann window; two that follow each other
overlap by half. The mean of a segment is taken out, so that the power at 0 Hz means nothing.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from eisnn.analysis.measures.distributions import Array
from eisnn.analysis.measures.values import Values, deviations, not_negative, numbers, sequence, whole_steps
from eisnn.libraries import library

FEWEST_STEPS = 16  # of a segment


class Spectrum(NamedTuple):
    """`power` `[B, F]` of each trial, square of the activity a Hz, at `frequencies` `[F]`, Hz."""

    frequencies: Tensor
    power: Tensor


def power_spectrum(activity: Values, dt: float, segment: float | None = None) -> Spectrum:
    """Power spectral density of a population's activity (Welch 1967): the mean over segments of time.

    Args:
        activity: `[T, B, ...]`.
        dt: ms in a step, > 0.
        segment: ms, a multiple of `dt`, at least 16 steps; frequencies are 1000 / `segment` Hz apart. None is a quarter
            of the sequence, so that seven segments are averaged.
    Returns: `Spectrum`, one-sided, float64, from 0 to 500 / `dt` Hz. Its sum times the distance of the frequencies is
        about the variance. 0 where the activity does not vary by more than rounding.
    Raises: ValueError for a sequence or segment that is too short, another shape or `dt`, and values that are NaN or
        infinite; ImportError without SciPy (extra `analysis`).
    """
    x, steps = _population(activity, dt, segment)
    f, power = library("scipy.signal", "analysis").welch(x, 1000 / dt, nperseg=steps, axis=0)
    return Spectrum(torch.as_tensor(f), torch.as_tensor(power.T.copy()))


class Spectrogram(NamedTuple):
    """`power` `[B, F, S]` of each trial, as of `Spectrum`, at `frequencies` `[F]`, Hz, around `times` `[S]`, ms."""

    times: Tensor
    frequencies: Tensor
    power: Tensor


def spectrogram(activity: Values, dt: float, segment: float | None = None) -> Spectrogram:
    """Power spectral density of a population's activity in each segment of time: what `power_spectrum` averages.

    Args and Raises: as `power_spectrum`.
    Returns: `Spectrogram`; `times` are the middles of the segments.
    """
    x, steps = _population(activity, dt, segment)
    transform = library("scipy.signal", "analysis").ShortTimeFFT.from_window(
        "hann", 1000 / dt, steps, steps // 2, fft_mode="onesided2X", scale_to="psd"
    )
    parts = 1 + (len(x) - steps) // transform.hop
    # The first segment begins with the sequence, as that of Welch.
    power = transform.spectrogram(x, detr="constant", p0=0, p1=parts, k_offset=transform.m_num_mid, axis=0)  # [F, B, S]
    times = dt * (torch.arange(parts, dtype=torch.float64) * transform.hop + steps / 2)
    return Spectrogram(times, torch.as_tensor(transform.f), torch.as_tensor(power).transpose(0, 1))


class Peak(NamedTuple):
    """`frequency` `[...]`, Hz, and `prominence` `[...]`: the power there over the median power of the band."""

    frequency: Tensor
    prominence: Tensor


def peak_frequency(frequencies: Values, power: Values, band: tuple[float, float] | None = None) -> Peak:
    """Frequency at which a spectrum is highest: `peak_frequency(*power_spectrum(activity, dt))`.

    The vertex of a parabola through the logarithms of the highest power and its two neighbours, so that it is more
    exact than the distance of the frequencies. Any noise is highest somewhere: look at the prominence.

    Args:
        frequencies: `[F]`, Hz, evenly spaced.
        power: `[..., F]` >= 0, such as `[B, F]`, or its mean over trials.
        band: lowest and highest frequency to look at, Hz; None is all above 0.
    Returns: `Peak`; NaN where the power is highest at an end of the band, so that there is no peak, or is the same.
    Raises: ValueError for other shapes, a band of fewer than three frequencies, power below 0, and values that are NaN
        or infinite.
    """
    f, p = numbers("frequencies", frequencies).double(), not_negative("power", power).double()
    if f.ndim != 1 or p.ndim < 1 or p.shape[-1] != len(f):
        raise ValueError(f"power must be [..., F] at [F] frequencies, got shapes {list(p.shape)} and {list(f.shape)}")
    low, high = (0.0, float(f[-1])) if band is None else band
    within = (f > 0) & (f >= low) & (f <= high)
    f, p = f[within], p[..., within.to(p.device)]
    if len(f) < 3:
        raise ValueError(f"a band must hold at least three frequencies, got {len(f)} from {low:g} to {high:g} Hz")
    at = p.argmax(-1, keepdim=True)
    inner = at.clamp(1, len(f) - 2)
    below, here, above = (p.gather(-1, inner + k).clamp_min(1e-300).log() for k in (-1, 0, 1))
    vertex = ((below - above) / (2 * (below - 2 * here + above))).clamp(-0.5, 0.5)
    found = f.to(at.device)[inner] + vertex * (f[1] - f[0])
    prominence = p.gather(-1, inner) / p.median(-1, keepdim=True).values
    peaks = (at == inner) & (p.amax(-1, keepdim=True) > 0)
    return Peak(*(torch.where(peaks, each, torch.nan)[..., 0] for each in (found, prominence)))


class Coherence(NamedTuple):
    """`coherence` `[..., F]` of each neuron at `frequencies` `[F]`, Hz."""

    frequencies: Tensor
    coherence: Tensor


def spike_field_coherence(spikes: Values, field: Values, dt: float, segment: float | None = None) -> Coherence:
    """Magnitude-squared coherence of each neuron with a field: 1 where it keeps time with the field's rhythm.

    `|S_xy|^2 / (S_xx S_yy)`, the spectra averaged over segments and trials (Mitra and Bokil 2008). Of n segments that
    do not overlap unrelated signals have about 1/n. A field that holds the neuron's own spikes is coherent with them:
    leave them out.

    Args:
        spikes: `[T, B, ...]`, of any activity.
        field: `[T, B, ...]`: the mean over what follows is taken, a population rate or a mean current.
        dt, segment: as in `power_spectrum`; two segments at least, over all trials.
    Returns: `Coherence`, in [0, 1]; NaN for a neuron that does not vary by more than rounding, or at all without field.
    Raises: ValueError for one segment in all, different T or B; and as `power_spectrum`.
    """
    y, steps = _population(field, dt, segment, "field")
    x = deviations(sequence("spikes", spikes, dt), 0).cpu().numpy()
    if x.shape[:2] != y.shape:
        raise ValueError(f"spikes and field must have one T and B, got {list(x.shape[:2])} and {list(y.shape)}")
    if x.shape[1] == 1 and len(x) < 2 * steps - steps // 2:
        raise ValueError("coherence must be over two segments at least, got one of one trial, which is always coherent")
    y = y.reshape(*y.shape, *(1,) * (x.ndim - 2))
    csd = library("scipy.signal", "analysis").csd

    def spectrum(one: Array, other: Array) -> Array:
        return np.moveaxis(csd(one, other, 1000 / dt, nperseg=steps, axis=0)[1].mean(1), 0, -1)

    with np.errstate(invalid="ignore"):
        found = np.abs(spectrum(x, y)) ** 2 / (spectrum(x, x).real * spectrum(y, y).real)
    frequencies = torch.fft.rfftfreq(steps, dt / 1000, dtype=torch.float64)
    return Coherence(frequencies, torch.as_tensor(found).clamp_max(1))


def _population(activity: Values, dt: float, segment: float | None, name: str = "activity") -> tuple[Array, int]:
    """Deviations of the mean over neurons from that of each trial, `[T, B]`, and the steps of a segment."""
    found = sequence(name, activity, dt)
    steps = len(found) // 4 if segment is None else whole_steps("segment", segment, dt, len(found))
    if steps < FEWEST_STEPS:
        raise ValueError(
            f"segments of a spectrum must be {FEWEST_STEPS} steps or more ({FEWEST_STEPS * dt:g} ms), got {steps} of a "
            f"sequence of {len(found)}"
        )
    return deviations(found, 0).reshape(*found.shape[:2], -1).mean(2).cpu().numpy(), steps
