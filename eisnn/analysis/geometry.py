"""Geometry of a population's responses: how alike stimuli are to it, and in how many dimensions it represents them."""

import torch
from torch import Tensor

from eisnn.analysis.balance import correlation


def dissimilarity(responses: Tensor) -> Tensor:
    """Representational dissimilarity matrix: 1 - Pearson correlation of the response patterns of each pair of stimuli
    (Kriegeskorte et al. 2008, doi:10.3389/neuro.06.004.2008).

    Args:
        responses: `[stimuli, ...]`, e.g. firing rates of all neurons.
    Returns: `[stimuli, stimuli]`, in [0, 2], 0 on the diagonal; NaN for a stimulus to which all neurons respond alike.
    Raises: ValueError for fewer than two stimuli or neurons.
    """
    patterns = responses.detach().double().flatten(1)
    if min(patterns.shape) < 2:
        raise ValueError(f"responses must be [stimuli, neurons] with two of each or more, got {list(responses.shape)}")
    rows = [1 - correlation(pattern[None], patterns, 1) for pattern in patterns]
    return torch.stack(rows).fill_diagonal_(0)


def representational_similarity(one: Tensor, other: Tensor) -> float:
    """Spearman's rank correlation of two dissimilarity matrices, in [-1, 1]: do two layers, or a network and its twin,
    find the same stimuli alike? Pairs that are NaN in one of them are left out.

    Args:
        one, other: `[stimuli, stimuli]` of the same stimuli, at least three.
    Raises: ValueError for other shapes, or if fewer than three pairs are left.
    """
    if one.shape != other.shape or one.ndim != 2 or one.shape[0] != one.shape[1]:
        raise ValueError(f"two square matrices of one size are needed, got {list(one.shape)} and {list(other.shape)}")
    above = torch.triu_indices(len(one), len(one), offset=1)
    a, b = one[above[0], above[1]], other[above[0], above[1]]
    both = a.isfinite() & b.isfinite()
    if int(both.sum()) < 3:
        raise ValueError(f"at least three pairs of stimuli must be comparable, got {int(both.sum())}")
    return float(correlation(_ranks(a[both]), _ranks(b[both]), 0))


def effective_dimension(responses: Tensor) -> float:
    """Participation ratio of the covariance of a population, `(sum l)^2 / sum l^2` over its eigenvalues l.

    Between 1 (all neurons vary together) and min(n, samples - 1). Litwin-Kumar et al. 2017,
    doi:10.1016/j.neuron.2017.01.030. Few samples bias it downwards; compare at equal numbers.

    Args:
        responses: `[samples, ...]`, one row for each image (and step).
    Returns: dimensions; NaN where nothing varies.
    Raises: ValueError for fewer than two samples.
    """
    rows = responses.detach().double().flatten(1)
    if len(rows) < 2:
        raise ValueError(f"responses must be [samples, neurons] with at least two samples, got {list(responses.shape)}")
    rows = rows - rows.mean(0)
    products = rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows  # the same eigenvalues, but for zeros
    return float(products.trace() ** 2 / products.square().sum())


def _ranks(values: Tensor) -> Tensor:
    """Ranks from 0; equal values share their mean rank."""
    _, group, counts = values.unique(return_inverse=True, return_counts=True)
    return (counts.cumsum(0) - (counts + 1) / 2)[group].double()
