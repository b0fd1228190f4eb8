"""Conv-BN-LIF and its kin: the layers an E-I circuit replaces, called and constructed in the same way."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from eisnn.nn.layer import (
    Size,
    check_sequence,
    check_sizes,
    check_stateless,
    conv_geometry,
    copy_neuron,
    layer_output,
    run_neuron,
)
from eisnn.nn.lif import LIF


class BNLayer(nn.Module):
    """Batch normalization over the merged T*B axis between a plain projection and its neuron."""

    def __init__(self, projection: nn.Conv2d | nn.Linear, norm: nn.Module, neuron: nn.Module | None) -> None:
        super().__init__()
        self.projection, self.norm, self.neuron = projection, norm, copy_neuron(neuron)

    def forward(self, x: Tensor, time_steps: int | None = None, state: Any = None, return_state: bool = False) -> Any:
        """As `EILayer.forward`. A static input is projected and normalized once: its T copies have the same
        statistics."""
        p = self.projection
        axes, inputs = (3, p.in_features) if isinstance(p, nn.Linear) else (5, p.in_channels)
        check_sequence(x, axes, inputs, time_steps, type(self).__name__)
        current = self.norm(self.projection(x.flatten(0, 1))).unflatten(0, x.shape[:2])
        out, state = run_neuron(self.neuron, current, time_steps, state, return_state)
        return layer_output(out, state, return_state)


class BNConv2d(BNLayer):
    """Conv2d (no bias), BatchNorm2d, neuron; arguments as `EIConv2d`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        dilation: Size = 1,
        neuron: nn.Module | None = LIF(),  # noqa: B008 - copied, never shared
    ) -> None:
        name = type(self).__name__
        check_sizes(name, "channels", in_channels, out_channels)
        geometry = conv_geometry(name, kernel_size, stride, padding, dilation)
        conv = nn.Conv2d(in_channels, out_channels, *geometry, bias=False)
        super().__init__(conv, nn.BatchNorm2d(out_channels), neuron)


class BNLinear(BNLayer):
    """Linear (no bias), BatchNorm1d, neuron; arguments as `EILinear`."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        neuron: nn.Module | None = LIF(),  # noqa: B008 - copied, never shared
    ) -> None:
        check_sizes(type(self).__name__, "features", in_features, out_features)
        super().__init__(nn.Linear(in_features, out_features, bias=False), nn.BatchNorm1d(out_features), neuron)


class LinearReadout(nn.Linear):
    """A plain linear readout with the call of `EIReadout`: `[T, B, in_features]` -> `[T, B, out_features]`."""

    def forward(self, x: Tensor, time_steps: int | None = None, state: None = None, return_state: bool = False) -> Any:
        check_sequence(x, 3, self.in_features, time_steps, type(self).__name__)
        check_stateless(state, type(self).__name__)
        return layer_output(F.linear(x, self.weight, self.bias), None, return_state)
