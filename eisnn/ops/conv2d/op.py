"""Two-dimensional convolutions, by products of matrices where that is faster than torch's operator."""

from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from eisnn.functional.connection import Conv, Pair
from eisnn.ops import backends
from eisnn.ops.conv2d.cpu import backward_by_products, by_products, channels_inside

# Where it pays, measured on an Intel processor (docs/developers/performance.md): few positions, fewer forwards than
# backwards, which as many images share, more of them where the weights are rearranged first; weights that do not fit
# the cache.
MOST_FORWARD, MOST_BACKWARD = 36, 64
LEAST_IMAGES, LEAST_TO_REARRANGE, LEAST_WEIGHTS = 16, 64, 1 << 15
_MKL = torch.backends.mkl.is_available()


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Conv) -> Tensor:
    """As torch's, `[N, C, H, W]`, `[n, C, kh, kw]` -> `[N, n, H', W']`: by products where that is faster."""
    if not pays(x, weight, geometry, MOST_BACKWARD):
        return F.conv2d(x, weight, bias, *_options(geometry))
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        y: Tensor = _Convolution.apply(x, weight, geometry)
    else:
        y = _forward(x, weight, geometry)
    return y if bias is None else y + bias[:, None, None]


def conv2d_backward(
    grad: Tensor, x: Tensor, weight: Tensor, geometry: Conv, input_too: bool, weight_too: bool = True
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of `x` and of `weight`, where asked for, by the faster way too."""
    differentiable = torch.is_grad_enabled() and any(t.requires_grad for t in (grad, x, weight))  # as products are not
    if pays(x, weight, geometry, MOST_BACKWARD) and not differentiable:
        return backward_by_products(grad, x, weight, geometry, input_too, weight_too)
    stride, padding, dilation = map(list, _options(geometry))
    grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
        grad, x, weight, None, stride, padding, dilation, False, [0, 0], 1, [input_too, weight_too, False]
    )
    return grad_x, grad_weight


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, geometry: Conv) -> Tensor:
        ctx.geometry = geometry
        ctx.save_for_backward(x, weight)
        return _forward(x, weight, geometry)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), (input_too, weight_too, _) = ctx.saved_tensors, ctx.needs_input_grad
        return *conv2d_backward(grads[0], x, weight, ctx.geometry, input_too, weight_too), None


def _forward(x: Tensor, weight: Tensor, geometry: Conv) -> Tensor:
    rearranged = geometry.stride != (1, 1) and not channels_inside(weight)  # the sum of both costs too much
    if pays(x, weight, geometry, MOST_FORWARD) and not rearranged:
        return by_products(x, weight, geometry)
    return F.conv2d(x, weight, None, *_options(geometry))


def pays(x: Tensor, weight: Tensor, geometry: Conv, most: int) -> bool:
    """Whether products of matrices can serve these maps and weights, up to `most` positions, and are faster.

    They serve plain eager tensors: what compiles, exports, transforms or differentiates forwards knows torch's
    operator.
    """
    if torch.compiler.is_compiling() or backends.transformed() or backends.exporting():
        return False
    if not (x.is_cpu and weight.is_cpu and x.dtype == weight.dtype and x.dtype in (torch.float32, torch.float64)):
        return False
    if torch.is_autocast_enabled("cpu") or not _MKL:
        return False
    positions = prod(geometry.out_size(x, weight))
    return (
        geometry.dilation == (1, 1)
        and 0 < positions <= most
        and len(x) >= max(LEAST_IMAGES if channels_inside(weight) else LEAST_TO_REARRANGE, positions)
        and weight.shape[0] * weight.shape[1] >= LEAST_WEIGHTS
        and weight.shape[1] == x.shape[1]
    )


def _options(geometry: Conv) -> tuple[Pair, Pair, Pair]:
    """As torch's operator takes them."""
    return geometry.stride, geometry.padding, geometry.dilation
