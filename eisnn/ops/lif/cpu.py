"""LIF neurons on a CPU, by the compiled routine of a whole population: population/population.cpp."""

from torch import Tensor

from eisnn.ops.layout import layout_of
from eisnn.ops.lif.torch import NEURONS, Neurons
from eisnn.ops.population import cpu


@NEURONS.register("compiled", cpu.serves)
class CompiledNeurons(Neurons):
    def forward(self, spikes: Tensor) -> Tensor:
        v_last = self.potential(self.wide)
        maps = {"balanced": self.current, "spikes": spikes, "v": self.widened(self.v), "v_last": v_last}
        cpu.run("forward", layout_of(self.current), self.constants, self.steps, maps)
        return v_last

    def backward(self, grad_spikes: Tensor | None, grad_v_last: Tensor | None, grad_current: Tensor) -> Tensor | None:
        grad_v = None if self.v is None else self.potential(self.wide)
        maps = {"balanced": self.current, "v": self.widened(self.v), "grad_v_last": self.widened(grad_v_last)}
        maps |= {"grad_spikes": grad_spikes, "grad_balanced": grad_current, "grad_v": grad_v}
        cpu.run("backward", layout_of(self.current), self.constants, self.steps, maps)
        return grad_v
