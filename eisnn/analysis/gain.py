"""Gain control: how responses grow with the strength of the input, with and without divisive inhibition.

The input is an intensity. Scaling it, `x -> c x`, leaves `I_E = g_E N / I_div + b_E` of a first layer exactly as it is,
unless there is semisaturation: then the response is of Naka-Rushton type with exponent 1 and `c50 = sigma / I_div`
(method, section 7, P2). Scaling the contrast about the mean leaves a divisor that is linear in the pixels nearly alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from eisnn.analysis.perturb import Perturbation, mean_division, perturb
from eisnn.analysis.respond import Position, responses
from eisnn.analysis.stimuli import scale_contrast, scale_intensity
from eisnn.libraries import library

Scaling = Literal["intensity", "contrast"]
SCALINGS = {"intensity": scale_intensity, "contrast": scale_contrast}


@dataclass(frozen=True)
class NakaRushton:
    """`baseline + r_max c^exponent / (c^exponent + c50^exponent)` (Naka and Rushton 1966; Albrecht and Hamilton 1982).

    `r_max` and `baseline` in units of the response, `c50` in those of the contrast; `r_squared` is the part of the
    variance that the fit explains. A response that does not depend on contrast has r_max 0, and c50, exponent and
    r_squared NaN.
    """

    r_max: float
    c50: float
    exponent: float
    baseline: float
    r_squared: float

    def __call__(self, contrast: Tensor) -> Tensor:
        """The response to each contrast."""
        if self.r_max == 0:
            return torch.full_like(contrast, self.baseline)
        return naka_rushton(contrast, self.r_max, self.c50, self.exponent, self.baseline)


def naka_rushton(contrast: Tensor, r_max: float, c50: float, exponent: float, baseline: float = 0.0) -> Tensor:
    """The Naka-Rushton function of contrasts >= 0, any shape."""
    driven = contrast**exponent
    return baseline + r_max * driven / (driven + c50**exponent)


def fit_naka_rushton(contrast: Tensor, response: Tensor) -> NakaRushton:
    """Least-squares fit of a contrast response, with `r_max >= 0`, `c50` in (0, 10 max c], `exponent` in [0.1, 10].

    A `c50` far above the largest contrast means that the response had not begun to saturate.

    Args:
        contrast: `[L]` >= 0, at least five levels.
        response: `[L]`.
    Raises: ValueError for fewer levels or values that are not finite; ImportError without SciPy (extra `analysis`).
    """
    c, r = (values.detach().double().cpu().numpy().ravel() for values in (contrast, response))
    if len(c) != len(r) or len(c) < 5 or not (np.isfinite(c).all() and np.isfinite(r).all() and (c >= 0).all()):
        raise ValueError(
            f"a fit needs five or more contrasts >= 0 and as many finite responses, got {len(c)}, {len(r)}"
        )
    spread = float(np.ptp(r))
    if spread <= 1e-9 * float(np.abs(r).max()):
        return NakaRushton(0.0, float("nan"), float("nan"), float(r.mean()), float("nan"))
    least_squares = library("scipy.optimize", "analysis").least_squares
    top = float(c.max())
    low, high = [0, 1e-6 * top, 0.1, r.min() - spread], [np.inf, 10 * top, 10, r.max() + spread]

    def misfit(p: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            driven = (c / p[1]) ** p[2]
        return np.asarray((p[3] + p[0] * np.nan_to_num(driven / (1 + driven), nan=1.0) - r) / spread)

    starts = [(spread, half * top, n, r.min()) for half in (0.1, 0.3, 1.0) for n in (1.0, 2.0)]
    fits = [least_squares(misfit, start, bounds=(low, high), xtol=1e-12, ftol=1e-12, gtol=1e-12) for start in starts]
    best = min(fits, key=lambda fit: float(fit.cost))
    r_max, c50, exponent, baseline = (float(value) for value in best.x)
    explained = 1 - 2 * float(best.cost) * spread**2 / float(np.square(r - r.mean()).sum())
    return NakaRushton(r_max, c50, exponent, baseline, explained)


def gain_curve(
    model: nn.Module,
    images: Tensor,
    levels: Sequence[float],
    layer: str,
    *,
    scaling: Scaling = "intensity",
    what: str = "spikes",
    position: Position = "mean",
) -> Tensor:
    """Mean response over images of each neuron of a layer at each strength of the input, `[levels, n_E]`.

    Args:
        model, layer, what, position: as in `responses`.
        images: `[B, C, H, W]` at full strength.
        levels: factors on intensity or contrast, in [0, 1].
        scaling: "intensity" dims the images, "contrast" brings them towards their mean.
    Raises: ValueError for another scaling, and as `responses`.
    """
    if scaling not in SCALINGS:
        raise ValueError(f'scaling must be "intensity" or "contrast", got {scaling!r}')
    at = [responses(model, SCALINGS[scaling](images, level), layer, what, position).mean(0) for level in levels]
    return torch.stack(at)


@dataclass(frozen=True)
class GainControl:
    """Mean response of a layer against the strength of its network's input.

    Attributes:
        levels: `[L]`.
        intact, held: mean over neurons and images, `[L]`: of the network as it is, and with the divisive current of
            this layer held at its mean for the images at full strength.
        intact_fit, held_fit: Naka-Rushton fits of the two.
    """

    levels: Tensor
    intact: Tensor
    held: Tensor
    intact_fit: NakaRushton
    held_fit: NakaRushton


def gain_control(
    model: nn.Module,
    images: Tensor,
    levels: Sequence[float],
    layer: str,
    *,
    scaling: Scaling = "intensity",
    what: str = "spikes",
) -> GainControl:
    """Contrast responses of a layer with and without divisive inhibition by its input, and their fits.

    "Without" holds the divisive current constant, as the division by nothing is undefined.

    Args: as `gain_curve`, with at least five levels.
    Raises: as `gain_curve`, `mean_division` and `fit_naka_rushton`.
    """
    change = Perturbation(hold_division=mean_division(model, images, layer))
    intact = gain_curve(model, images, levels, layer, scaling=scaling, what=what).mean(1)
    with perturb(model, change, layer):
        held = gain_curve(model, images, levels, layer, scaling=scaling, what=what).mean(1)
    at = torch.tensor(levels, dtype=torch.float64)
    return GainControl(at, intact, held, fit_naka_rushton(at, intact), fit_naka_rushton(at, held))
