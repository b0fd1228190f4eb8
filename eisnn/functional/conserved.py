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
from eisnn.functional.folded import Kernel, channels_last, from_rows, laid_out_like, weight_rows
from eisnn.functional.kernels.matmul import matmul
from eisnn.functional.rows import LEAST_TOTAL, SMALLEST, TorchRows, rows_of


def conserve(weight: Tensor, total: Any = 1.0, *, tapwise: bool = False) -> Tensor:
    """Conserved totals (P10): each neuron's weights scaled to the sum `total`; `[n, ...]` >= 0 -> `[n, ...]` >= 0.

    With `tapwise` those of each position of the receptive field `[n, C, kh, kw]` by themselves, to
    `total / (kh kw)`. The gradient has no part along the weights: a common factor of a neuron's synapses changes
    nothing. Biologically this is synaptic scaling. Weights that sum to less than `LEAST_TOTAL` of their total are
    scaled by 1 / LEAST_TOTAL and keep less.
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
    norms: Tensor


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

    @staticmethod
    def _dense(weight_ee: Tensor, weight_ie: Tensor, weight_ei: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        """The sources, the weights without gaps in memory and the first two laid out alike; copied only if need be."""
        weight_ee = laid_out_like(weight_ee, weight_ee)
        return weight_ee, laid_out_like(weight_ie, weight_ee), weight_ei.contiguous(), *others

    def _rows(self, weight_ee: Tensor, weight_ie: Tensor, weight_ei: Tensor) -> tuple[TorchRows, TorchRows, TorchRows]:
        """The row operations on each of the weights, the first two laid out alike."""
        taps, inside = prod(weight_ee.shape[2:]) if self.tapwise else 1, channels_last(weight_ee)
        return rows_of(weight_ee, taps, inside), rows_of(weight_ie, taps, inside), rows_of(weight_ei, 1, True)

    @torch.no_grad()
    def make(self, *sources: Tensor) -> tuple[Tensor, _Made]:
        weight_ee, weight_ie, weight_ei, gain_i, total, row_norm = self._dense(*sources)
        of_ee, of_ie, of_ei = self._rows(weight_ee, weight_ie, weight_ei)
        rows_i, b = of_ie.share(weight_ie, total)
        ei, c = of_ei.share(weight_ei, None)
        n_e, m = len(ei), 1 if self.pooled else len(rows_i)
        kernel = rows_i.new_empty(n_e + m + self.tonic, rows_i.shape[1])
        a, norms = of_ee.fold(weight_ee, matmul(ei, rows_i), total, row_norm, kernel[:n_e])
        kernel[n_e : n_e + m] = (ei.mean(0) * gain_i) @ rows_i if self.pooled else rows_i
        if self.tonic:
            kernel[-1].zero_()
        return from_rows(kernel, weight_ee), _Made(kernel, (a, b, c), (rows_i, ei), norms)

    def gradients(self, grad: Tensor, made: _Made, *sources: Tensor) -> tuple[Tensor | None, ...]:
        weight_ee, weight_ie, weight_ei, gain_i, total, row_norm = self._dense(*sources)
        of_ee, of_ie, of_ei = self._rows(weight_ee, weight_ie, weight_ei)
        kernel, (a, b, c), (rows_i, ei), norms = made
        grad = weight_rows(laid_out_like(grad, weight_ee))
        n_e, n_i = ei.shape
        grad_f = of_ee.through_fold(grad[:n_e], kernel[:n_e], norms, row_norm)
        grad_ei, grad_i = matmul(grad_f, rows_i.T).neg_(), matmul(ei.T, grad_f)
        if self.pooled:
            mean, through = ei.mean(0), rows_i @ grad[n_e]
            grad_gain = mean * through
            grad_ei += gain_i * through / n_e
            grad_i.addr_(mean * gain_i, grad[n_e], beta=-1)
        else:
            grad_gain = torch.zeros_like(gain_i)
            grad_i.neg_().add_(grad[n_e : n_e + n_i])
        return (
            from_rows(of_ee.through_share(grad_f, weight_ee, a, total), weight_ee),
            from_rows(of_ie.through_share(grad_i, weight_ie, b, total), weight_ee),
            of_ei.through_share(grad_ei, weight_ei, c, None),
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
