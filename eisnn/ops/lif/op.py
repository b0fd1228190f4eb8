"""Leaky integrate-and-fire neurons over T steps, as one autograd node."""

from typing import Any

import torch
from torch import Tensor

from eisnn import functional
from eisnn.functional.checks import check_reverse_mode, check_state, check_steps
from eisnn.functional.lif import LIFConstants
from eisnn.ops.backends import exporting
from eisnn.ops.layout import layout_of
from eisnn.ops.lif.torch import NEURONS


def lif(
    current: Tensor, constants: LIFConstants, v: Tensor | None = None, time_steps: int | None = None
) -> tuple[Tensor, Tensor]:
    """Spikes of LIF neurons over T steps, eqs. (1)-(4); one autograd node that keeps its input alone.

    Args:
        current: `[T, B, ...]`; or `[1, B, ...]` with `time_steps=T`, a current that is the same at every step.
        constants: see `LIFConstants`.
        v: potential before the first step, `[B, ...]`; None is 0.
        time_steps: T, where `current` holds a single step.
    Returns: spikes `[T, B, ...]` in {0, 1} and the potential after the last step `[B, ...]`.
    Raises: ValueError for a number of steps or a shape of `v` that does not fit.
    """
    steps = check_steps("lif", current.shape, time_steps)
    check_state(v, current.shape[1:])
    check_reverse_mode("lif", current, v)
    if exporting():
        return functional.lif(current, constants, v, time_steps)
    return _forward(current, v, steps, constants.code)


@torch.library.custom_op("eisnn::lif", mutates_args=())
def _forward(
    current: Tensor,
    v: Tensor | None,
    steps: int,
    neuron: str,
) -> tuple[Tensor, Tensor]:
    """Spikes and the last potential."""
    constants = LIFConstants.decode(neuron)
    layout, shape = layout_of(current), (steps, *current.shape[1:])
    spikes = layout.empty(shape, current.dtype, current.device)
    v_last = NEURONS(current, constants)(current, v, constants, steps).forward(spikes)
    return spikes, v_last.to(current.dtype)


@_forward.register_fake
def _(current: Tensor, v: Any, steps: int, *_: Any) -> Any:
    layout, shape = layout_of(current), (steps, *current.shape[1:])
    return tuple(layout.empty(size, current.dtype, current.device) for size in (shape, shape[1:]))


@torch.library.custom_op("eisnn::lif_backward", mutates_args=())
def _backward(
    current: Tensor,
    v: Tensor | None,
    grad_spikes: Tensor | None,
    grad_v_last: Tensor | None,
    steps: int,
    neuron: str,
) -> tuple[Tensor, Tensor]:
    """Gradients of the current and of the first potential (empty without one); the trajectory is computed again."""
    constants = LIFConstants.decode(neuron)
    grad_current = layout_of(current).empty(current.shape, current.dtype, current.device)
    neurons = NEURONS(current, constants)(current, v, constants, steps)
    grad_v = neurons.backward(grad_spikes, grad_v_last, grad_current)
    return grad_current, current.new_empty(0) if v is None or grad_v is None else grad_v.to(v.dtype)


@_backward.register_fake
def _(current: Tensor, v: Any, *_: Any) -> Any:
    grad_current = layout_of(current).empty(current.shape, current.dtype, current.device)
    return grad_current, current.new_empty(0) if v is None else torch.empty_like(v)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    current, v, *ctx.rest = inputs
    ctx.save_for_backward(current, v)
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, grad_spikes: Tensor | None, grad_v_last: Tensor | None) -> tuple[Any, ...]:
    grad_current, grad_v = _backward(*ctx.saved_tensors, grad_spikes, grad_v_last, *ctx.rest)
    return (grad_current, grad_v if ctx.needs_input_grad[1] else None, *(None,) * len(ctx.rest))


_forward.register_autograd(_gradients, setup_context=_keep)
