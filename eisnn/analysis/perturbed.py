"""A circuit with other weights than those it was trained to, for inference: folded once more from its `Synapses`."""

import torch
from torch import Tensor

from eisnn import functional as EF
from eisnn.nn import EILayer
from eisnn.nn.folded import FoldedLayer


class PerturbedLayer(FoldedLayer):
    """Called as the layer that it stands for; inference only.

    Args:
        layer: as it was trained; it stays as it is.
        synapses: the weights with which the circuit shall act.
        bias: `b_E` `[n_E]`, with whatever current is injected into the E neurons.
        inject_i: constant `[n_I]` added to the I neurons' output `s_I`.
    """

    offset: Tensor | None

    @torch.no_grad()
    def __init__(self, layer: EILayer, synapses: EF.Synapses, bias: Tensor, inject_i: Tensor) -> None:
        super().__init__(layer)
        ee, ie, subtractive, divisive = (weight.detach() for weight in synapses[:4])
        sigma = None if synapses.sigma is None else synapses.sigma.detach()
        self._origin = (layer,)  # no submodule: its parameters are not the perturbed network's
        self._synapses = EF.Synapses(ee, ie, subtractive, divisive, sigma)
        self.tonic = sigma is not None
        tonic = torch.zeros_like(ie[: int(self.tonic)])
        self.kernel = torch.cat([EF.fold(ee, ie, subtractive), ie, tonic])
        self.weight = divisive if sigma is None else torch.cat([divisive, sigma[:, None]], 1)
        self.bias, self.inject_i = bias.detach(), inject_i
        shift = torch.cat([-subtractive @ inject_i, inject_i, inject_i.new_zeros(len(tonic))])
        self.offset = shift.view(-1, *(1,) * self.connection.spatial) if bool(inject_i.any()) else None
        self.train(layer.training)

    def _project(self, x: Tensor, time_steps: int | None) -> Tensor:
        currents = super()._project(x, time_steps)
        return currents if self.offset is None else currents + self.offset

    @property
    def origin(self) -> EILayer:
        """The layer as it was trained."""
        return self._origin[0]

    def synapses(self) -> EF.Synapses:
        """The weights with which the perturbed circuit acts."""
        return self._synapses

    def injected(self, i_sub: Tensor, i_div: Tensor) -> tuple[Tensor, Tensor]:
        """`I_sub` and `I_div` `[T, B, n_E, ...]` with what the current injected into I neurons adds to them."""
        s = self._synapses
        return tuple(  # type: ignore[return-value]
            current + EF.per_neuron(weight @ self.inject_i, current)
            for current, weight in ((i_sub, s.subtractive), (i_div, s.divisive))
        )
