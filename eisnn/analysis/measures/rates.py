"""How much and how regularly neurons fire. Spikes are `[T, B, n_E, ...]`, 0 or 1; rates are spikes a time step."""

import torch
from torch import Tensor

from eisnn.analysis.measures.values import Values, numbers

LEAST_STEPS = 100  # below, a train holds too few intervals for their spread to mean anything


def firing_rate(spikes: Values) -> Tensor:
    """Mean firing rate of each neuron over steps and images, `[n_E, ...]`, in [0, 1] spikes a step.

    At T = 4 the rate of one image is one of five values; average over images.

    Raises: ValueError for values other than 0 and 1, and for another shape.
    """
    return binary(spikes).mean((0, 1))


def silent_fraction(spikes: Values) -> float:
    """Part of the neurons, in [0, 1], that never fire. Raises as `firing_rate`."""
    return float((firing_rate(spikes) == 0).double().mean())


def saturated_fraction(spikes: Values) -> float:
    """Part of the neurons, in [0, 1], that fire at every step of each image. Raises as `firing_rate`."""
    return float((firing_rate(spikes) == 1).double().mean())


def interval_cv(spikes: Values) -> Tensor:
    """Coefficient of variation of the inter-spike intervals of each spike train (Softky and Koch 1993).

    Standard deviation over mean: 0 for a clock, `sqrt(1 - p)` for a Bernoulli train of rate p, 1 for a Poisson process.
    The neurons here integrate an input that is the same at every step (the first layer) or repeats itself, so
    regular firing is what to expect.

    Args:
        spikes: T of 100 and more (see `run_for`): at T = 4 to 16 there are hardly any intervals.
    Returns: `[B, n_E, ...]`; NaN for trains of fewer than two intervals (three spikes), 0 for one that never pauses.
    Raises: ValueError for a shorter sequence, and as `firing_rate`.
    """
    fired = binary(spikes).bool()
    if len(fired) < LEAST_STEPS:
        raise ValueError(
            f"intervals need at least {LEAST_STEPS} time steps, got T = {len(fired)}; show the images for longer "
            f"(eisnn.analysis.run_for(model, {LEAST_STEPS}))"
        )
    last, intervals, total, squares = fired.new_zeros((4, *fired.shape[1:]), dtype=torch.float64)
    for step, now in enumerate(fired, start=1):
        interval = torch.where(now & (last > 0), step - last, 0.0)
        intervals += interval > 0
        total += interval
        squares += interval.square()
        last = torch.where(now, float(step), last)
    mean = total / intervals
    cv = (squares / intervals - mean.square()).clamp_min(0).sqrt() / mean
    return torch.where(intervals >= 2, cv, torch.nan)


def binary(spikes: Values) -> Tensor:
    """Spikes `[T, B, n_E, ...]` as float64; ValueError for others."""
    found = numbers("spikes", spikes)
    if found.ndim < 3:
        raise ValueError(f"spikes must be [T, B, n_E, ...], got shape {list(found.shape)}")
    if not bool(((found == 0) | (found == 1)).all()):
        smallest, largest = (float(value) for value in found.aminmax())
        raise ValueError(f"spikes must be 0 or 1, got values from {smallest:.3g} to {largest:.3g}")
    return found.double()
