"""Layers with any of the normalizations between projection and neuron, or behind it (NeuNorm)."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from eisnn.nn.baselines import ProjectionLayer, plain_conv, plain_linear
from eisnn.nn.layer import Size, run_neuron
from eisnn.nn.lif import LIF
from eisnn.nn.neunorm import NeuNorm
from eisnn.nn.normalization import SequenceNorm
from eisnn.nn.plain import fluctuation_driven_, lif_constants

MakeNorm = Callable[[int], SequenceNorm]


class NormalizedLayer(ProjectionLayer):
    """A projection, a `SequenceNorm` and a neuron. Where the normalization keeps a state, the layer's is (that of the
    normalization, that of the neuron)."""

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


class NormConv2d(NormalizedLayer):
    """Conv2d (no bias), normalization, neuron; arguments as `EIConv2d`, and `norm`: C -> a `SequenceNorm`, such as
    `TDBN` or `functools.partial(BNTT, time_steps=4)`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        dilation: Size = 1,
        neuron: nn.Module | None = LIF(),  # noqa: B008 - copied, never shared
        *,
        norm: MakeNorm,
    ) -> None:
        conv = plain_conv(type(self).__name__, in_channels, out_channels, kernel_size, stride, padding, dilation)
        super().__init__(conv, norm(out_channels), neuron)


class NormLinear(NormalizedLayer):
    """Linear (no bias), normalization, neuron; arguments as `EILinear`, and `norm` as `NormConv2d`."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        neuron: nn.Module | None = LIF(),  # noqa: B008 - copied, never shared
        *,
        norm: MakeNorm,
    ) -> None:
        super().__init__(plain_linear(type(self).__name__, in_features, out_features), norm(out_features), neuron)
