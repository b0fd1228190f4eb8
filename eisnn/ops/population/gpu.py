"""The population operation and the LIF neuron on a GPU: what calls the Triton kernels (triton.py), which are imported
when the first one is needed."""

from dataclasses import replace

import torch
from torch import Tensor

from eisnn.functional.lif import LIFConstants
from eisnn.functional.stabilize import noise_of
from eisnn.ops.backends import in_triton
from eisnn.ops.layout import layout_of
from eisnn.ops.population.torch import POPULATIONS, Gradients, Population, split_currents

PART = 1 << 22  # most elements of a map of divisive currents: a few MB, which the cache of a GPU holds


def serves(maps: Tensor, constants: LIFConstants) -> bool:
    """Whether the kernels serve these maps and neurons."""
    return in_triton(maps) and constants.surrogate_number is not None


@POPULATIONS.register("triton", serves)
class TritonPopulation(Population):
    """The same by the Triton kernels. A pooled current with a tonic one is all that they need to divide; else `I_div`
    is made by torch, of so few images at a time that neither it nor its gradient takes the memory of a whole map."""

    @property
    def _within(self) -> bool:
        return self.tonic and self.weight.shape[1] == 2

    def _parts_of_batch(self) -> list[tuple[slice, "TritonPopulation"]]:
        """Some images at a time, and the operation on them alone."""
        batch, of_image = self.currents.shape[1], len(self.weight) * self.currents[:, 0, 0].numel()
        images = batch if self._within else min(batch, max(1, PART // max(1, of_image)))
        images = -(-batch // -(-batch // images))  # parts of about the same size
        slices = [slice(first, first + images) for first in range(0, batch, images)]
        states = [None if self.v is None else self.v[b] for b in slices]
        return [(b, replace(self, currents=self.currents[:, b], v=v)) for b, v in zip(slices, states, strict=True)]

    def _divided(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Balanced current, what divides it, and the weight that the latter has if that happens within the kernels."""
        if self._within:
            n_e = len(self.weight)
            balanced, dividing = self.currents[:, :, :n_e], self.currents[:, :, n_e : n_e + 1]
            return balanced, dividing, self.weight.to(self.gain.dtype).contiguous()
        return *split_currents(self.currents, self.weight), None

    def forward(self) -> tuple[Tensor, Tensor, Tensor]:
        from eisnn.ops.population import triton

        shape = (*self.currents.shape[:2], len(self.weight), *self.currents.shape[3:])
        layout, device = layout_of(self.currents, shape[2]), self.currents.device
        spikes = layout.empty((self.steps, *shape[1:]), self.currents.dtype, device)
        v_last = layout.empty(shape[1:], self.gain.dtype, device)
        smallest = (self.gain.new_zeros if self.tonic else self.gain.new_empty)(*shape[:2], *(1,) * (len(shape) - 2))
        gain, bias = self.gain.contiguous(), self.bias.contiguous()
        for b, part in self._parts_of_batch():
            balanced, dividing, weight = part._divided()
            if not self.tonic:
                triton.smallest_positive(dividing, noise_of(dividing), smallest[:, b])
            triton.forward(
                layout, balanced, dividing, smallest[:, b], weight, gain, bias, part.v, self.constants,
                spikes[:, b], v_last[b],
            )  # fmt: skip
        return spikes, v_last, smallest

    def backward(
        self, smallest: Tensor, grad_spikes: Tensor | None, grad_v_last: Tensor | None, grad_currents: Tensor
    ) -> Gradients:
        found = [
            part._backward(
                smallest[:, b],
                None if grad_spikes is None else grad_spikes[:, b],
                None if grad_v_last is None else grad_v_last[b],
                grad_currents[:, b],
            )
            for b, part in self._parts_of_batch()
        ]
        if len(found) == 1:
            return found[0]
        *summed, of_v = zip(*found, strict=True)
        weight, gain, bias = (torch.stack(parts).sum(0, dtype=self.gain.dtype) for parts in summed)
        return Gradients(weight, gain, bias, None if self.v is None else torch.cat(of_v))

    def _backward(
        self, smallest: Tensor, grad_spikes: Tensor | None, grad_v_last: Tensor | None, grad_currents: Tensor
    ) -> Gradients:
        from eisnn.ops.population import triton

        parts, (balanced, dividing, weight) = self._parts(grad_currents), self._divided()
        layout = layout_of(self.currents, len(self.weight))
        grad_dividing, grad_weight, grad_gain, grad_bias, grad_v = triton.backward(
            layout, balanced, dividing, smallest, weight, self.gain.contiguous(), self.bias.contiguous(), self.v,
            self.constants, self.steps, grad_spikes, grad_v_last, parts[0],
        )  # fmt: skip
        assert grad_dividing is not None
        assert grad_gain is not None
        assert grad_bias is not None
        if grad_weight is None:
            grad_weight = self._through_lateral(grad_dividing, grad_currents)
        else:
            parts[1][:, :, :1] = grad_dividing
            parts[1][:, :, 1:] = 0
        return Gradients(grad_weight, grad_gain, grad_bias, grad_v)
