"""LIF neurons on a GPU, by the Triton kernels of a whole population: population/triton.py."""

from torch import Tensor

from eisnn.ops.layout import layout_of
from eisnn.ops.lif.torch import NEURONS, Neurons
from eisnn.ops.population import gpu


@NEURONS.register("triton", gpu.serves)
class TritonNeurons(Neurons):
    def forward(self, spikes: Tensor) -> Tensor:
        from eisnn.ops.population import triton

        v_last, v = self.potential(self.wide), self.widened(self.v)
        triton.forward(layout_of(self.current), self.current, *(None,) * 5, v, self.constants, spikes, v_last)
        return v_last

    def backward(self, grad_spikes: Tensor | None, grad_v_last: Tensor | None, grad_current: Tensor) -> Tensor | None:
        from eisnn.ops.population import triton

        inputs = layout_of(self.current), self.current, *(None,) * 5, self.widened(self.v), self.constants, self.steps
        *_, grad_v = triton.backward(*inputs, grad_spikes, self.widened(grad_v_last), grad_current)
        return grad_v
