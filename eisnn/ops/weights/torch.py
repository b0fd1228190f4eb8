"""What exact balance does to the weights of each neuron, and the way back: sharing out a total, fixing a norm.

Rows are `[n, d]` as they lie in memory, in the order of `eisnn.ops.layout.weight_rows`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from eisnn.functional.conserved import LEAST_TOTAL, SMALLEST
from eisnn.ops.backends import Implementations


@dataclass(frozen=True)
class TorchRows:
    """The operations on weights of one shape, by torch.

    A neuron's weights are looked at as `[taps, channels]`; those of each tap have a share of the total and sum to it.

    Args:
        neurons: n.
        size: d, weights of a neuron.
        taps: positions of the receptive field that have shares of their own, or 1.
        channels_inside: whether the weights of one tap lie together.
    """

    neurons: int
    size: int
    taps: int
    channels_inside: bool

    def share(self, weight: Tensor, total: Tensor | None) -> tuple[Tensor, Tensor]:
        """Rows whose taps sum to their shares of `total` (None: 1), and the sums `[n, taps]` before.

        Weights that sum to less than `LEAST_TOTAL` of their share are scaled by 1 / LEAST_TOTAL and keep less.
        """
        by_tap, share = self._by_tap(weight), self._share(total)
        sums = by_tap.sum(2).clamp_min(LEAST_TOTAL * share)
        shared = weight.new_empty(self.neurons, self.size)
        self._by_tap(shared).copy_(by_tap).mul_((share / sums)[:, :, None])
        return shared, sums

    def fold(self, weight: Tensor, product: Tensor, total: Tensor, row_norm: Tensor) -> tuple[Tensor, Tensor]:
        """In place of `product` the rows of `weight`, shared, less its own, scaled to the norm `row_norm`; returns the
        sums as `share` does, and the norms before, `[n, 1]`."""
        by_tap, share = self._by_tap(weight), self._share(total)
        sums = by_tap.sum(2).clamp_min(LEAST_TOTAL * share)
        self._by_tap(product.neg_()).addcmul_(by_tap, (share / sums)[:, :, None])
        norms = torch.linalg.vector_norm(product, dim=1, keepdim=True).clamp_min(SMALLEST)
        product.mul_(row_norm / norms)
        return sums, norms

    def through_fold(self, grad: Tensor, folded: Tensor, norms: Tensor, row_norm: Tensor) -> Tensor:
        """From the gradient of the folded rows, in its place, to that before they got their norm: no part along the row
        itself."""
        unit = folded / row_norm
        return grad.addcmul_(unit, torch.linalg.vecdot(grad, unit)[:, None], value=-1).mul_(row_norm / norms)

    def through_share(self, grad: Tensor, weight: Tensor, sums: Tensor, total: Tensor | None) -> Tensor:
        """From the gradient of the shared rows, in its place, to that of `weight`, as rows."""
        share, by_tap = self._share(total), self._by_tap(grad)
        along = (by_tap * self._by_tap(weight)).sum(2) / sums
        by_tap -= (along * (sums > LEAST_TOTAL * share))[:, :, None]
        by_tap *= (share / sums)[:, :, None]
        return grad

    def _by_tap(self, rows: Tensor) -> Tensor:
        """`[n, taps, channels]` of weights or rows, in the same memory."""
        if rows.ndim > 2:
            rows = rows.as_strided((self.neurons, self.size), (self.size, 1))
        if self.channels_inside:
            return rows.view(self.neurons, self.taps, -1)
        return rows.view(self.neurons, -1, self.taps).transpose(1, 2)

    def _share(self, total: Tensor | None) -> Tensor | float:
        return (1.0 if total is None else total) / self.taps


ROWS = Implementations(TorchRows)


def rows_of(weight: Tensor, taps: int, channels_inside: bool) -> TorchRows:
    """The operations on weights like `weight` `[n, ...]`, by the back end that serves them best; arguments as
    `TorchRows`."""
    return ROWS(weight)(len(weight), weight[0].numel(), taps, channels_inside or taps == 1)
