"""Checks of shapes and counts, in plain Python, so that `torch.compile` takes them as they are."""

from collections.abc import Callable, Sequence
from functools import wraps
from numbers import Integral
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad


def is_int(value: Any, least: int) -> bool:
    """Whether `value` is an integer >= `least`; a boolean is none."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def check_int(owner: str, name: str, value: Any, least: int = 1) -> None:
    """Raise ValueError unless the argument `name` of `owner` is an int >= `least`."""
    if not is_int(value, least):
        raise ValueError(f"{owner}: {name} must be an int >= {least}, got {value!r}")


def chosen_neurons(owner: str, given: Any, count: int, kind: str) -> Tensor:
    """A mask `[count]` of the neurons that are `given` by their indices or by such a mask; ValueError for others."""
    found = torch.as_tensor(given)
    if found.dtype is torch.bool and found.shape == (count,):
        return found
    chosen = torch.zeros(count, dtype=torch.bool)
    if found.numel() == 0:
        return chosen
    whole = not found.is_floating_point() and found.dtype is not torch.bool
    if not whole or found.ndim != 1 or not bool(((found >= 0) & (found < count)).all()):
        raise ValueError(
            f"neurons of {owner} must be indices of its {count} {kind}, 0 to {count - 1}, or a boolean mask "
            f"[{count}], got {given}"
        )
    if len(found.unique()) < len(found):
        raise ValueError(
            f"neurons of {owner} must be indices of its {count} {kind}, each once, got {given} (a mask of 0 and 1? "
            "make it boolean)"
        )
    chosen[found.long()] = True
    return chosen


def check_steps(owner: str, shape: Sequence[int], time_steps: int | None) -> int:
    """T of maps `[T, B, ...]`; ValueError unless their first axis is `time_steps`, where that is given, or 1."""
    if time_steps is None:
        return shape[0]
    check_int(owner, "time_steps", time_steps)
    if shape[0] not in (1, time_steps):
        raise ValueError(
            f"{owner}: the first axis is time and must be time_steps={time_steps}, or 1 for a static input; "
            f"got shape {list(shape)} (is it [B, T, ...]?)"
        )
    return time_steps


def check_state(state: Any, shape: Sequence[int]) -> None:
    """Raise ValueError unless `state` is None or potentials of exactly this `shape`: none may be broadcast."""
    if state is None:
        return
    if not isinstance(state, Tensor) or not state.is_floating_point() or state.shape != tuple(shape):
        given = f"{state.dtype} of shape {list(state.shape)}" if isinstance(state, Tensor) else type(state).__name__
        raise ValueError(
            f"the state of LIF neurons is one floating-point tensor [B, n_E, ...], here of shape {list(shape)}, got "
            f"{given}; pass what was returned for a batch of this size"
        )


def check_reverse_mode(owner: str, *tensors: Tensor | None) -> None:
    """Raise NotImplementedError if one of `tensors` carries a tangent (`torch.func.jvp`, `jacfwd`, forward-mode
    autograd): an operator of ours would drop it, and the derivative be 0."""
    if forward_ad._current_level < 0:
        return
    present = [x for x in tensors if x is not None and x.is_floating_point()]
    # What is compiled does not see the tangents that it makes itself.
    if torch.compiler.is_compiling() or any(forward_ad.unpack_dual(x).tangent is not None for x in present):
        raise NotImplementedError(
            f"{owner} has no forward-mode derivative (jvp, jacfwd): take reverse mode (backward, torch.autograd.grad, "
            "torch.autograd.functional.jvp)"
        )


def differentiated_once(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Of the `backward` of an autograd function: raise NotImplementedError where its gradients are to be differentiated
    again (`create_graph=True`). Torch's `once_differentiable` is silent in `torch.autograd.grad`, which then takes a
    gradient penalty for a constant."""

    @wraps(backward)
    def checked(ctx: Any, *grads: Any) -> Any:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise NotImplementedError(
                "circuits have no second derivatives (create_graph=True, gradient penalties): write the layer with "
                "eisnn.functional, whose operations are torch's own"
            )
        with torch.no_grad():
            return backward(ctx, *grads)

    return checked
