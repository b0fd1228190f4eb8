"""Batch normalization: Conv-BN-LIF, the twin of every E-I network."""

from functools import partial
from typing import Any

from torch import Tensor, nn

from eisnn.nn.layer import Size
from eisnn.nn.neurons import LIF
from eisnn.nn.projection import LinearReadout, ProjectionLayer, plain_conv, plain_linear
from eisnn.nn.registry import Layers, register


class BNLayer(ProjectionLayer):
    """Batch normalization over the merged T*B axis between a plain projection and its neuron. A static input is
    normalized once: its T copies have the same statistics."""

    def __init__(self, projection: nn.Conv2d | nn.Linear, norm: nn.Module, neuron: nn.Module | None) -> None:
        super().__init__(projection, neuron)
        self.norm = norm

    def respond_to(self, current: Tensor, time_steps: int | None, state: Any, return_state: bool) -> tuple[Tensor, Any]:
        current = self.norm(current.flatten(0, 1)).unflatten(0, current.shape[:2])
        return super().respond_to(current, time_steps, state, return_state)

    def affine(self) -> tuple[Tensor, Tensor] | None:
        norm = self.norm
        assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        return scale, norm.bias - norm.running_mean * scale


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
        conv = plain_conv(type(self).__name__, in_channels, out_channels, kernel_size, stride, padding, dilation)
        super().__init__(conv, nn.BatchNorm2d(out_channels), neuron)


class BNLinear(BNLayer):
    """Linear (no bias), BatchNorm1d, neuron; arguments as `EILinear`."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        neuron: nn.Module | None = LIF(),  # noqa: B008 - copied, never shared
    ) -> None:
        linear = plain_linear(type(self).__name__, in_features, out_features)
        super().__init__(linear, nn.BatchNorm1d(out_features), neuron)


@register("bn")
def batch_norm(neuron: nn.Module | None, time_steps: int | None) -> Layers:
    """Conv-BN-LIF."""
    return Layers(partial(BNConv2d, neuron=neuron), partial(BNLinear, neuron=neuron), LinearReadout)
