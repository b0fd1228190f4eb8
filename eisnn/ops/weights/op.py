"""All currents of a circuit by one convolution, with a kernel that is made of its weights and not kept."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from eisnn.functional.checks import differentiated_once
from eisnn.ops.connection import Connection
from eisnn.ops.layout import channels_last, padded
from eisnn.ops.weights.matmul import products_for


class Kernel(ABC):
    """How the weights of a circuit (`sources`) make the kernel that computes its currents, and the way back."""

    tonic = False  # whether the last I neuron is active at 1 everywhere

    @abstractmethod
    def make(self, *sources: Tensor) -> tuple[Tensor, Any]:
        """The kernel `[n_E + m, ...]`, and whatever `gradients` needs besides; neither has a gradient."""

    @abstractmethod
    def gradients(self, grad: Tensor, made: Any, *sources: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the sources for that of the kernel; `made` is what `make` returned besides it."""

    def needs_currents(self, x: Tensor, currents: Tensor, *sources: Tensor) -> bool:
        """Whether `backward` wants to see the currents."""
        return False

    def backward(
        self,
        grad: Tensor,
        x: Tensor,
        currents: Tensor | None,
        connection: Connection,
        input_too: bool,
        *sources: Tensor,
    ) -> tuple[Tensor | None, ...]:
        """Gradients of `x` (if `input_too`) and of the sources for that of the currents; by the kernel, made again."""
        kernel, made = self.make(*sources)
        grad_x, grad_kernel = connection.feedforward_backward(grad, x, aligned(kernel, x.dtype), input_too)
        return grad_x, *self.gradients(grad_kernel[: len(kernel)].to(kernel.dtype), made, *sources)


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

    The kernel is not kept for the backward pass, but made again. Under autocast it is made in full precision.
    """
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    return _Projection.apply(x, kernel, connection, *sources)


class _Projection(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Kernel, connection: Connection, *sources: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False), products_for(x):
            made, _ = kernel.make(*sources)
            currents = connection.feedforward(x, aligned(made, x.dtype))
        if kernel.tonic:
            currents.select(2, len(made) - 1).fill_(1)
        ctx.kernel, ctx.connection = kernel, connection
        ctx.save_for_backward(x, currents if kernel.needs_currents(x, currents, *sources) else None, *sources)
        return currents

    @staticmethod
    @differentiated_once
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, currents, *sources = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False), products_for(x):
            grad_x, *found = ctx.kernel.backward(
                grads[0], x, currents, ctx.connection, ctx.needs_input_grad[0], *sources
            )
        return grad_x, None, None, *found
