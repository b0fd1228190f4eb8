"""The hot operation: divisive inhibition, stabilisation, division, gain, bias and LIF over T, eqs. (13)-(15).

`eisnn.functional.population` composes the readable pieces and is the ground truth. `population` is one autograd node
that keeps only its stacked input currents: the divisive current and the membrane trajectory are computed again in the
backward pass. What it does element by element runs compiled (cpu.py) or in Triton (gpu.py), else in torch operations.

Forward and backward are registered with torch, so that `torch.compile` takes them as they are.
"""

from typing import Any

import torch
from torch import Tensor

from eisnn import functional
from eisnn.functional.checks import check_reverse_mode, check_state, check_steps
from eisnn.functional.lif import LIFConstants
from eisnn.ops.backends import exporting
from eisnn.ops.layout import layout_of, padded
from eisnn.ops.population.torch import POPULATIONS, Population


def population(
    currents: Tensor,
    weight: Tensor,
    gain_e: Tensor,
    bias: Tensor,
    constants: LIFConstants,
    v: Tensor | None = None,
    time_steps: int | None = None,
    *,
    tonic: bool = False,
) -> tuple[Tensor, Tensor]:
    """Spikes of an E population from its stacked currents, over all time steps.

    Division, membrane and gradients are computed in at least float32, whatever the dtype of the currents.

    Args:
        currents: `I_EE - I_sub` and `I_IE` stacked, `[T, B, n_E + n_I, ...]`, see `stacked_currents`; or
            `[1, B, n_E + n_I, ...]` with `time_steps=T` for a static input. On CUDA, up to the next multiple
            of 16, there may be more below them, which change nothing.
        weight: `M = W_EI diag(g_I)` `[n_E, n_I]`, >= 0.
        gain_e, bias: `[n_E]`.
        constants: of the LIF neuron.
        v: potential before the first step, `[B, n_E, ...]`; None is 0.
        time_steps: T, where `currents` holds a single step.
        tonic: the current of the last I neuron is 1 everywhere, and its weights are positive (semisaturation): then
            `I_div` is positive and nothing is stabilised. That current may get no gradient.
    Returns: spikes `[T, B, n_E, ...]` in the dtype of `currents`, and the potential after the last step
        `[B, n_E, ...]` in at least float32.
    Raises: ValueError for a number of steps, a shape or a device that does not fit; TypeError for currents that are no
        floating-point numbers.
    """
    if 0 in currents.shape[:2]:
        raise ValueError(f"population takes at least one time step and one image, got shape {list(currents.shape)}")
    if not currents.is_floating_point():
        raise TypeError(f"population takes floating-point currents, got {currents.dtype}")
    steps = check_steps("population", currents.shape, time_steps)
    n = sum(weight.shape)
    stacked = weight.ndim == 2 and currents.ndim >= 3 and currents.shape[2] in (n, padded(n, currents))
    if not (stacked and gain_e.shape == bias.shape == weight.shape[:1]):
        raise ValueError(
            "population takes currents [T, B, n_E + n_I, ...], weight [n_E, n_I], gain_e and bias [n_E]; got shapes "
            f"{list(currents.shape)}, {list(weight.shape)}, {list(gain_e.shape)} and {list(bias.shape)}"
        )
    check_state(v, (currents.shape[1], len(weight), *currents.shape[3:]))
    check_reverse_mode("population", currents, weight, gain_e, bias, v)
    devices = [x.device for x in (currents, weight, gain_e, bias, v) if x is not None]
    if any(device != currents.device for device in devices):
        raise ValueError(f"population takes tensors on one device, got them on {', '.join(map(str, devices))}")
    weight = weight.to(currents.dtype)
    if exporting():
        return functional.population(currents[:, :, :n], weight, gain_e, bias, constants, v, time_steps)
    spikes, v_last, _ = _forward(currents, weight, gain_e, bias, v, steps, constants.code, tonic)
    return spikes, v_last


@torch.library.custom_op("eisnn::population", mutates_args=())
def _forward(
    currents: Tensor,
    weight: Tensor,
    gain_e: Tensor,
    bias: Tensor,
    v: Tensor | None,
    steps: int,
    neuron: str,
    tonic: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes, last potential, and the smallest positive divisive current of each sample `[T, B, 1, ...]`."""
    constants = LIFConstants.decode(neuron)
    with torch.autocast(currents.device.type, enabled=False):
        return _on_best(currents, weight, gain_e, bias, v, constants, steps, tonic).forward()


@_forward.register_fake
def _(currents: Tensor, weight: Tensor, gain_e: Tensor, bias: Tensor, v: Any, steps: int, *_: Any) -> Any:
    layout, wide = layout_of(currents, len(weight)), torch.promote_types(currents.dtype, torch.float32)
    shape = (steps, currents.shape[1], len(weight), *currents.shape[3:])
    spikes = layout.empty(shape, currents.dtype, currents.device)
    sample = (*currents.shape[:2], *(1,) * (currents.ndim - 2))
    return spikes, layout.empty(shape[1:], wide, currents.device), currents.new_empty(sample, dtype=wide)


@torch.library.custom_op("eisnn::population_backward", mutates_args=())
def _backward(
    currents: Tensor,
    weight: Tensor,
    smallest: Tensor,
    gain_e: Tensor,
    bias: Tensor,
    v: Tensor | None,
    grad_spikes: Tensor | None,
    grad_v_last: Tensor | None,
    steps: int,
    neuron: str,
    tonic: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the currents, of `M`, gain, bias and of the first potential (empty without one)."""
    constants = LIFConstants.decode(neuron)
    grad_currents = torch.empty_like(currents)
    grad_currents[:, :, sum(weight.shape) :] = 0
    with torch.autocast(currents.device.type, enabled=False):
        of = _on_best(currents, weight, gain_e, bias, v, constants, steps, tonic)
        found = of.backward(smallest, grad_spikes, grad_v_last, grad_currents)
    grad_v = gain_e.new_empty(0) if v is None or found.v is None else found.v.to(v.dtype)
    grad_weight = found.weight.to(weight.dtype).contiguous()
    return grad_currents, grad_weight, found.gain.to(gain_e.dtype), found.bias.to(bias.dtype), grad_v


@_backward.register_fake
def _(currents: Tensor, weight: Tensor, smallest: Tensor, gain_e: Tensor, bias: Tensor, v: Any, *_: Any) -> Any:
    grad_v = gain_e.new_empty(0) if v is None else torch.empty_like(v)
    return (*tuple(torch.empty_like(x) for x in (currents, weight, gain_e, bias)), grad_v)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    currents, weight, gain_e, bias, v, *ctx.rest = inputs
    ctx.save_for_backward(currents, weight, output[2], gain_e, bias, v)
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, grad_spikes: Tensor | None, grad_v_last: Tensor | None, _: Any) -> tuple[Any, ...]:
    *grads, grad_v = _backward(*ctx.saved_tensors, grad_spikes, grad_v_last, *ctx.rest)
    return (*grads, grad_v if ctx.needs_input_grad[4] else None, *(None,) * len(ctx.rest))


_forward.register_autograd(_gradients, setup_context=_keep)


def _on_best(
    currents: Tensor,
    weight: Tensor,
    gain_e: Tensor,
    bias: Tensor,
    v: Tensor | None,
    constants: LIFConstants,
    steps: int,
    tonic: bool,
) -> Population:
    """The operation by the back end that serves it best."""
    wide = torch.promote_types(currents.dtype, torch.float32)
    gain, offset, v = gain_e.to(wide), bias.to(wide), None if v is None else v.to(wide)
    return POPULATIONS(currents, constants)(currents, weight, gain, offset, v, constants, steps, tonic)
