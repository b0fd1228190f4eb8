"""All currents of a circuit by one convolution, with a kernel that is made of its weights."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from eisnn.functional.checks import differentiated_once
from eisnn.ops.connection import Connection
from eisnn.ops.layout import channels_last, padded
from eisnn.ops.weights.matmul import products_for

Kept = tuple[Any, ...]
Gradients = tuple[Tensor | None, ...]


class Kernel(ABC):
    """How the weights of a circuit (`sources`) make the kernel that computes its currents, and the way back."""

    tonic = False  # whether the last I neuron is active at 1 everywhere

    @abstractmethod
    def make(self, *sources: Tensor) -> tuple[Tensor, Kept]:
        """The kernel `[n_E + m, ...]`, and what `gradients` needs of its making; neither has a gradient."""

    @abstractmethod
    def gradients(self, grad: Tensor, kernel: Tensor, kept: Kept, *sources: Tensor) -> Gradients:
        """Gradients of the sources for that of the kernel, which may change."""

    def needs_currents(self, x: Tensor, currents: Tensor, *sources: Tensor) -> bool:
        """Whether the way back is `backward_by_currents`."""
        return False

    def backward_by_currents(
        self, grad: Tensor, x: Tensor, currents: Tensor, connection: Connection, input_too: bool, *sources: Tensor
    ) -> Gradients:
        """Gradients of `x` (if `input_too`) and of the sources for that of the currents, without the kernel."""
        raise NotImplementedError(f"{type(self).__name__} defines no backward_by_currents()")


def aligned(kernel: Tensor, dtype: torch.dtype) -> Tensor:
    """In `dtype`, with rows of zeros below, up to `padded`: the matrix units of a GPU want their channels so."""
    rows, n = padded(len(kernel), kernel), len(kernel)
    if rows == n:
        return kernel.to(dtype)
    like = torch.channels_last if channels_last(kernel) else torch.contiguous_format
    whole = torch.empty(rows, *kernel.shape[1:], dtype=dtype, device=kernel.device, memory_format=like)
    whole[:n] = kernel
    whole[n:] = 0
    return whole


def project(x: Tensor, kernel: Kernel, sources: tuple[Tensor, ...], connection: Connection) -> Tensor:
    """All currents of a circuit `[T, B, n_E + m, ...]` from `x` `[T, B, ...]`, by one convolution; on CUDA there may
    be zeros below them (`aligned`).

    Under autocast the kernel is made in full precision.
    """
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    return _Projection.apply(x, kernel, connection, *sources)


class _Projection(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Kernel, connection: Connection, *sources: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False), products_for(x):
            made, kept = kernel.make(*sources)
            currents = connection.feedforward(x, aligned(made, x.dtype))
        if kernel.tonic:
            currents.select(2, len(made) - 1).fill_(1)
        ctx.kernel, ctx.connection, ctx.sources = kernel, connection, len(sources)
        kept = (currents,) if kernel.needs_currents(x, currents, *sources) else (None, made, *kept)
        ctx.save_for_backward(x, *sources, *kept)
        return currents

    @staticmethod
    @differentiated_once
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, *saved = ctx.saved_tensors
        sources, (currents, *kept) = saved[: ctx.sources], saved[ctx.sources :]
        kernel, connection, input_too = ctx.kernel, ctx.connection, ctx.needs_input_grad[0]
        with torch.autocast(x.device.type, enabled=False), products_for(x):
            if currents is not None:
                grad_x, *found = kernel.backward_by_currents(grads[0], x, currents, connection, input_too, *sources)
            else:
                made, *kept = kept
                grad_x, grad = connection.feedforward_backward(grads[0], x, aligned(made, x.dtype), input_too)
                found = kernel.gradients(grad[: len(made)].to(made.dtype), made, kept, *sources)
        return grad_x, None, None, *found
