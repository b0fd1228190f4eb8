"""2x2 average pooling of sequences of maps."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from eisnn.ops import backends


def average_pool(x: Tensor) -> Tensor:
    """2x2 average pooling of every step: `[T, B, C, H, W]` -> `[T, B, C, H // 2, W // 2]`; H and W at least 2."""
    if backends.in_triton(x) and _channels_inside(x) and not backends.transformed():
        return _forward(x)
    return F.avg_pool2d(x.flatten(0, 1), 2).unflatten(0, x.shape[:2])


def _channels_inside(x: Tensor) -> bool:
    return x.movedim(2, -1).is_contiguous()


@torch.library.custom_op("eisnn::average_pool", mutates_args=())
def _forward(x: Tensor) -> Tensor:
    from eisnn.ops.pool import triton

    return triton.forward(x.movedim(2, -1).flatten(0, 1)).unflatten(0, x.shape[:2]).movedim(-1, 2)


@_forward.register_fake
def _(x: Tensor) -> Tensor:
    steps, batch, channels, height, width = x.shape
    return x.new_empty(steps, batch, height // 2, width // 2, channels).movedim(-1, 2)


@torch.library.custom_op("eisnn::average_pool_backward", mutates_args=())
def _backward(grad: Tensor, height: int, width: int) -> Tensor:
    from eisnn.ops.pool import triton

    inside = grad.movedim(2, -1).contiguous().flatten(0, 1)
    return triton.backward(inside, height, width).unflatten(0, grad.shape[:2]).movedim(-1, 2)


@_backward.register_fake
def _(grad: Tensor, height: int, width: int) -> Tensor:
    steps, batch, channels = grad.shape[:3]
    return grad.new_empty(steps, batch, height, width, channels).movedim(-1, 2)


def _keep(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.height, ctx.width = inputs[0].shape[-2:]


def _gradient(ctx: Any, grad: Tensor) -> Tensor:
    return _backward(grad, ctx.height, ctx.width)


_forward.register_autograd(_gradient, setup_context=_keep)
