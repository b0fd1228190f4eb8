"""LIF neurons in torch operations, piece by piece in the cache."""

from dataclasses import dataclass

import torch
from torch import Tensor

from eisnn.functional.lif import LIFConstants
from eisnn.ops.backends import Implementations
from eisnn.ops.layout import layout_of
from eisnn.ops.scan import pieces, scan_, scan_backward_


@dataclass
class Neurons:
    """One call of the operation: the current `[T or 1, B, ...]`, the potential before the first step (None: 0), the
    constants and T."""

    current: Tensor
    v: Tensor | None
    constants: LIFConstants
    steps: int

    def forward(self, spikes: Tensor) -> Tensor:
        """Writes the spikes; returns the potential after the last step."""
        v_last = self.potential(self.current.dtype)
        for b in pieces(self.current):
            v_last[b] = scan_(self._own(b), spikes[:, b], self._before(b), self.constants)
        return v_last

    def backward(self, grad_spikes: Tensor | None, grad_v_last: Tensor | None, grad_current: Tensor) -> Tensor | None:
        """Writes the gradient of the current; returns that of the first potential, if there is one."""
        grad_v = None if self.v is None else torch.empty_like(self.v)
        for b in pieces(self.current):
            h = self._own(b)
            scratch = torch.empty_like(h)
            scan_(h, scratch, self._before(b), self.constants)
            upstream = scratch.zero_() if grad_spikes is None else grad_spikes[:, b]
            last = None if grad_v_last is None else grad_v_last[b]
            delta, before = scan_backward_(h, upstream, last, self.constants)
            grad_current[:, b] = delta.sum(0, keepdim=True) if len(delta) != len(self.current) else delta
            if grad_v is not None:
                grad_v[b] = before
        return grad_v

    def potential(self, dtype: torch.dtype) -> Tensor:
        """Room for a potential `[B, ...]`."""
        return layout_of(self.current).empty(self.current.shape[1:], dtype, self.current.device)

    def widened(self, potential: Tensor | None) -> Tensor | None:
        """In the dtype of the compiled arithmetic."""
        return None if potential is None else potential.to(self.wide)

    @property
    def wide(self) -> torch.dtype:
        return torch.promote_types(self.current.dtype, torch.float32)

    def _own(self, b: slice) -> Tensor:
        """A copy of the current of some images, repeated to T."""
        return self.current[:, b].expand(self.steps, *self.current[0, b].shape).clone()

    def _before(self, b: slice) -> Tensor | None:
        return None if self.v is None else self.v[b]


NEURONS = Implementations(Neurons)
