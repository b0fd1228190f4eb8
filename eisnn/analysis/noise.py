"""Variability of responses: signal-to-noise ratio and noise correlations under noise on the input.

The network itself is deterministic: all variability comes from the images.
"""

import torch
from torch import Tensor, nn

from eisnn.analysis.respond import Position, responses
from eisnn.analysis.stimuli import add_noise
from eisnn.functional.checks import check_int


def noisy_responses(
    model: nn.Module,
    images: Tensor,
    layer: str,
    deviation: float,
    repeats: int,
    *,
    what: str = "spikes",
    position: Position = "centre",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Responses `[repeats, B, n_E]` to each image with independent Gaussian noise at each repeat.

    Args:
        model, images, layer, what, position: as in `responses`.
        deviation: of the noise, units of intensity.
        repeats: trials of each image, at least 2.
        generator: of the noise, on the CPU; None draws with seed 0.
    """
    check_int("noisy_responses", "repeats", repeats, 2)
    drawn = torch.Generator().manual_seed(0) if generator is None else generator
    trials = [responses(model, add_noise(images, deviation, drawn), layer, what, position) for _ in range(repeats)]
    return torch.stack(trials)


def noise_correlation(trials: Tensor) -> Tensor:
    """Correlation of the trial-to-trial deviations of each pair of neurons, pooled over stimuli (Cohen and Kohn 2011,
    doi:10.1038/nn.2842).

    Args:
        trials: `[repeats, stimuli, n]`, at least two repeats.
    Returns: `[n, n]`, in [-1, 1], 1 on the diagonal; NaN for a neuron without variability.
    """
    deviations = (_checked(trials) - _checked(trials).mean(0)).flatten(0, 1)
    norms = torch.linalg.vector_norm(deviations, dim=0)
    norms = torch.where(norms > 0, norms, torch.nan)
    return (deviations.T @ deviations / (norms[:, None] * norms)).clamp(-1, 1)


def signal_to_noise(trials: Tensor) -> Tensor:
    """Variance of the mean responses to the stimuli over the mean variance across repeats, of each neuron, `[n]`, >= 0.

    The share of the noise that is left in the mean responses is subtracted, so that without a signal it is 0 on
    average. Infinite for a neuron without noise, NaN for one without noise and signal.

    Args:
        trials: `[repeats, stimuli, n]`, at least two repeats and two stimuli.
    """
    values = _checked(trials)
    if values.shape[1] < 2:
        raise ValueError(f"a signal needs at least two stimuli, got {values.shape[1]}")
    noise = values.var(0).mean(0)
    signal = values.mean(0).var(0) - noise / len(values)
    return signal.clamp_min(0) / noise


def _checked(trials: Tensor) -> Tensor:
    if trials.ndim != 3 or len(trials) < 2:
        raise ValueError(f"trials must be [repeats, stimuli, n] with at least two repeats, got {list(trials.shape)}")
    return trials.detach().double()
