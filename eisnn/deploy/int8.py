"""Inference in int8 on CPUs: weights of 8 bits, spikes as they are, products summed exactly (oneDNN).

A convolution that sees spikes, or averages of four, loses nothing at its input: all values are multiples of 1/4. Only
its weights are rounded, with one scale for each kernel row.
"""

from typing import Any

import torch
from torch import Tensor, nn

from eisnn import ops
from eisnn.nn import fold
from eisnn.nn.inference import FoldedLayer
from eisnn.nn.projection import ProjectionLayer

QUANTUM = 0.25  # of the inputs
LARGEST = 255 * QUANTUM


class Int8Conv2d(nn.Module):
    """A convolution for inference with int8 weights; `[N, C, H, W]` in multiples of 1/4, 0 to 63.75, to float32.

    Args:
        weight: `[n, C, kh, kw]`, rounded to 255 levels in each row.
        geometry: stride, padding, dilation.
        bias: `[n]` or None.
    """

    def __init__(self, weight: Tensor, geometry: ops.Conv, bias: Tensor | None = None) -> None:
        super().__init__()
        self.in_channels = weight.shape[1]
        self.around = list(geometry.stride), list(geometry.padding), list(geometry.dilation), 1
        self.scale = weight.abs().amax((1, 2, 3)).clamp_min(1e-30) / 127
        rounded = (weight / self.scale.view(-1, 1, 1, 1)).round().to(torch.int8)
        self.zero = torch.zeros(len(weight), dtype=torch.long)
        self.bias = bias
        self.packed = torch.ops.onednn.qconv_prepack(rounded, self.scale, QUANTUM, 0, *self.around, None)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(
            "an int8 network can be neither copied, saved, folded nor quantized again: keep the network that it was "
            "made from"
        )

    def forward(self, x: Tensor) -> Tensor:
        small = x.div(QUANTUM).to(torch.uint8)
        weight = self.packed, self.scale, self.zero, self.bias
        form: tuple[Any, ...] = (1.0, 0, torch.float32, "none", [], "")
        y: Tensor = torch.ops.onednn.qconv_pointwise(small, QUANTUM, 0, *weight, *self.around, *form)
        return y


class _Int8Connection:
    """Stands for the `Conv` of a folded layer; its weights are inside."""

    spatial = 2

    def __init__(self, conv: Int8Conv2d) -> None:
        self.conv = conv

    def feedforward(self, x: Tensor, weight: Tensor) -> Tensor:
        return self.conv(x.flatten(0, 1)).unflatten(0, x.shape[:2])


@torch.no_grad()
def quantize(model: nn.Module, images: Tensor) -> nn.Module:
    """A separate network for inference whose convolutions of spikes run in int8; `model` stays as it is.

    The first layer, which sees pixels, dense layers and the readout stay in float32, as does each convolution whose
    input on `images` is not made of multiples of 1/4 up to 63.75.

    Args:
        model: float32, on the CPU, initialised; folded or not.
        images: what the model takes; they decide what is quantized, not how.
    Returns: a copy in evaluation mode, for float32 inputs. It is not saved: keep `model`, and quantize again.
    Raises: ValueError if nothing can be quantized, or the model is not in float32 on the CPU; RuntimeError where torch
        has no int8 convolution.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point() and (tensor.dtype != torch.float32 or tensor.device.type != "cpu"):
            raise ValueError(f"quantize takes a float32 network on the CPU, got {tensor.dtype} on {tensor.device}")
    if not hasattr(torch.ops.onednn, "qconv_pointwise"):
        raise RuntimeError("this build of torch has no int8 convolution (oneDNN); run eisnn.fold(model) in float32")
    model = fold(model)
    layers = [m for m in model.modules() if isinstance(m, FoldedLayer) or type(m) is ProjectionLayer]
    exact: dict[nn.Module, bool] = {}

    def look(layer: nn.Module, args: Any, kwargs: Any) -> None:
        x = args[0] if args else kwargs["x"]
        steps = x / QUANTUM
        fits = bool((steps == steps.round()).all() and (steps >= 0).all() and (x <= LARGEST).all())
        exact[layer] = x.ndim == 5 and exact.get(layer, True) and fits

    handles = [layer.register_forward_pre_hook(look, with_kwargs=True) for layer in layers]
    try:
        model(images)
    finally:
        for handle in handles:
            handle.remove()
    if not any(exact.values()):
        raise ValueError(f"{type(model).__name__} has no convolution of spikes: nothing would run in int8")
    for layer, fits in exact.items():
        if fits:
            _quantize_layer(layer)
    return model


def _quantize_layer(layer: nn.Module) -> None:
    if isinstance(layer, FoldedLayer):
        assert isinstance(layer.connection, ops.Conv)
        layer.connection = _Int8Connection(Int8Conv2d(layer.kernel, layer.connection))  # type: ignore[assignment]
    elif isinstance(layer, ProjectionLayer):
        p = layer.projection
        geometry = ops.Conv(p.stride, p.padding, p.dilation)  # type: ignore[arg-type]
        layer.projection = Int8Conv2d(p.weight, geometry, p.bias)  # type: ignore[assignment]
