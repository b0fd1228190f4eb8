"""The population operation in torch operations, piece by piece in the cache, and what the back ends of it share."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from eisnn import functional
from eisnn.functional.connection import lateral, per_neuron
from eisnn.functional.folded import FoldedCurrents
from eisnn.functional.lif import LIFConstants
from eisnn.functional.stabilize import replace_zeros, smallest_positive
from eisnn.ops.backends import Implementations
from eisnn.ops.layout import by_position, layout_of, padded
from eisnn.ops.scan import pieces, scan_, scan_backward_


def split_currents(currents: Tensor, weight: Tensor) -> FoldedCurrents:
    """`eisnn.functional.split_currents`, which takes no notice of what lies below the currents on CUDA."""
    n = sum(weight.shape)
    return functional.split_currents(
        currents[:, :, :n] if currents.shape[2] == padded(n, currents) else currents, weight
    )


class Gradients(NamedTuple):
    """Of a population: of `M` `[n_E, n_I]`, of gain and bias `[n_E]`, of the first potential (or None)."""

    weight: Tensor
    gain: Tensor
    bias: Tensor
    v: Tensor | None


@dataclass
class Population:
    """One call of the operation: its inputs, with gain, bias and potential in the dtype of its arithmetic."""

    currents: Tensor
    weight: Tensor
    gain: Tensor
    bias: Tensor
    v: Tensor | None
    constants: LIFConstants
    steps: int
    tonic: bool

    def forward(self) -> tuple[Tensor, Tensor, Tensor]:
        """Spikes, last potential, and the smallest positive divisive current of each sample `[T, B, 1, ...]`."""
        balanced, i_div = split_currents(self.currents, self.weight)
        dtype = self.gain.dtype
        smallest = i_div.new_empty((*i_div.shape[:2], *(1,) * (i_div.ndim - 2)), dtype=dtype)
        layout = layout_of(self.currents, len(self.weight))
        spikes = layout.empty((self.steps, *i_div.shape[1:]), i_div.dtype, i_div.device)
        v_last = layout.empty(i_div.shape[1:], dtype, i_div.device)
        for b in pieces(i_div):
            smallest[:, b] = smallest_positive(i_div[:, b])
            q, _ = self._quotient(balanced[:, b], i_div[:, b], smallest[:, b])
            v_last[b] = scan_(self._potentials(q), spikes[:, b], None if self.v is None else self.v[b], self.constants)
        return spikes, v_last, smallest

    def backward(
        self, smallest: Tensor, grad_spikes: Tensor | None, grad_v_last: Tensor | None, grad_currents: Tensor
    ) -> Gradients:
        """All gradients; that of the stacked currents is written into `grad_currents`."""
        balanced, i_div = split_currents(self.currents, self.weight)
        grad_balanced = self._parts(grad_currents)[0]
        others = tuple(a for a in range(i_div.ndim) if a != 2)
        grad_i_div = torch.empty_like(i_div)
        grad_gain, grad_bias = torch.zeros_like(self.gain), torch.zeros_like(self.bias)
        grad_v = None if self.v is None else torch.empty_like(self.v)
        for b in pieces(i_div):
            v = None if self.v is None else self.v[b]
            q, divisor = self._quotient(balanced[:, b], i_div[:, b], smallest[:, b])
            h = self._potentials(q)
            scratch = torch.empty_like(h)
            scan_(h, scratch, v, self.constants)
            upstream = scratch.zero_() if grad_spikes is None else grad_spikes[:, b]
            delta, before = scan_backward_(h, upstream, None if grad_v_last is None else grad_v_last[b], self.constants)
            if grad_v is not None:
                grad_v[b] = before
            if delta.shape[0] != q.shape[0]:
                delta = delta.sum(0, keepdim=True)
            grad_bias += delta.sum(others)
            grad_gain += (delta * q).sum(others)
            nbar = delta.mul_(per_neuron(self.gain, delta)).div_(divisor)
            grad_balanced[:, b] = nbar
            grad_i_div[:, b] = nbar.mul_(q).neg_()
        return Gradients(self._through_lateral(grad_i_div, grad_currents), grad_gain, grad_bias, grad_v)

    def _parts(self, stack: Tensor) -> tuple[Tensor, ...]:
        """The E and the I part of something stacked."""
        n_e, n_i = self.weight.shape
        return stack[:, :, :n_e], stack[:, :, n_e : n_e + n_i]

    def _through_lateral(self, grad_i_div: Tensor, grad_currents: Tensor) -> Tensor:
        """From `dL/dI_div`: writes `dL/dI_IE` into `grad_currents`, and returns `dL/dM`."""
        self._parts(grad_currents)[1].copy_(lateral(grad_i_div, self.weight.T))
        return by_position(grad_i_div).T @ by_position(self._parts(self.currents)[1])

    def _quotient(self, balanced: Tensor, i_div: Tensor, smallest: Tensor) -> tuple[Tensor, Tensor]:
        """`q = N / I_div~` and `I_div~`."""
        i_div = replace_zeros(i_div.to(self.gain.dtype), smallest)
        return balanced / i_div, i_div

    def _potentials(self, q: Tensor) -> Tensor:
        """`I_E` at each step, in memory of its own: what `scan_` turns into `H`."""
        i_e = torch.addcmul(per_neuron(self.bias, q), q, per_neuron(self.gain, q))
        return i_e if self.steps == i_e.shape[0] else i_e.expand(self.steps, *i_e.shape[1:]).clone()


POPULATIONS = Implementations(Population)
