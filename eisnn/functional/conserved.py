"""Departures from the paper's circuit, each an option: conserved totals, semisaturation, a pooled divisive current.

All three act on weights alone: no activity is measured while the network trains. Names as in
`eisnn.functional.circuit`; method, section 7 (P2, P10, P11).
"""

from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eisnn.functional.circuit import Synapses
from eisnn.functional.folded import Kernel, from_rows, laid_out_like, weight_rows
from eisnn.functional.kernels.matmul import matmul

LEAST_TOTAL = 0.01  # of the total: what raw weights sum to counts as no less, so that gradients stay bounded
SMALLEST = 1e-12  # what a norm counts as at least, so that nothing is divided by zero


def conserve(weight: Tensor, total: Any = 1.0, *, tapwise: bool = False) -> Tensor:
    """Conserved totals (P10): each neuron's weights scaled to the sum `total`; `[n, ...]` >= 0 -> `[n, ...]` >= 0.

    With `tapwise` those of each position of the receptive field `[n, C, kh, kw]` by themselves, to
    `total / (kh kw)`. The gradient has no part along the weights: a common factor of a neuron's synapses changes
    nothing. Biologically this is synaptic scaling. Weights that sum to less than `LEAST_TOTAL` of their total are
    scaled by 1 / LEAST_TOTAL and keep less.
    """
    share = _share(weight, total, tapwise)
    return weight * (share / _sums(weight, share, tapwise))


def _share(weight: Tensor, total: Any, tapwise: bool) -> Any:
    """What each sum of `_sums` is to be."""
    return total / prod(weight.shape[2:]) if tapwise else total


def _sums(weight: Tensor, share: Any, tapwise: bool) -> Tensor:
    """Of each neuron's weights, `[n, 1, ...]`; `tapwise` over channels alone, `[n, 1, kh, kw]`. At least
    `LEAST_TOTAL` of `share`."""
    axes = (1,) if tapwise else tuple(range(1, weight.ndim))
    return weight.sum(axes, keepdim=True).clamp_min(LEAST_TOTAL * share)


def _through_sums(grad: Tensor, weight: Tensor, share: Tensor, sums: Tensor) -> Tensor:
    """From the gradient of `weight * (share / sums)` to that of `weight`; in place."""
    axes = [axis for axis in range(1, weight.ndim) if sums.shape[axis] == 1]
    along = (grad * weight).sum(axes, keepdim=True) / sums
    grad -= along * (sums > LEAST_TOTAL * share)
    return grad.mul_(share / sums)


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
    """Identity whose gradient has its mean over each neuron's inputs subtracted (gradient centralization, P1)."""
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


class _Made(NamedTuple):
    """What the gradients of a conserved kernel need besides its sources."""

    kernel: Tensor
    sums: tuple[Tensor, Tensor, Tensor]
    inner: tuple[Tensor, Tensor]
    norm: Tensor


@dataclass(frozen=True)
class ConservedKernel(Kernel):
    """What one convolution computes all currents with, `[n_E + m, ...]`, with conserved totals.

    The rows of the folded `W` have the norm `row_norm` (a factor of a neuron's excitation and of its subtractive
    inhibition alike). Below it lie the m rows whose currents divide: `W_IE` (m = n_I), or with `pooled` (P11) their
    mean over the E neurons, `V = mean(W_EI) diag(g_I) W_IE` (m = 1); with `tonic` one more row of zeros, for an I
    neuron that is always active. `tapwise` as in `conserve`.

    Sources: raw weights `weight_ee`, `weight_ie`, `weight_ei`; `gain_i`; and the scalars `total` and `row_norm`, which
    have no gradient. There are few passes over the large weights: of raw `A, B, C` with totals `A', B', C'` the folded
    rows are `F = A' - C' B'`, with norms f, and the kernel is `[F r / f; B' or v B'; 0]`, `v = mean(C') g_I`.
    """

    pooled: bool
    tonic: bool = False
    tapwise: bool = False

    @torch.no_grad()
    def make(self, *sources: Tensor) -> tuple[Tensor, _Made]:
        weight_ee, weight_ie, weight_ei, gain_i, total, row_norm = sources
        share = _share(weight_ee, total, self.tapwise)
        weight_ie = laid_out_like(weight_ie, weight_ee)
        a, b = (_sums(w, share, self.tapwise) for w in (weight_ee, weight_ie))
        c = _sums(weight_ei, torch.ones_like(total), False)
        rows_i, ei = weight_rows(weight_ie * (share / b)), weight_ei / c
        folded = matmul(ei, rows_i).neg_()
        from_rows(folded, weight_ee).addcmul_(weight_ee, share / a)
        norm = torch.linalg.vector_norm(folded, dim=1, keepdim=True).clamp_min(SMALLEST)
        n_e, m = len(ei), 1 if self.pooled else len(rows_i)
        kernel = folded.new_empty(n_e + m + self.tonic, folded.shape[1])
        torch.mul(folded, row_norm / norm, out=kernel[:n_e])
        kernel[n_e : n_e + m] = (ei.mean(0) * gain_i) @ rows_i if self.pooled else rows_i
        if self.tonic:
            kernel[-1].zero_()
        return from_rows(kernel, weight_ee), _Made(kernel, (a, b, c), (rows_i, ei), norm)

    def gradients(self, grad: Tensor, made: _Made, *sources: Tensor) -> tuple[Tensor | None, ...]:
        weight_ee, weight_ie, weight_ei, gain_i, total, row_norm = sources
        share = _share(weight_ee, total, self.tapwise)
        kernel, (a, b, c), (rows_i, ei), norm = made
        grad = weight_rows(laid_out_like(grad, weight_ee))
        n_e, n_i = ei.shape
        # Through the norm: no part along the row itself.
        unit = kernel[:n_e] / row_norm
        grad_f = torch.addcmul(grad[:n_e], unit, torch.linalg.vecdot(grad[:n_e], unit)[:, None], value=-1)
        grad_f *= row_norm / norm
        grad_ei, grad_i = matmul(grad_f, rows_i.T).neg_(), matmul(ei.T, grad_f).neg_()
        grad_gain = torch.zeros_like(gain_i)
        if self.pooled:
            mean, through = ei.mean(0), rows_i @ grad[n_e]
            grad_gain = mean * through
            grad_ei += gain_i * through / n_e
            grad_i += (mean * gain_i)[:, None] * grad[n_e]
        else:
            grad_i += grad[n_e : n_e + n_i]
        return (
            _through_sums(from_rows(grad_f, weight_ee), weight_ee, share, a),
            _through_sums(from_rows(grad_i, weight_ee), weight_ie, share, b),
            _through_sums(grad_ei, weight_ei, torch.ones_like(total), c),
            grad_gain,
            None,
            None,
        )


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
    """The weights with which a circuit of conserved totals acts: eqs. (9)-(13) with these are what
    `ConservedKernel` and `divisive_weight` compute."""
    ee, ie, ei = conserved_weights(weight_ee, weight_ie, weight_ei, total, tapwise=tapwise)
    signed = (ee.flatten(1) - ei @ ie.flatten(1)).unflatten(1, ee.shape[1:])
    row = fix_norm(signed, row_norm).flatten(1).norm(dim=1) / signed.flatten(1).norm(dim=1).clamp_min(SMALLEST)
    divisive = ei * gain_i
    if pooled:
        divisive = divisive.mean(0, keepdim=True).expand_as(divisive)
    return Synapses(row.view(-1, *(1,) * (ee.ndim - 1)) * ee, ie, row[:, None] * ei, divisive, sigma)


def divisive_weight(weight_ei: Tensor, gain_i: Tensor, sigma: Tensor | None, *, pooled: bool) -> Tensor:
    """`M` `[n_E, m]` of the currents that divide, for `ConservedKernel`.

    Semisaturation (P2), `I_div -> I_div + sigma` with `sigma` `[n_E]`, is the synapse of the tonic I neuron. Then the
    divisive current is positive and never stabilised.
    """
    weight = torch.ones_like(weight_ei[:, :1]) if pooled else conserve(weight_ei) * gain_i
    return weight if sigma is None else torch.cat([weight, sigma[:, None]], 1)
