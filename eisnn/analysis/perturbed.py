"""A circuit with other weights than those it was trained to, for inference: folded once more from its `Synapses`."""

import torch
from torch import Tensor

from eisnn import functional as EF
from eisnn import ops
from eisnn.nn import EILayer
from eisnn.nn.circuit import CURRENTS, circuit_currents
from eisnn.nn.inference import FoldedLayer


class PerturbedLayer(FoldedLayer):
    """Called as the layer that it stands for; inference only.

    Args:
        layer: as it was trained; it stays as it is.
        synapses: the weights with which the circuit shall act.
        bias: `b_E` `[n_E]`, with whatever current is injected into the E neurons.
        inject_i: constant `[n_I]` added to the I neurons' output `s_I`.
    """

    inference_only = False  # for a while only: a network that is being trained may be looked at as well
    offset: Tensor | None

    @torch.no_grad()
    def __init__(self, layer: EILayer, synapses: EF.Synapses, bias: Tensor, inject_i: Tensor) -> None:
        ee, ie, subtractive, divisive = (weight.detach() for weight in synapses[:4])
        sigma = None if synapses.sigma is None else synapses.sigma.detach()
        tonic = torch.zeros_like(ie[: sigma is not None])
        kernel = torch.cat([ops.fold(ee, ie, subtractive), ie, tonic])
        weight = divisive if sigma is None else torch.cat([divisive, sigma[:, None]], 1)
        super().__init__(layer.connection, kernel, weight, layer.gain_e, bias, layer.neuron, sigma is not None)
        self._origin = (layer,)  # no submodule: its parameters are not the perturbed network's
        self._synapses = EF.Synapses(ee, ie, subtractive, divisive, sigma)
        self.inject_i = inject_i
        shift = torch.cat([-subtractive @ inject_i, inject_i, inject_i.new_zeros(len(tonic))])
        self.offset = shift.view(-1, *(1,) * self.connection.spatial) if bool(inject_i.any()) else None
        self.train(layer.training)

    def project(self, x: Tensor) -> Tensor:
        currents = super().project(x)
        return currents if self.offset is None else currents + self.offset

    @property
    def origin(self) -> EILayer:
        """The layer as it was trained."""
        return self._origin[0]

    def synapses(self) -> EF.Synapses:
        """The weights with which the perturbed circuit acts."""
        return self._synapses

    def quantities(self) -> tuple[str, ...]:
        """All currents: nothing is lost, as the synapses are known."""
        return (*CURRENTS, "undivided")

    @torch.no_grad()
    def measure(self, x: Tensor, out: Tensor) -> dict[str, Tensor]:
        s = self._synapses
        injected = s.subtractive @ self.inject_i, s.divisive @ self.inject_i
        return circuit_currents(x, s, self.connection, self.gain_e, self.bias, injected)
