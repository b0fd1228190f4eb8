"""Leaky integrate-and-fire neurons, eqs. (1)-(4): one step, and the scan over T.

Shapes: currents and spikes `[T, B, ...]`, potentials `[B, ...]`. Current and potential are in units of the threshold
current, time in steps.

    H[t] = (1 - 1/tau) V[t-1] + I[t]        the input is not decayed
    s[t] = Heaviside(H[t] - theta)          H = theta fires
    V[t] = H[t] - theta s[t]                soft reset; hard reset: V[t] = H[t] (1 - s[t])
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from functools import cache
from math import inf
from numbers import Real
from typing import Any, Literal

import torch
from torch import Tensor

from eisnn.functional import kernels
from eisnn.functional.checks import check_state, check_steps
from eisnn.functional.kernels import native
from eisnn.functional.surrogate import SURROGATES, heaviside, surrogate_derivative


@dataclass(frozen=True)
class LIFConstants:
    """Constants of an LIF neuron.

    Args:
        tau: membrane time constant in time steps, >= 1 (1 is a neuron without memory).
        theta: firing threshold, > 0.
        reset: "soft" subtracts the threshold, "hard" sets the potential to 0.
        surrogate: name of the surrogate derivative, see `eisnn.functional.SURROGATES`.
        alpha: its width parameter; None takes its default.
        detach_reset: no gradient through the reset term (the paper's choice).
    """

    tau: float = 2.0
    theta: float = 1.0
    reset: Literal["soft", "hard"] = "soft"
    surrogate: str = "sigmoid"
    alpha: float | None = None
    detach_reset: bool = True
    # All of it as text, which is what a torch operator takes.
    code: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not (isinstance(self.tau, Real) and self.tau >= 1):
            raise ValueError(f"tau is the membrane time constant in time steps and must be >= 1, got {self.tau!r}")
        if not (isinstance(self.theta, Real) and 0 < self.theta < inf):
            raise ValueError(f"theta is the firing threshold and must be > 0 and finite, got {self.theta!r}")
        if self.reset not in ("soft", "hard"):
            raise ValueError(f'reset must be "soft" or "hard", got {self.reset!r}')
        if self.surrogate not in SURROGATES:
            raise ValueError(f"unknown surrogate {self.surrogate!r}; known: {', '.join(sorted(SURROGATES))}")
        may_be_zero = self.surrogate == "leaky_relu"
        if not (isinstance(self.width, Real) and 0 <= self.width < inf and (self.width > 0 or may_be_zero)):
            raise ValueError(
                f"alpha is the width parameter of the surrogate {self.surrogate} and must be "
                f"{'>=' if may_be_zero else '>'} 0 and finite, got {self.alpha!r}"
            )
        if not isinstance(self.detach_reset, bool):
            raise ValueError(f"detach_reset must be True or False, got {self.detach_reset!r}")
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        object.__setattr__(self, "code", json.dumps(given, default=float))

    @staticmethod
    @cache
    def decode(code: str) -> "LIFConstants":
        """The constants of this `code`, exactly."""
        return LIFConstants(**json.loads(code))

    @property
    def decay(self) -> float:
        """`1 - 1/tau`: the part of the potential that remains after one step, in [0, 1)."""
        return 1 - 1 / self.tau

    @property
    def width(self) -> float:
        """`alpha`, or the surrogate's default."""
        return SURROGATES[self.surrogate][1] if self.alpha is None else self.alpha


def lif_step(current: Tensor, v: Tensor, constants: LIFConstants) -> tuple[Tensor, Tensor]:
    """One time step of (1)-(4).

    Args:
        current: `I[t]`, `[B, ...]`.
        v: `V[t-1]`, like `current`.
    Returns: spikes `s[t]` in {0, 1} and the potential `V[t]`.
    """
    h = constants.decay * v + current
    s = heaviside(h - constants.theta, constants.surrogate, constants.alpha)
    reset = s.detach() if constants.detach_reset else s
    v = h - constants.theta * reset if constants.reset == "soft" else h * (1 - reset)
    return s, v


def lif_reference(
    current: Tensor, constants: LIFConstants, v: Tensor | None = None, time_steps: int | None = None
) -> tuple[Tensor, Tensor]:
    """The scan of `lif_step` over T, as written; ground truth of `lif`, with the same arguments."""
    steps = current.shape[0] if time_steps is None else time_steps
    v = torch.zeros_like(current[0]) if v is None else v
    spikes = []
    for i in current.expand(steps, *current.shape[1:]):
        s, v = lif_step(i, v, constants)
        spikes.append(s)
    return torch.stack(spikes), v


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
    return _forward(current, v, steps, constants.code)


def scan_(potentials: Tensor, spikes: Tensor, v: Tensor | None, constants: LIFConstants) -> Tensor:
    """Run (1)-(4) in place: `potentials` holds `I[t]` and receives `H[t]`; `spikes` receives `s[t]`.

    Returns: the potential after the last step.
    """
    for t, h in enumerate(potentials):
        if v is not None:
            h.add_(v, alpha=constants.decay)
        s = spikes[t]
        torch.ge(h, constants.theta, out=s) if s.dtype == h.dtype else s.copy_(h >= constants.theta)
        v = h.sub(s, alpha=constants.theta) if constants.reset == "soft" else torch.where(h >= constants.theta, 0, h)
    assert v is not None
    return v


def scan_backward_(
    potentials: Tensor, grad_spikes: Tensor, grad_v: Tensor | None, constants: LIFConstants
) -> tuple[Tensor, Tensor]:
    """Gradients of the scan, backwards in time; `potentials` holds `H[t]` and receives `dL/dI[t]`.

    Args:
        grad_spikes: `dL/ds[t]`, like `potentials`.
        grad_v: `dL/dV[T]` or None for 0.
    Returns: `potentials`, and `dL/dV[0]` for the potential before the first step.
    """
    soft, theta = constants.reset == "soft", constants.theta
    for t in reversed(range(potentials.shape[0])):
        h = potentials[t]
        derivative = surrogate_derivative(h - theta, constants.surrogate, constants.alpha)
        grad_h = grad_spikes[t] * derivative
        if grad_v is not None:
            if soft:
                through = grad_v if constants.detach_reset else grad_v * (1 - theta * derivative)
            else:
                through = torch.where(h >= theta, 0, grad_v)
                if not constants.detach_reset:
                    through = through - grad_v * h * derivative
            grad_h.add_(through)
        h.copy_(grad_h)
        grad_v = grad_h.mul_(constants.decay)
    assert grad_v is not None
    return potentials, grad_v


# Elements of one piece of a map: a handful of float32 buffers of this size fit a core's second-level cache.
PIECE = 1 << 16


def pieces(maps: Tensor) -> Iterator[slice]:
    """Slices of the batch axis of `maps` `[T, B, ...]` whose time steps stay in the cache; on an accelerator, where
    launching costs more than memory, the whole batch."""
    batch = maps.shape[1]
    images = max(1, PIECE // max(1, maps[0, :1].numel())) if maps.device.type == "cpu" else max(1, batch)
    return (slice(b, b + images) for b in range(0, batch, images))


@torch.library.custom_op("eisnn::lif", mutates_args=())
def _forward(
    current: Tensor,
    v: Tensor | None,
    steps: int,
    neuron: str,
) -> tuple[Tensor, Tensor]:
    """Spikes and the last potential."""
    constants = LIFConstants.decode(neuron)
    layout, shape = native.layout_of(current), (steps, *current.shape[1:])
    backend = kernels.backend(current)
    spikes = layout.empty(shape, current.dtype, current.device)
    if backend == "triton":
        from eisnn.functional.kernels import triton

        v_last = layout.empty(shape[1:], _wide(current), current.device)
        triton.forward(layout, current, *(None,) * 5, _widened(v, current), constants, spikes, v_last)
        return spikes, v_last.to(current.dtype)
    if backend == "compiled":
        v_last = layout.empty(shape[1:], _wide(current))
        maps = {"balanced": current, "spikes": spikes, "v": _widened(v, current), "v_last": v_last}
        native.run("forward", layout, constants, steps, maps)
        return spikes, v_last.to(current.dtype)
    v_last = layout.empty(shape[1:], current.dtype, current.device)
    for b in pieces(current):
        h = _own(current[:, b], steps)
        v_last[b] = scan_(h, spikes[:, b], None if v is None else v[b], constants)
    return spikes, v_last


@_forward.register_fake
def _(current: Tensor, v: Any, steps: int, *_: Any) -> Any:
    layout, shape = native.layout_of(current), (steps, *current.shape[1:])
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
    layout, backend = native.layout_of(current), kernels.backend(current)
    grad_current = layout.empty(current.shape, current.dtype, current.device)
    wide_v, wide_grad = _widened(v, current), _widened(grad_v_last, current)
    nothing = current.new_empty(0)
    if backend == "triton":
        from eisnn.functional.kernels import triton

        inputs = layout, current, *(None,) * 5, wide_v, constants, steps
        *_, grad_v = triton.backward(*inputs, grad_spikes, wide_grad, grad_current)
        return grad_current, nothing if v is None or grad_v is None else grad_v.to(v.dtype)
    if backend == "compiled":
        grad_v = None if v is None else layout.empty(v.shape, _wide(current))
        maps = {"balanced": current, "v": wide_v, "grad_v_last": wide_grad}
        maps |= {"grad_spikes": grad_spikes, "grad_balanced": grad_current, "grad_v": grad_v}
        native.run("backward", layout, constants, steps, maps)
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
    grad_current = native.layout_of(current).empty(current.shape, current.dtype, current.device)
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
