"""How one population projects to another, fast, and the way back."""

from dataclasses import dataclass

from torch import Tensor

from eisnn import functional
from eisnn.ops.conv2d.op import conv2d, conv2d_backward

Gradients = tuple[Tensor | None, Tensor]  # of the input, where it was asked for, and of the weight


@dataclass(frozen=True)
class Dense(functional.Dense):
    """All-to-all: `x` `[T, B, d]`, weights `[n, d]`."""

    def feedforward_backward(self, grad: Tensor, x: Tensor, weight: Tensor, input_too: bool) -> Gradients:
        """Gradients of `feedforward` for that of its output, `[T, B, n]`."""
        return (grad @ weight if input_too else None), grad.flatten(0, 1).T @ x.flatten(0, 1)


@dataclass(frozen=True)
class Conv(functional.Conv):
    """Convolution: `x` `[T, B, C, H, W]`, weights `[n, C, kh, kw]`."""

    def feedforward(self, x: Tensor, weight: Tensor) -> Tensor:
        """`W x`: `[T, B, C, H, W]` -> `[T, B, n, H', W']`."""
        return conv2d(x.flatten(0, 1), weight, None, self).unflatten(0, x.shape[:2])

    def feedforward_backward(self, grad: Tensor, x: Tensor, weight: Tensor, input_too: bool) -> Gradients:
        """Gradients of `feedforward` for that of its output, `[T, B, n, H', W']`."""
        grad_x, grad_weight = conv2d_backward(grad.flatten(0, 1), x.flatten(0, 1), weight, self, input_too)
        assert grad_weight is not None
        return None if grad_x is None else grad_x.unflatten(0, x.shape[:2]), grad_weight


Connection = Dense | Conv
