"""A layer with any of the normalizations between projection and neuron, or behind it (NeuNorm)."""

from typing import Any

from torch import Tensor, nn

from eisnn.nn.baselines import ProjectionLayer
from eisnn.nn.layer import run_neuron
from eisnn.nn.neunorm import NeuNorm
from eisnn.nn.normalization import SequenceNorm
from eisnn.nn.plain import fluctuation_driven_, lif_constants


class NormalizedLayer(ProjectionLayer):
    """A projection, a `SequenceNorm` and a neuron. Where the normalization keeps a state, the layer's is (that of the
    normalization, that of the neuron).

    Args:
        projection: e.g. `nn.Conv2d(3, 64, 3, padding=1, bias=False)`.
        norm: of its output channels, e.g. `BNTT(64, time_steps=4)`.
        neuron: copied into the layer; None returns the normalized currents.
    """

    def __init__(self, projection: nn.Conv2d | nn.Linear, norm: SequenceNorm, neuron: nn.Module | None) -> None:
        super().__init__(projection, neuron)
        self.norm = norm
        if isinstance(norm, NeuNorm):  # it leaves the currents to the weights
            fluctuation_driven_(projection.weight, lif_constants(neuron))

    def _respond(self, current: Tensor, time_steps: int | None, state: Any, return_state: bool) -> tuple[Tensor, Any]:
        of_norm, of_neuron = self._split(state)
        if isinstance(self.norm, NeuNorm):
            out, of_neuron = run_neuron(self.neuron, current, time_steps, of_neuron, return_state)
            out, of_norm = self.norm(out, None, of_norm, return_state=True)
        else:
            current, of_norm = self.norm(current, time_steps, of_norm, return_state=True)
            out, of_neuron = run_neuron(self.neuron, current, time_steps, of_neuron, return_state)
        return out, (of_norm, of_neuron) if self.norm.stateful else of_neuron

    def _split(self, state: Any) -> tuple[Any, Any]:
        if state is None or not self.norm.stateful:
            return None, state
        if not isinstance(state, tuple | list) or len(state) != 2:
            raise ValueError(
                f"the state of this {type(self).__name__} is (state of its {type(self.norm).__name__}, state of its "
                f"neurons), got {type(state).__name__}; pass what was returned"
            )
        return state[0], state[1]

    def affine(self) -> tuple[Tensor, Tensor] | None:
        return self.norm.affine()
