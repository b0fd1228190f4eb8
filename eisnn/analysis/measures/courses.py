"""Activity over time, by condition, and how the spike counts of neurons vary together.

Activity is `[T, B, ...]` in steps of `dt` ms: spikes, outputs of interneurons or currents in B trials.
"""

from math import inf
from typing import NamedTuple

import torch
from torch import Tensor

from eisnn.analysis.measures.rates import binary
from eisnn.analysis.measures.values import Values, binned, deviations, sequence, unit
from eisnn.libraries import library


class TimeCourse(NamedTuple):
    """`values` `[C, S, ...]` of each condition in each bin; `times` `[S]`, ms, the middles of the bins; `conditions`
    `[C]`, in ascending order."""

    times: Tensor
    values: Tensor
    conditions: Tensor


def time_course(
    activity: Values, dt: float, width: float, conditions: Values | None = None, smooth: float = 0.0
) -> TimeCourse:
    """Mean activity of each neuron in bins of time, over the trials of each condition.

    Args:
        activity: `[T, B, ...]`.
        dt: ms in a step, > 0.
        width: of the bins, ms, a multiple of `dt`. What is left at the end, shorter than a bin, is left out.
        conditions: `[B]`, a number for each trial; None: all are of condition 0.
        smooth: standard deviation of a Gaussian that smooths the course, ms, >= 0. The course is mirrored at its ends,
            so that its mean stays.
    Returns: `TimeCourse`, float64, in the units of the activity.
    Raises: ValueError for another shape, `dt`, `width` or `smooth`, and for values that are NaN or infinite;
        ImportError for `smooth` without SciPy (extra `analysis`).
    """
    bins = binned(sequence("activity", activity, dt), dt, width)
    trials = bins.shape[1]
    labels = torch.zeros(trials, dtype=torch.int64) if conditions is None else torch.as_tensor(conditions)
    if labels.shape != (trials,):
        raise ValueError(f"conditions must be one for each of the {trials} trials, got shape {list(labels.shape)}")
    if labels.is_floating_point() and not bool(labels.isfinite().all()):
        raise ValueError("conditions must be finite, a number for each trial, got NaN or infinite values")
    if not 0 <= smooth < inf:
        raise ValueError(f"smooth must be finite and >= 0, in ms, got {smooth!r}")
    kinds = labels.unique()
    values = torch.stack([bins[:, (labels == kind).to(bins.device)].mean(1) for kind in kinds])
    if smooth:
        smoothed = library("scipy.ndimage", "analysis").gaussian_filter1d(values.cpu().numpy(), smooth / width, axis=1)
        values = torch.as_tensor(smoothed, device=values.device)
    return TimeCourse((torch.arange(len(bins), dtype=torch.float64) + 0.5) * width, values, kinds)


def psth(spikes: Values, dt: float, width: float, conditions: Values | None = None, smooth: float = 0.0) -> TimeCourse:
    """Peri-stimulus time histogram: the `time_course` of spikes, in Hz.

    Args and Raises: as `time_course`, but for `spikes`, `[T, B, n, ...]`, 0 or 1.
    """
    found = time_course(binary(spikes), dt, width, conditions, smooth)
    return found._replace(values=found.values * (1000 / dt))


def spike_counts(spikes: Values, dt: float, width: float) -> Tensor:
    """Spikes of each neuron in windows of `width` ms, a multiple of `dt`: `[S, B, n, ...]`, float64.

    Raises: ValueError for values other than 0 and 1, another shape, `dt` or `width`.
    """
    return binned(sequence("spikes", binary(spikes), dt), dt, width) * round(width / dt)


def spike_count_correlation(spikes: Values, dt: float, width: float) -> Tensor:
    """Pearson correlation of the `spike_counts` of each pair of neurons, over all windows and trials.

    What a stimulus brings about in every trial correlates neurons as well; `noise_correlation` of
    `spike_counts(...).transpose(0, 1)` leaves that out.

    Args: as `spike_counts`; at least two windows in all.
    Returns: `[n, n]`, neurons in a row, in [-1, 1], 1 on the diagonal; NaN for a neuron whose count never changes.
    Raises: as `spike_counts`.
    """
    counts = spike_counts(spikes, dt, width).flatten(0, 1).flatten(1)
    if len(counts) < 2:
        raise ValueError(f"a correlation must be over two windows of {width:g} ms or more, got one")
    apart = unit(deviations(counts, 0), 0)
    return (apart.T @ apart).clamp(-1, 1)
