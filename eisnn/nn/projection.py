"""A plain projection and a neuron: the base of the layers that an E-I circuit replaces."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from eisnn.nn.layer import Size, SpikingLayer, check_sizes, conv_geometry, copy_neuron
from eisnn.nn.neurons import check_stateless, run_neuron
from eisnn.nn.registry import Layers
from eisnn.ops import Conv, conv2d


class ProjectionLayer(SpikingLayer):
    """A plain projection, something that keeps its currents in range, and a neuron. Subclasses say what happens to the
    currents.

    Args:
        projection: `nn.Conv2d` or `nn.Linear`, of one step.
        neuron: copied into the layer; None returns the currents.
    """

    def __init__(self, projection: nn.Conv2d | nn.Linear, neuron: nn.Module | None) -> None:
        super().__init__()
        self.projection, self.neuron = projection, copy_neuron(neuron)

    @property
    def receives(self) -> tuple[int, int]:
        p = self.projection
        return (3, p.in_features) if isinstance(p, nn.Linear) else (5, p.in_channels)

    def respond(self, x: Tensor, time_steps: int | None, state: Any, return_state: bool) -> tuple[Tensor, Any]:
        current = self.projection(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return self.respond_to(current, time_steps, state, return_state)

    def respond_to(self, current: Tensor, time_steps: int | None, state: Any, return_state: bool) -> tuple[Tensor, Any]:
        """Output and state for the projected `current` `[T or 1, B, ...]`; here the neuron's alone."""
        return run_neuron(self.neuron, current, time_steps, state, return_state)

    def affine(self) -> tuple[Tensor, Tensor] | None:
        """Scale and shift `[C]` that the currents undergo in evaluation mode at every step; None if they are not so
        simple, and cannot be merged into the projection."""
        return None

    @torch.no_grad()
    def folded(self) -> SpikingLayer:
        """One projection with the normalization after it merged into its weight and bias, where that can be."""
        if (affine := self.affine()) is None:
            return super().folded()
        scale, shift = affine
        projection = copy.deepcopy(self.projection).requires_grad_(False)
        weight, bias = projection.weight, projection.bias
        if bias is not None:
            shift = shift + scale * bias
        weight.copy_(weight * scale.view(-1, *(1,) * (weight.ndim - 1)))
        projection.bias = nn.Parameter(shift, requires_grad=False)
        return ProjectionLayer(projection, self.neuron)


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


def projected(layer: Callable[[nn.Conv2d | nn.Linear], SpikingLayer]) -> Layers:
    """Layers that `layer(projection)` makes of a projection without bias, and a plain readout."""

    def conv(*sizes: Any, **geometry: Any) -> SpikingLayer:
        return layer(plain_conv("conv", *sizes, **geometry))

    def linear(in_features: int, out_features: int) -> SpikingLayer:
        return layer(plain_linear("linear", in_features, out_features))

    return Layers(conv, linear, LinearReadout)


class LinearReadout(SpikingLayer, nn.Linear):
    """A plain linear readout: `[T, B, in_features]` -> logits `[T, B, out_features]`."""

    hidden = False
    neuron = None

    @property
    def receives(self) -> tuple[int, int]:
        return 3, self.in_features

    def respond(self, x: Tensor, time_steps: int | None, state: Any, return_state: bool) -> tuple[Tensor, Any]:
        check_stateless(state, type(self).__name__)
        return nn.functional.linear(x, self.weight, self.bias), None
