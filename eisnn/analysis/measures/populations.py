"""What a population of neurons represents: geometry of its responses, and how variable they are."""

import torch
from torch import Tensor

from eisnn.analysis.measures.values import Values, deviations, numbers, unit
from eisnn.libraries import library


def dissimilarity(responses: Values) -> Tensor:
    """Representational dissimilarity matrix: 1 - Pearson correlation of the response patterns of each pair of stimuli
    (Kriegeskorte et al. 2008, doi:10.3389/neuro.06.004.2008).

    Args:
        responses: `[stimuli, ...]`, e.g. firing rates of all neurons.
    Returns: `[stimuli, stimuli]`, in [0, 2], 0 on the diagonal; NaN off it for a stimulus to which all neurons respond
        alike.
    Raises: ValueError for fewer than two stimuli or neurons, and for values that are NaN or infinite.
    """
    patterns = unit(deviations(_rows(responses, "[stimuli, neurons]", neurons=2), 1), 1)
    return (1 - (patterns @ patterns.T).clamp(-1, 1)).fill_diagonal_(0)


def representational_similarity(one: Values, other: Values) -> float:
    """Spearman's rank correlation of two dissimilarity matrices, in [-1, 1]: do two layers, or a network and its twin,
    find the same stimuli alike? Pairs that are NaN in one of them are left out.

    Args:
        one, other: `[stimuli, stimuli]` of the same stimuli, at least three.
    Returns: the correlation; NaN where one of them finds all pairs equally alike.
    Raises: ValueError for other shapes, or if fewer than three pairs are left; ImportError without SciPy (extra
        `analysis`).
    """
    a, b = (torch.as_tensor(matrix).detach() for matrix in (one, other))
    if a.shape != b.shape or a.ndim != 2 or a.shape[0] != a.shape[1]:
        raise ValueError(f"two square matrices of one size are needed, got {list(a.shape)} and {list(b.shape)}")
    above = tuple(torch.triu_indices(len(a), len(a), offset=1))
    pairs = torch.stack([matrix[above].double() for matrix in (a, b)])
    pairs = pairs[:, pairs.isfinite().all(0)]
    if pairs.shape[1] < 3:
        raise ValueError(f"at least three pairs of stimuli must be comparable, got {pairs.shape[1]}")
    if bool((pairs.amin(1) == pairs.amax(1)).any()):
        return float("nan")
    return float(library("scipy.stats", "analysis").spearmanr(*pairs.cpu().numpy()).statistic)


def effective_dimension(responses: Values) -> float:
    """Participation ratio of the covariance of a population, `(sum l)^2 / sum l^2` over its eigenvalues l.

    Between 1 (all neurons vary together) and min(n, samples - 1). Litwin-Kumar et al. 2017,
    doi:10.1016/j.neuron.2017.01.030. Few samples bias it downwards; compare at equal numbers.

    Args:
        responses: `[samples, ...]`, one row for each image (and step).
    Returns: dimensions; NaN where no neuron varies by more than rounding.
    Raises: ValueError for fewer than two samples, and for values that are NaN or infinite.
    """
    apart = deviations(_rows(responses, "[samples, neurons]"), 0)
    products = (
        apart @ apart.T if len(apart) < apart.shape[1] else apart.T @ apart
    )  # the same eigenvalues, but for zeros
    return float(products.trace() ** 2 / products.square().sum())


def noise_correlation(trials: Values) -> Tensor:
    """Correlation of the trial-to-trial deviations of each pair of neurons, pooled over stimuli (Cohen and Kohn 2011,
    doi:10.1038/nn.2842).

    Args:
        trials: `[repeats, stimuli, n]`, at least two repeats.
    Returns: `[n, n]`, in [-1, 1], 1 on the diagonal; NaN for a neuron that varies by no more than rounding.
    Raises: ValueError for another shape, and for values that are NaN or infinite.
    """
    apart = unit(deviations(_trials(trials), 0).flatten(0, 1), 0)
    return (apart.T @ apart).clamp(-1, 1)


def signal_to_noise(trials: Values) -> Tensor:
    """Variance of the mean responses to the stimuli over the mean variance across repeats, of each neuron, `[n]`, >= 0.

    The share of the noise that is left in the mean responses is subtracted, so that without a signal it is 0 on
    average. Infinite for a neuron without noise, NaN for one without noise and signal.

    Args:
        trials: `[repeats, stimuli, n]`, at least two repeats and two stimuli.
    Raises: ValueError for another shape, and for values that are NaN or infinite.
    """
    found = _trials(trials)
    if found.shape[1] < 2:
        raise ValueError(f"a signal needs at least two stimuli, got {found.shape[1]}")
    repeats, stimuli = found.shape[:2]
    noise = deviations(found, 0).square().sum(0).mean(0) / (repeats - 1)
    means = found.mean(0, dtype=torch.float64).to(found.dtype)
    signal = deviations(means, 0).square().sum(0) / (stimuli - 1) - noise / repeats
    return signal.clamp_min(0) / noise


def _rows(responses: Values, shape: str, neurons: int = 1) -> Tensor:
    found = numbers("responses", responses)
    if found.ndim < 2 or len(found) < 2 or found[0].numel() < neurons:
        least = "two of each" if neurons > 1 else "two samples"
        raise ValueError(f"responses must be {shape}, at least {least}, got shape {list(found.shape)}")
    return found.flatten(1)


def _trials(trials: Values) -> Tensor:
    found = numbers("trials", trials)
    if found.ndim != 3 or len(found) < 2:
        raise ValueError(f"trials must be [repeats, stimuli, n] with at least two repeats, got {list(found.shape)}")
    return found
