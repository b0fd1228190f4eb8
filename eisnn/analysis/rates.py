"""How much and how regularly neurons fire. Spikes are `[T, B, n_E, ...]`, 0 or 1; rates are spikes a time step."""

import torch
from torch import Tensor

LEAST_STEPS = 100  # below, a train holds too few intervals for their spread to mean anything


def firing_rate(spikes: Tensor) -> Tensor:
    """Mean firing rate of each neuron over steps and images, `[n_E, ...]`, in [0, 1] spikes a step.

    At T = 4 the rate of one image is one of five values; average over images.
    """
    _check_spikes(spikes)
    return spikes.mean((0, 1), dtype=torch.promote_types(spikes.dtype, torch.float32))


def silent_fraction(spikes: Tensor, threshold: float = 0.0) -> float:
    """Part of the neurons, in [0, 1], whose firing rate is at most `threshold` (0: that never fire)."""
    return float((firing_rate(spikes) <= threshold).double().mean())


def saturated_fraction(spikes: Tensor, threshold: float = 1.0) -> float:
    """Part of the neurons, in [0, 1], whose firing rate is at least `threshold` (1: that fire at every step)."""
    return float((firing_rate(spikes) >= threshold).double().mean())


def interval_cv(spikes: Tensor) -> Tensor:
    """Coefficient of variation of the inter-spike intervals of each spike train (Softky and Koch 1993).

    Standard deviation over mean: 0 for a clock, `sqrt(1 - p)` for a Bernoulli train of rate p, 1 for a Poisson process.
    The neurons here integrate an input that is the same at every step (the first layer) or repeats itself, so
    regular firing is what to expect.

    Args:
        spikes: T of 100 and more (see `run_for`): at T = 4 to 16 there are hardly any intervals.
    Returns: `[B, n_E, ...]`; NaN for trains of fewer than two intervals (three spikes).
    Raises: ValueError for a shorter sequence.
    """
    _check_spikes(spikes)
    if len(spikes) < LEAST_STEPS:
        raise ValueError(
            f"intervals need at least {LEAST_STEPS} time steps, got T = {len(spikes)}; show the images for longer "
            f"(eisnn.analysis.run_for(model, {LEAST_STEPS}))"
        )
    shape = spikes.shape[1:]
    last, intervals, total, squares = (torch.zeros(shape, dtype=torch.float64, device=spikes.device) for _ in range(4))
    for step, now in enumerate((spikes > 0), start=1):
        interval = torch.where(now & (last > 0), step - last, 0.0)
        intervals += interval > 0
        total += interval
        squares += interval.square()
        last = torch.where(now, float(step), last)
    mean = total / intervals
    cv = (squares / intervals - mean.square()).clamp_min(0).sqrt() / mean
    return torch.where(intervals >= 2, cv, torch.nan)


def _check_spikes(spikes: Tensor) -> None:
    if spikes.ndim < 3 or spikes.numel() == 0:
        raise ValueError(f"spikes must be [T, B, n_E, ...] with at least one of each, got shape {list(spikes.shape)}")
    smallest, largest = (float(value) for value in spikes.aminmax())
    if not (smallest >= 0 and largest <= 1):
        raise ValueError(f"spikes must be 0 or 1, got values from {smallest:.3g} to {largest:.3g}")
