"""Gain control: how responses grow with the strength of the input, with and without divisive inhibition.

The input is an intensity. Scaling it, `x -> c x`, leaves `I_E = g_E N / I_div + b_E` of a first layer exactly as it is,
unless there is semisaturation: `g_E c N / (sigma + c I_div)` is a Naka-Rushton function with exponent 1 and
`c50 = sigma / I_div`. Scaling the contrast about the mean leaves a divisor that is linear in the pixels nearly alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from eisnn.analysis.measures.tuning import NakaRushton, fit_naka_rushton
from eisnn.analysis.perturb import Perturbation, mean_division, perturb
from eisnn.analysis.responses import Position, responses
from eisnn.analysis.stimuli import scale_contrast, scale_intensity

Scaling = Literal["intensity", "contrast"]
SCALINGS = {"intensity": scale_intensity, "contrast": scale_contrast}


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
        levels: factors on intensity or contrast, in [0, 1], at least one.
        scaling: "intensity" dims the images, "contrast" brings them towards their mean.
    Raises: ValueError for another scaling or no level, and as `responses`.
    """
    if scaling not in SCALINGS:
        raise ValueError(f'scaling must be "intensity" or "contrast", got {scaling!r}')
    if len(levels) == 0:
        raise ValueError("gain_curve needs at least one level, got none")
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

    Args: as `gain_curve`, with at least five different levels.
    Raises: as `gain_curve`, `mean_division` and `fit_naka_rushton`.
    """
    change = Perturbation(hold_division=mean_division(model, images, layer))
    intact = gain_curve(model, images, levels, layer, scaling=scaling, what=what).mean(1)
    with perturb(model, change, layer):
        held = gain_curve(model, images, levels, layer, scaling=scaling, what=what).mean(1)
    at = torch.tensor(levels, dtype=torch.float64)
    return GainControl(at, intact, held, fit_naka_rushton(at, intact), fit_naka_rushton(at, held))
