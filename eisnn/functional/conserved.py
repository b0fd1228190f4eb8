"""Departures from the paper's circuit, each an option: exact balance, semisaturation, a pooled divisive current.

There are no batch statistics: weights are standardized under Dale's law (centred by inhibition, of one norm), activity
is divided by a local inhibitory current. Names as in `eisnn.functional.circuit`; equations with an M are
those of docs/science/method.md.
"""

from math import prod
from typing import Any

import torch
from torch import Tensor

from eisnn.functional.circuit import Synapses
from eisnn.functional.folded import fold

LEAST_TOTAL = 0.01  # of its share: what raw weights sum to counts as no less, so that gradients stay bounded
SMALLEST = 1e-12  # what a norm counts as at least, so that nothing is divided by zero


def conserve(weight: Tensor, total: Any = 1.0, *, tapwise: bool = False) -> Tensor:
    """Conserved totals (M9): each neuron's weights scaled to the sum `total`; `[n, ...]` >= 0 -> `[n, ...]` >= 0.

    With `tapwise` those of each position of the receptive field `[n, C, kh, kw]` by themselves, to
    `total / (kh kw)`. The gradient has no part along the weights: a common factor of a neuron's synapses changes
    nothing (multiplicative normalization, Miller and MacKay 1994). Weights that sum to less than `LEAST_TOTAL` of their
    total are scaled by 1 / LEAST_TOTAL and keep less.
    """
    share = total / prod(weight.shape[2:]) if tapwise else total
    axes = (1,) if tapwise else tuple(range(1, weight.ndim))
    return weight * (share / weight.sum(axes, keepdim=True).clamp_min(LEAST_TOTAL * share))


def fix_norm(weight: Tensor, norm: Tensor | float) -> Tensor:
    """Each neuron's weights scaled to the Euclidean norm `norm`; `[n, ...]`, of any sign."""
    axes = tuple(range(1, weight.ndim))
    return weight * (norm / weight.square().sum(axes, keepdim=True).clamp_min(SMALLEST**2).sqrt())


class _CenterGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] - grads[0].mean(tuple(range(1, grads[0].ndim)), keepdim=True)


def center_gradient(weight: Tensor) -> Tensor:
    """Identity whose gradient has its mean over each neuron's inputs subtracted (gradient centralization)."""
    return _CenterGradient.apply(weight)


def conserved_weights(
    weight_ee: Tensor, weight_ie: Tensor, weight_ei: Tensor, total: Tensor | float, *, tapwise: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """`W_EE`, `W_IE` with rows that sum to `total`, and `W_EI` with rows that sum to 1.

    So the folded `W = W_EE - W_EI W_IE` has rows that sum to 0: excitation and inhibition balance exactly; with
    `tapwise` at each position of the receptive field, and so also where it overlaps the border of the map.
    """
    ee, ie = (conserve(w, total, tapwise=tapwise) for w in (weight_ee, weight_ie))
    return ee, ie, conserve(weight_ei)


def conserved_synapses(
    weight_ee: Tensor,
    weight_ie: Tensor,
    weight_ei: Tensor,
    gain_i: Tensor,
    sigma: Tensor | None,
    total: Tensor,
    row_norm: Tensor,
    *,
    pooled: bool,
    tapwise: bool = False,
) -> Synapses:
    """The weights with which an exactly balanced circuit acts: eqs. (9)-(13) with these are what
    `eisnn.ops.ConservedKernel` and `divisive_weight` compute.

    A neuron's excitation and subtractive inhibition are scaled alike, to the norm `row_norm` of the folded weights:
    they balance as before, but their totals are no longer `total`."""
    ee, ie, ei = conserved_weights(weight_ee, weight_ie, weight_ei, total, tapwise=tapwise)
    signed = fold(ee, ie, ei)
    row = fix_norm(signed, row_norm).flatten(1).norm(dim=1) / signed.flatten(1).norm(dim=1).clamp_min(SMALLEST)
    divisive = ei * gain_i
    if pooled:
        divisive = divisive.mean(0, keepdim=True).expand_as(divisive)
    return Synapses(row.view(-1, *(1,) * (ee.ndim - 1)) * ee, ie, row[:, None] * ei, divisive, sigma)


def divisive_weight(weight_ei: Tensor, gain_i: Tensor, sigma: Tensor | None, *, pooled: bool) -> Tensor:
    """`M` `[n_E, m]` of the currents that divide, for `eisnn.ops.ConservedKernel`.

    Semisaturation (M11), `I_div -> I_div + sigma` with `sigma` `[n_E]`, is the synapse of the tonic I neuron. Then the
    divisive current is positive and never stabilised.
    """
    weight = torch.ones_like(weight_ei[:, :1]) if pooled else conserve(weight_ei) * gain_i
    return weight if sigma is None else torch.cat([weight, sigma[:, None]], 1)
