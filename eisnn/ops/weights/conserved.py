"""The kernel of a circuit in exact balance."""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from eisnn.ops.layout import channels_last, from_rows, laid_out_like, weight_rows
from eisnn.ops.weights.matmul import matmul
from eisnn.ops.weights.op import Gradients, Kept, Kernel
from eisnn.ops.weights.torch import TorchRows, rows_of


@dataclass(frozen=True)
class ConservedKernel(Kernel):
    """What one convolution computes all currents with, `[n_E + m, ...]`, in exact balance, (M9) and (M10).

    The rows of the folded `W` have the norm `row_norm` (a factor of a neuron's excitation and of its subtractive
    inhibition alike). Below it lie the m rows whose currents divide: `W_IE` (m = n_I), or with `pooled` (M12) their
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
    def make(self, *sources: Tensor) -> tuple[Tensor, Kept]:
        """The kernel; the sums of `A, B, C`, `B'`, `C'`, their mean over E neurons (pooled circuits), and the norms."""
        weight_ee, weight_ie, weight_ei, gain_i, total, row_norm = self._dense(*sources)
        of_ee, of_ie, of_ei = self._rows(weight_ee, weight_ie, weight_ei)
        rows_i, b = of_ie.share(weight_ie, total)
        ei, c = of_ei.share(weight_ei, None)
        n_e, m = len(ei), 1 if self.pooled else len(rows_i)
        kernel = rows_i.new_empty(n_e + m + self.tonic, rows_i.shape[1])
        matmul(ei, rows_i, out=kernel[:n_e])
        a, norms = of_ee.fold(weight_ee, kernel[:n_e], total, row_norm)
        mean = ei.mean(0) if self.pooled else None
        kernel[n_e : n_e + m] = rows_i if mean is None else (mean * gain_i) @ rows_i
        if self.tonic:
            kernel[-1].zero_()
        return from_rows(kernel, weight_ee), (a, b, c, rows_i, ei, mean, norms)

    def gradients(self, grad: Tensor, kernel: Tensor, kept: Kept, *sources: Tensor) -> Gradients:
        weight_ee, weight_ie, weight_ei, gain_i, total, row_norm = self._dense(*sources)
        of_ee, of_ie, of_ei = self._rows(weight_ee, weight_ie, weight_ei)
        a, b, c, rows_i, ei, mean, norms = kept
        grad = weight_rows(laid_out_like(grad, weight_ee))
        n_e, n_i = ei.shape
        grad_f = of_ee.through_fold(grad[:n_e], weight_rows(kernel)[:n_e], norms, row_norm)
        grad_ei, grad_i = matmul(grad_f, rows_i.T).neg_(), matmul(ei.T, grad_f)
        if mean is not None:
            through = rows_i @ grad[n_e]
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
