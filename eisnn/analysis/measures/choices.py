"""Choices: how often they are right by condition, and psychometric functions.

N trials; a choice is one of two, 0 or 1.
"""

from dataclasses import dataclass
from math import nan
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from eisnn.analysis.measures.values import Values, numbers
from eisnn.libraries import library

FEWEST_LEVELS = 4  # of evidence, for a function of three parameters
MOST_LAPSES = 0.2
RANGE = 1e-3, 10.0  # of the threshold, in units of the range of the evidence


class Fractions(NamedTuple):
    """`fractions` `[L]` of the trials with each of the `levels` `[L]`, ascending, of which there are `trials` `[L]`."""

    levels: Tensor
    fractions: Tensor
    trials: Tensor

    @property
    def errors(self) -> Tensor:
        """Standard errors of the fractions, binomial, `[L]`."""
        return (self.fractions * (1 - self.fractions) / self.trials).sqrt()


def fraction_by(levels: Values, outcomes: Values) -> Fractions:
    """How often the outcome is 1 at each level: accuracy by difficulty, or a psychometric curve.

    Args:
        levels: `[N]`, such as the coherence of each trial.
        outcomes: `[N]`, 0 or 1, such as whether its choice was right.
    Raises: ValueError for another shape or other outcomes, and for values that are NaN or infinite.
    """
    x, y = _trials(levels, outcomes)
    found, which = x.unique(return_inverse=True)
    counts = torch.bincount(which, minlength=len(found))
    return Fractions(found, torch.bincount(which, y, len(found)) / counts, counts)


@dataclass(frozen=True)
class Psychometric:
    """`lapse + (1 - 2 lapse) Phi((evidence - bias) / threshold)`: the probability of choosing 1.

    `bias` and `threshold` in units of the evidence: at `bias` both are chosen equally often, and `threshold` above it 1
    is chosen in 84 % of the trials without a lapse. Choices that are all alike have bias and threshold NaN.
    """

    bias: float
    threshold: float
    lapse: float

    def __call__(self, evidence: Values) -> Tensor:
        """The probability at each evidence, float64."""
        z = (numbers("evidence", evidence).double() - self.bias) / self.threshold
        return self.lapse + (1 - 2 * self.lapse) * torch.special.ndtr(z)


def fit_psychometric(evidence: Values, choices: Values) -> Psychometric:
    """Maximum-likelihood fit (Wichmann and Hill 2001), with `lapse` in [0, 0.2], `bias` within the range of the
    evidence and `threshold` between a thousandth of that range and ten times it. A number at the end of its range is
    not determined by the data.

    Args:
        evidence: `[N]`, above 0 in favour of 1; at least four different values.
        choices: `[N]`, 0 or 1.
    Raises: ValueError for fewer values, another shape or other choices, and for values that are NaN or infinite;
        ImportError without SciPy (extra `analysis`).
    """
    found = fraction_by(evidence, choices)
    if len(found.levels) < FEWEST_LEVELS:
        raise ValueError(
            f"a fit needs at least {FEWEST_LEVELS} different levels of evidence, got {found.levels.tolist()}"
        )
    x, p, n = (values.double().cpu().numpy() for values in found)
    if p.min() == p.max() and p[0] in (0, 1):
        return Psychometric(nan, nan, 0.0)
    minimize, span = library("scipy.optimize", "analysis").minimize, float(np.ptp(x))

    def function(given: Any) -> Psychometric:
        return Psychometric(float(given[0]) * span, float(np.exp(given[1])) * span, float(given[2]))

    def surprise(given: Any) -> float:
        chosen = function(given)(x).clamp(1e-9, 1 - 1e-9).numpy()
        return -float((n * (p * np.log(chosen) + (1 - p) * np.log1p(-chosen))).sum() / n.sum())

    bounds = [(x.min() / span, x.max() / span), tuple(np.log(RANGE)), (0, MOST_LAPSES)]
    starts = [(x.mean() / span, np.log(width), lapse) for width in (0.03, 0.1, 0.3) for lapse in (0.01, 0.1)]
    fits = [minimize(surprise, start, bounds=bounds, method="L-BFGS-B") for start in starts]
    return function(min(fits, key=lambda fit: float(fit.fun)).x)


def _trials(levels: Values, outcomes: Values) -> tuple[Tensor, Tensor]:
    """Both as float64 `[N]` on the CPU."""
    x, y = (numbers(name, values).double().cpu() for name, values in (("levels", levels), ("outcomes", outcomes)))
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(
            f"there must be one outcome for each of N trials, got shapes {list(x.shape)} and {list(y.shape)}"
        )
    if wrong := int(((y != 0) & (y != 1)).sum()):
        raise ValueError(f"an outcome or choice must be 0 or 1, got {wrong} of {len(y)} values that are neither")
    return x, y
