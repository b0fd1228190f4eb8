"""Conv-BN-LIF and its kin: the layers an E-I circuit replaces, called and constructed in the same way."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from eisnn.functional.connection import Conv
from eisnn.functional.kernels.convolution import conv2d
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


class ProjectionLayer(nn.Module):
    """Base of the layers that an E-I circuit replaces: a plain projection, something that keeps its currents in range,
    and a neuron. Subclasses say what happens to the currents."""

    def __init__(self, projection: nn.Conv2d | nn.Linear, neuron: nn.Module | None) -> None:
        super().__init__()
        self.projection, self.neuron = projection, copy_neuron(neuron)

    def forward(self, x: Tensor, time_steps: int | None = None, state: Any = None, return_state: bool = False) -> Any:
        """As `EILayer.forward`. A static input is projected once."""
        p = self.projection
        axes, inputs = (3, p.in_features) if isinstance(p, nn.Linear) else (5, p.in_channels)
        check_sequence(x, axes, inputs, time_steps, type(self).__name__)
        current = self.projection(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        out, state = self._respond(current, time_steps, state, return_state)
        return layer_output(out, state, return_state)

    def _respond(self, current: Tensor, time_steps: int | None, state: Any, return_state: bool) -> tuple[Tensor, Any]:
        """Output and state for the projected `current` `[T or 1, B, ...]`; here the neuron's alone."""
        return run_neuron(self.neuron, current, time_steps, state, return_state)

    def affine(self) -> tuple[Tensor, Tensor] | None:
        """Scale and shift `[C]` that the currents undergo in evaluation mode at every step; None if they are not so
        simple, and cannot be merged into the projection."""
        return None


class BNLayer(ProjectionLayer):
    """Batch normalization over the merged T*B axis between a plain projection and its neuron. A static input is
    normalized once: its T copies have the same statistics."""

    def __init__(self, projection: nn.Conv2d | nn.Linear, norm: nn.Module, neuron: nn.Module | None) -> None:
        super().__init__(projection, neuron)
        self.norm = norm

    def _respond(self, current: Tensor, time_steps: int | None, state: Any, return_state: bool) -> tuple[Tensor, Any]:
        current = self.norm(current.flatten(0, 1)).unflatten(0, current.shape[:2])
        return super()._respond(current, time_steps, state, return_state)

    def affine(self) -> tuple[Tensor, Tensor] | None:
        norm = self.norm
        assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        return scale, norm.bias - norm.running_mean * scale


class PlainConv2d(nn.Conv2d):
    """`nn.Conv2d` computed as the convolutions of the circuits are: a comparison of the two is one of circuits."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        plain = self.groups == 1 and self.padding_mode == "zeros" and not isinstance(self.padding, str)
        if not plain or input.ndim != 4:
            return super()._conv_forward(input, weight, bias)
        return conv2d(input, weight, bias, Conv(self.stride, self.padding, self.dilation))  # type: ignore[arg-type]


def plain_conv(
    owner: str,
    in_channels: int,
    out_channels: int,
    kernel_size: Size,
    stride: Size = 1,
    padding: Size = 0,
    dilation: Size = 1,
) -> nn.Conv2d:
    """The bias-free convolution of a layer called `owner`; ValueError that names the argument."""
    check_sizes(owner, "channels", in_channels, out_channels)
    return PlainConv2d(
        in_channels, out_channels, *conv_geometry(owner, kernel_size, stride, padding, dilation), bias=False
    )


def plain_linear(owner: str, in_features: int, out_features: int) -> nn.Linear:
    """The bias-free linear projection of a layer called `owner`; ValueError that names the argument."""
    check_sizes(owner, "features", in_features, out_features)
    return nn.Linear(in_features, out_features, bias=False)


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


class LinearReadout(nn.Linear):
    """A plain linear readout with the call of `EIReadout`: `[T, B, in_features]` -> `[T, B, out_features]`."""

    def forward(self, x: Tensor, time_steps: int | None = None, state: None = None, return_state: bool = False) -> Any:
        check_sequence(x, 3, self.in_features, time_steps, type(self).__name__)
        check_stateless(state, type(self).__name__)
        return layer_output(F.linear(x, self.weight, self.bias), None, return_state)
