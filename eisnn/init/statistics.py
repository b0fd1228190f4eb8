"""Statistics of what a layer receives and computes in the first batch; sections 1 and 2 of the method."""

from collections.abc import Callable
from math import exp, log, sqrt
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed

LARGEST_SCALE, HALVINGS = 64.0, 20  # of a current: how far and how finely the scale for a rate is looked for


class UnusableInput(ValueError):
    """The input of a layer at the first batch, from which E-I Init can draw nothing."""


class InputStatistics(NamedTuple):
    """Statistics of one layer's input: `E[x]`, `E[x^2]`, and `Var x` (unbiased over the merged T*B axis at each
    position, averaged over positions)."""

    mean: float
    square: float
    variance: float


def bernoulli_statistics(p: float) -> InputStatistics:
    """Of inputs that are 1 with probability `p`: the theoretical form, eqs. (19)-(21) and (40)-(41)."""
    return InputStatistics(p, p, p * (1 - p))


def weight_scale(statistics: InputStatistics, d: int) -> float:
    """`1/lambda = sqrt(Var x / (d (E[x^2] + Var x)))`, eq. (53): makes `std(I_EE) = std(x)`."""
    return sqrt(statistics.variance / (d * (statistics.square + statistics.variance)))


def inhibitory_gain(statistics: InputStatistics, d: int) -> float:
    """`g_I = sqrt(E[x^2] + Var x) / (sqrt(d) E[x])`, eq. (54): makes `E[I_div] = std(I_EE)`."""
    return sqrt(statistics.square + statistics.variance) / (sqrt(d) * statistics.mean)


def measure_input(x: Tensor, repeats: int, layer: str, group: Any = None) -> InputStatistics:
    """Statistics of `x` `[T, B, ...]`, summed over the processes of `group` in float64.

    Args:
        x: input sequence of one layer; for a static one `[1, B, ...]`, shown `repeats` times.
        layer: its name, for errors.
    Raises: UnusableInput naming the layer if the input is not finite, negative, zero everywhere, or constant in time
        and over images.
    """
    x = x.detach().double().flatten(0, 1)
    bad = torch.stack([(~x.isfinite()).sum(), (x < 0).sum()]).double()
    totals = torch.cat([x.sum(0).flatten(), bad, x.new_tensor([x.shape[0]])])
    sum_over(totals, group)
    *_, not_finite, negative, images = totals[-3:].tolist()
    if not_finite or negative:
        what = f"{not_finite:.0f} values that are not finite" if not_finite else f"{negative:.0f} negative values"
        raise UnusableInput(f"E-I Init: the input of {layer} has {what}; the circuit takes finite inputs >= 0")
    mean_map = totals[:-3] / images
    deviations = torch.stack([((x - mean_map.view(x.shape[1:])) ** 2).sum(), (x * x).sum()])
    sum_over(deviations, group)
    squared_deviation, square = (deviations / mean_map.numel()).tolist()
    n = images * repeats
    mean = float(mean_map.mean())
    variance = squared_deviation * repeats / (n - 1) if n > 1 else 0.0
    if mean == 0:
        raise UnusableInput(f"E-I Init: the input of {layer} is zero everywhere; give a batch that drives it")
    if not variance > 1e-24 * mean * mean:
        raise UnusableInput(
            f"E-I Init: the input of {layer} does not vary over the {n:.0f} images and time steps of the first batch "
            f"(every input is constant, mean {mean:.3g}); give a batch of different images"
        )
    return InputStatistics(mean, square / images, variance)


def standard_deviation(i_e: Tensor, group: Any = None) -> float:
    """Of all entries of `I_E`, over the processes of `group`; unit variance (M13) divides by it."""
    wide = i_e.double()
    sums = torch.stack([wide.new_tensor(wide.numel()), wide.sum(), wide.square().sum()])
    sum_over(sums, group)
    n, total, squares = sums.tolist()
    return sqrt(max(squares / n - (total / n) ** 2, 1e-24))


def mean_over(values: Tensor, group: Any = None) -> float:
    """Of all entries of `values`, over the processes of `group`."""
    sums = torch.stack([values.new_tensor(values.numel(), dtype=torch.float64), values.sum(dtype=torch.float64)])
    sum_over(sums, group)
    n, total = sums.tolist()
    return total / n


def scale_for_rate(rate: Callable[[float], float], target: float, within: float = 0.0) -> float:
    """The factor of a current at which its neurons fire at `target` spikes a step, by bisection within `LARGEST_SCALE`
    of 1 either way; the end of that range that comes nearer if none does.

    Args:
        rate: of a factor; grows with it where currents have both signs.
        within: which share of the target a rate may be off.
    """
    low, high = -log(LARGEST_SCALE), log(LARGEST_SCALE)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        found = rate(exp(middle))
        if abs(found - target) < within * target:
            return exp(middle)
        low, high = (middle, high) if found < target else (low, middle)
    return exp((low + high) / 2)


def sum_over(values: Tensor, group: Any) -> None:
    """Sum `values` over the processes of `group`, in place; None is this process alone."""
    if group is not None:
        distributed.all_reduce(values, group=group)
