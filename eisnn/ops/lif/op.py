"""Leaky integrate-and-fire neurons over T steps, as one autograd node."""

from typing import Any

import torch
from torch import Tensor

from eisnn.functional.checks import check_reverse_mode, check_state, check_steps
from eisnn.functional.lif import LIFConstants
from eisnn.ops import backends
from eisnn.ops.layout import layout_of
from eisnn.ops.population import cpu
from eisnn.ops.scan import pieces, scan_, scan_backward_


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
    backend = backends.of_neurons(current, constants)
    spikes = layout.empty(shape, current.dtype, current.device)
    if backend == "triton":
        from eisnn.ops.population import triton

        v_last = layout.empty(shape[1:], _wide(current), current.device)
        triton.forward(layout, current, *(None,) * 5, _widened(v, current), constants, spikes, v_last)
        return spikes, v_last.to(current.dtype)
    if backend == "compiled":
        v_last = layout.empty(shape[1:], _wide(current))
        maps = {"balanced": current, "spikes": spikes, "v": _widened(v, current), "v_last": v_last}
        cpu.run("forward", layout, constants, steps, maps)
        return spikes, v_last.to(current.dtype)
    v_last = layout.empty(shape[1:], current.dtype, current.device)
    for b in pieces(current):
        h = _own(current[:, b], steps)
        v_last[b] = scan_(h, spikes[:, b], None if v is None else v[b], constants)
    return spikes, v_last


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
    layout, backend = layout_of(current), backends.of_neurons(current, constants)
    grad_current = layout.empty(current.shape, current.dtype, current.device)
    wide_v, wide_grad = _widened(v, current), _widened(grad_v_last, current)
    nothing = current.new_empty(0)
    if backend == "triton":
        from eisnn.ops.population import triton

        inputs = layout, current, *(None,) * 5, wide_v, constants, steps
        *_, grad_v = triton.backward(*inputs, grad_spikes, wide_grad, grad_current)
        return grad_current, nothing if v is None or grad_v is None else grad_v.to(v.dtype)
    if backend == "compiled":
        grad_v = None if v is None else layout.empty(v.shape, _wide(current))
        maps = {"balanced": current, "v": wide_v, "grad_v_last": wide_grad}
        maps |= {"grad_spikes": grad_spikes, "grad_balanced": grad_current, "grad_v": grad_v}
        cpu.run("backward", layout, constants, steps, maps)
        return grad_current, nothing if v is None or grad_v is None else grad_v.to(v.dtype)
    grad_v = None if v is None else torch.empty_like(v)
    for b in pieces(current):
        h = _own(current[:, b], steps)
        scratch = torch.empty_like(h)
        scan_(h, scratch, None if v is None else v[b], constants)
        upstream = scratch.zero_() if grad_spikes is None else grad_spikes[:, b]
        delta, before = scan_backward_(h, upstream, None if grad_v_last is None else grad_v_last[b], constants)
        grad_current[:, b] = delta.sum(0, keepdim=True) if delta.shape[0] != current.shape[0] else delta
        if grad_v is not None:
            grad_v[b] = before
    return grad_current, nothing if grad_v is None else grad_v


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


def _own(current: Tensor, steps: int) -> Tensor:
    """A copy of `current`, repeated to `steps`."""
    return current.expand(steps, *current.shape[1:]).clone()


def _wide(current: Tensor) -> torch.dtype:
    return torch.promote_types(current.dtype, torch.float32)


def _widened(v: Tensor | None, current: Tensor) -> Tensor | None:
    return None if v is None else v.to(_wide(current))
