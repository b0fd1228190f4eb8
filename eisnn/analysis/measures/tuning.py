"""Tuning of neurons: to orientation, to size, and the contrast response function of Naka and Rushton."""

from dataclasses import dataclass
from math import inf, nan, pi
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eisnn.analysis.measures.values import ROUNDING, Values, deviations, not_negative, numbers, rounding
from eisnn.libraries import library

FEWEST_LEVELS = 5  # of contrast, for a function of four parameters


def orientation_selectivity(responses: Values, orientations: Values) -> tuple[Tensor, Tensor]:
    """Preferred orientation and selectivity of each neuron by vector average (Ringach et al. 2002).

    `R = sum r exp(2 i theta) / sum r`: the preferred orientation is `arg(R) / 2`, the selectivity |R| is 1 - circular
    variance: 0 for equal responses to all, 1 for a response to one orientation alone.

    Args:
        responses: `[n, O]` >= 0.
        orientations: `[O]`, radians, evenly spaced over pi, at least three.
    Returns: preferred `[n]` in [0, pi), NaN for a neuron without response or preference; selectivity `[n]` in [0, 1],
        0 for one that responds to all alike but for rounding, NaN for one without response.
    Raises: ValueError for orientations that are not evenly spaced, other shapes, and responses that are negative
        (rectify currents first), NaN or infinite.
    """
    r, theta = not_negative("responses", responses), numbers("orientations", orientations)
    if theta.ndim != 1 or r.ndim != 2 or r.shape[1] != len(theta) or len(theta) < 3:
        raise ValueError(
            "responses must be [n, O] to [O] orientations, at least three, got shapes "
            f"{list(r.shape)} and {list(theta.shape)}"
        )
    theta = theta.double()
    gaps = theta.remainder(pi).sort().values.diff() * len(theta) / pi
    if not bool((gaps - 1).abs().max() < 1e-3):
        raise ValueError(f"orientations must be evenly spaced over pi, got {[round(t, 3) for t in theta.tolist()]}")
    total = r.sum(1, dtype=torch.float64)
    tuned = deviations(r, 1)  # a response that is the same to all orientations adds up to 0, at exact ones
    x, y = (tuned @ part.to(r.device) / total for part in ((2 * theta).cos(), (2 * theta).sin()))
    selectivity = torch.hypot(x, y).clamp_max(1)
    least = ROUNDING * torch.finfo(torch.float32).eps  # angles are often made in it, whatever they are now
    selectivity = torch.where(selectivity > least, selectivity, selectivity * 0)  # NaN stays NaN
    preferred = (torch.atan2(y, x) / 2).remainder(pi)
    preferred = torch.where(preferred < pi, preferred, 0)  # what rounding lifts to pi
    return torch.where(selectivity > 0, preferred, nan), selectivity


def choice_probability(responses: Values, choices: Values) -> Tensor:
    """How well each neuron tells two choices apart: the probability that its response in a trial of the larger number
    in `choices` is above that in a trial of the other one, a tie counted as half (Britten et al. 1996).

    It is the area under the ROC curve: 1/2 says nothing, 1 and 0 tell the choices apart without fault. Choices, stimuli
    or any two conditions will do.

    Args:
        responses: `[B, ...]`, such as spike counts of B trials.
        choices: `[B]`, two different numbers.
    Returns: `[...]` in [0, 1]; 1/2 for a neuron whose responses vary by no more than rounding.
    Raises: ValueError for other shapes, one choice or more than two, and for values that are NaN or infinite;
        ImportError without SciPy (extra `analysis`).
    """
    r, choice = numbers("responses", responses), numbers("choices", choices)
    if choice.ndim != 1 or r.ndim < 2 or len(r) != len(choice):
        raise ValueError(f"responses must be [B, ...] to [B] choices, got {list(r.shape)} and {list(choice.shape)}")
    if len(kinds := choice.unique()) != 2:
        raise ValueError(f"choices must be two different numbers, got {kinds.tolist()}")
    apart = deviations(r, 0).cpu().numpy()
    of_larger = (choice == kinds[1]).cpu().numpy()
    one, other = apart[of_larger], apart[~of_larger]
    test = library("scipy.stats", "analysis").mannwhitneyu(one, other, axis=0, method="asymptotic")
    return torch.as_tensor(test.statistic / (len(one) * len(other)))


def direction_selectivity(responses: Values, directions: Values) -> tuple[Tensor, Tensor]:
    """Preferred direction and selectivity of each neuron by vector average, `|sum r exp(i theta)| / sum r`.

    Args:
        responses: `[n, D]` >= 0.
        directions: `[D]`, radians, evenly spaced over 2 pi, at least three.
    Returns: as `orientation_selectivity`, with preferred directions in [0, 2 pi).
    Raises: ValueError as `orientation_selectivity`.
    """
    preferred, selectivity = orientation_selectivity(responses, numbers("directions", directions) / 2)
    return 2 * preferred, selectivity


def suppression_index(responses: Values) -> Tensor:
    """Surround suppression of each neuron, `1 - R(largest) / max R`, `[n]` in [0, 1] (Cavanaugh et al. 2002).

    Of responses `[n, R]` >= 0 to disks of growing radius; 0 without suppression, NaN without response.

    Raises: ValueError for another shape, and for responses that are negative, NaN or infinite.
    """
    r = not_negative("responses", responses).double()
    if r.ndim != 2:
        raise ValueError(f"responses must be [n, R], got shape {list(r.shape)}")
    return 1 - r[:, -1] / r.amax(1)


@dataclass(frozen=True)
class NakaRushton:
    """`baseline + r_max c^exponent / (c^exponent + c50^exponent)` (Naka and Rushton 1966; Albrecht and Hamilton 1982).

    `r_max` and `baseline` in units of the response, `c50` in those of the contrast; `r_squared` is the part of the
    variance that the fit explains. A response that does not rise with contrast has r_max 0, c50 and exponent NaN and
    r_squared 0, or NaN if it does not vary by more than rounding.
    """

    r_max: float
    c50: float
    exponent: float
    baseline: float
    r_squared: float

    def __call__(self, contrast: Values) -> Tensor:
        """The response to each contrast, float64."""
        c50, exponent = (1.0, 1.0) if self.r_max == 0 else (self.c50, self.exponent)
        return naka_rushton(contrast, self.r_max, c50, exponent, self.baseline)


def naka_rushton(contrast: Values, r_max: float, c50: float, exponent: float, baseline: float = 0.0) -> Tensor:
    """The Naka-Rushton function of contrasts >= 0, any shape, float64; `baseline` at contrast 0.

    Raises: ValueError for a contrast below 0, NaN or infinite, or unless `c50` and `exponent` are > 0.
    """
    if not (0 < c50 < inf and 0 < exponent < inf):
        raise ValueError(f"c50 and exponent must be > 0 and finite, got {c50!r} and {exponent!r}")
    return _curve(not_negative("contrast", contrast).double(), r_max, c50, exponent, baseline)


def _curve(c: Any, r_max: float, c50: float, exponent: float, baseline: float) -> Any:
    return baseline + r_max / (1 + (c50 / c) ** exponent)


def fit_naka_rushton(contrast: Values, response: Values) -> NakaRushton:
    """Least-squares fit of a contrast response, with `r_max >= 0`, `exponent` in [0.1, 10] and `c50` between a
    millionth of the largest contrast and ten times it.

    A number at the end of its range is not determined by the data. A `c50` far above the largest contrast means that
    the response had not begun to saturate.

    Args:
        contrast: `[L]` >= 0, at least five different levels.
        response: `[L]`.
    Returns: the fit; with r_max 0 for a response that does not rise, see `NakaRushton`.
    Raises: ValueError for fewer levels, other shapes, and values that are NaN or infinite; ImportError without SciPy
        (extra `analysis`).
    """
    given, measured = not_negative("contrast", contrast), numbers("response", response)
    if given.ndim != 1 or given.shape != measured.shape or len(given.unique()) < FEWEST_LEVELS:
        raise ValueError(
            f"a fit needs at least {FEWEST_LEVELS} different contrasts and one response to each, got "
            f"{given.tolist()} and responses of shape {list(measured.shape)}"
        )
    c, r = (values.double().cpu().numpy() for values in (given, measured))
    spread = float(np.ptp(r))
    if spread <= rounding(measured) * float(np.abs(r).max()):
        return NakaRushton(0.0, nan, nan, float(r.mean()), nan)
    least_squares = library("scipy.optimize", "analysis").least_squares
    top = float(c.max())
    low, high = [0, 1e-6 * top, 0.1, r.min() - spread], [np.inf, 10 * top, 10, r.max() + spread]

    def misfit(p: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", over="ignore"):  # contrast 0: the baseline
            return (_curve(c, *p) - r) / spread

    starts = [(spread, half * top, n, r.min()) for half in (0.1, 0.3, 1.0) for n in (1.0, 2.0)]
    fits = [least_squares(misfit, start, bounds=(low, high), xtol=1e-12, ftol=1e-12, gtol=1e-12) for start in starts]
    best = min(fits, key=lambda fit: float(fit.cost))
    explained = 1 - 2 * float(best.cost) * spread**2 / float(np.square(r - r.mean()).sum())
    if explained < 1e-6:
        return NakaRushton(0.0, nan, nan, float(r.mean()), 0.0)
    r_max, c50, exponent, baseline = (float(value) for value in best.x)
    return NakaRushton(r_max, c50, exponent, baseline, explained)
