"""What activity has to do with that of earlier moments: time scales, and lags between two currents."""

from math import nan
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from eisnn.analysis.measures.distributions import Array
from eisnn.analysis.measures.values import Values, binned, deviations, not_negative, sequence, unit, whole_steps
from eisnn.libraries import library

FEWEST_TRIALS = 10  # fewer give correlations that are mostly noise
FEWEST_LAGS = 6  # for the three parameters of a decay
CLEAR = 4.0  # a decay is larger than so many standard deviations of what is left about it


class Timescale(NamedTuple):
    """`amplitude (exp(-lag / tau) + offset)`, `tau` in ms, and what it is fitted to: `autocorrelation` `[L]` at `lags`
    `[L]`, ms. The three numbers are NaN where nothing decays."""

    tau: float
    amplitude: float
    offset: float
    lags: Tensor
    autocorrelation: Tensor


def intrinsic_timescale(activity: Values, dt: float, width: float, longest: float | None = None) -> Timescale:
    """Time scale of the fluctuations of a population, from their autocorrelation (Murray et al. 2014,
    doi:10.1038/nn.3862).

    The activity of each neuron is averaged in bins. Each pair of bins is correlated across trials, so that what is the
    same in every trial takes no part. The mean over the pairs that are equally far apart, and over the neurons, is
    fitted by an exponential, from the first lag on after which it falls: refractoriness keeps earlier ones low.

    Nothing decays, and the fit is NaN, where the fitted fall is within four standard deviations of what is left about
    it (white noise), where `tau` is below a quarter of a bin or beyond the longest lag, and where no neuron varies.

    Args:
        activity: `[T, B, ...]`, at least ten trials. Cut a long sequence into trials longer than its memory.
        dt: ms in a step, > 0.
        width: of the bins, ms, a multiple of `dt`; Murray et al. took 50.
        longest: lag, ms, at least six bins; None is half of the sequence.
    Raises: ValueError for fewer trials or bins, another shape, `dt`, `width` or `longest`, and for values that are NaN
        or infinite; ImportError without SciPy (extra `analysis`).
    """
    bins = binned(sequence("activity", activity, dt), dt, width).flatten(2)
    if len(bins) <= FEWEST_LAGS or bins.shape[1] < FEWEST_TRIALS:
        raise ValueError(
            f"activity must be {FEWEST_TRIALS} trials or more of at least {FEWEST_LAGS + 1} bins of {width:g} ms, got "
            f"{bins.shape[1]} of {len(bins)}: take narrower bins, or cut a long sequence into trials"
        )
    half = max(len(bins) // 2, FEWEST_LAGS)
    count = half if longest is None else whole_steps("longest", longest, width, len(bins) - 1, FEWEST_LAGS)
    apart = unit(deviations(bins, 1), 1)
    found = torch.stack([(apart[:-k] * apart[k:]).sum(1).nanmean() for k in range(1, count + 1)]).cpu()
    lags = torch.arange(1, count + 1, dtype=torch.float64) * width
    falls = (found.diff() < 0).nonzero().flatten().tolist() or [count]
    tau, scale, floor = _decay(lags[falls[0] :].numpy(), found[falls[0] :].numpy(), width)
    return Timescale(tau, scale, floor / scale, lags, found)


def _decay(lags: Array, values: Array, width: float) -> tuple[float, float, float]:
    """Time constant, scale and floor of the exponential that is nearest; NaN where there is none, as is said above."""
    nothing = (nan, nan, nan)
    if len(lags) < FEWEST_LAGS - 1:
        return nothing

    def fit(log_tau: float) -> tuple[Array, Array]:
        shape = np.stack([np.exp(-lags / np.exp(log_tau)), np.ones_like(lags)], 1)
        factors = np.linalg.lstsq(shape, values, rcond=None)[0]
        return factors, values - shape @ factors

    def misfit(log_tau: float) -> float:
        return float(np.square(fit(log_tau)[1]).sum())

    tried = np.linspace(np.log(width / 4), np.log(lags[-1]), 200)
    best = int(np.argmin([misfit(each) for each in tried]))
    if best in (0, len(tried) - 1):
        return nothing
    minimize = library("scipy.optimize", "analysis").minimize_scalar
    log_tau = float(minimize(misfit, bounds=tried[[best - 1, best + 1]], method="bounded").x)
    (scale, floor), rest = fit(log_tau)
    tau = float(np.exp(log_tau))
    fall = scale * (np.exp(-lags[0] / tau) - np.exp(-lags[-1] / tau))
    clear = fall > CLEAR * np.sqrt(np.square(rest).sum() / (len(lags) - 3))
    return (tau, float(scale), float(floor)) if clear else nothing


class CrossCorrelation(NamedTuple):
    """`correlation` `[..., 2 L + 1]` at `lags` `[2 L + 1]`, ms."""

    lags: Tensor
    correlation: Tensor


def cross_correlation(one: Values, other: Values, dt: float, longest: float = 50.0) -> CrossCorrelation:
    """Correlation of one activity with another one at a later moment, for each neuron, over steps and trials.

    Each is taken from its mean over the steps of a trial, and both are scaled so that two that are equal have 1 at lag
    0. At a lag that is a large part of the sequence the correlation is too small, as fewer steps overlap.

    Args:
        one, other: `[T, B, ...]`, of one shape.
        dt: ms in a step, > 0.
        longest: lag, ms, a multiple of `dt`, shorter than the sequence.
    Returns: `CrossCorrelation`, float64, in [-1, 1], at lags from `-longest` to `longest`; it peaks at a positive lag
        where `other` follows `one`. NaN for a neuron of which one of the two does not vary by more than rounding.
    Raises: ValueError for different or other shapes, another `dt` or `longest`, and values that are NaN or infinite.
    """
    a, b = sequence("one", one, dt), sequence("other", other, dt)
    if a.shape != b.shape:
        raise ValueError(f"both must have one shape [T, B, ...], got {list(a.shape)} and {list(b.shape)}")
    count, steps = whole_steps("longest", longest, dt, len(a) - 1), len(a)
    a, b = (deviations(each, 0) for each in (a, b))
    size = (a.square().sum((0, 1)) * b.square().sum((0, 1))).sqrt()
    shifts = range(-count, count + 1)
    sums = [(a[max(-k, 0) : steps - max(k, 0)] * b[max(k, 0) : steps + min(k, 0)]).sum((0, 1)) for k in shifts]
    lags = torch.tensor([k * dt for k in shifts], dtype=torch.float64)
    return CrossCorrelation(lags, (torch.stack(sums, -1) / size[..., None]).clamp(-1, 1))


def ei_lag(excitation: Values, inhibition: Values, dt: float, longest: float = 50.0) -> Tensor:
    """How much later than its excitation the inhibition of a neuron comes: the lag of the largest `cross_correlation`.

    Args:
        excitation, inhibition: currents `[T, B, ...]` >= 0, of one shape, such as `I_EE + I_rec` and `I_sub`.
        dt, longest: as in `cross_correlation`; `longest` at least two steps.
    Returns: ms, `[...]` of each neuron, a multiple of `dt`, > 0 where inhibition follows. NaN where one of the two does
        not vary, or where the correlation is largest at the longest lag, so that there is no peak.
    Raises: ValueError for currents below 0, and as `cross_correlation`.
    """
    e, i = not_negative("excitation", excitation), not_negative("inhibition", inhibition)
    lags, found = cross_correlation(e, i, dt, longest)
    highest, at = found.max(-1)
    lag = lags.to(at.device)[at]
    return torch.where(highest.isnan() | (lag.abs() == lags[-1]), nan, lag)
