"""The hot operation: stabilise, divide, gain, bias and LIF over all T steps, eqs. (14)-(15) with Algorithm 2.

`population_reference` composes the readable pieces and is the ground truth. `population` is one autograd node that
works through the batch in pieces that stay in the cache, keeps only its two input currents and computes the
membrane trajectory again in the backward pass.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from eisnn.functional.circuit import integrate
from eisnn.functional.connection import per_neuron
from eisnn.functional.lif import LIFConstants, lif_reference, pieces, scan_, scan_backward_
from eisnn.functional.stabilize import replace_zeros, smallest_positive


def population_reference(
    balanced: Tensor,
    i_div: Tensor,
    gain_e: Tensor,
    bias: Tensor,
    constants: LIFConstants,
    v: Tensor | None = None,
    time_steps: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Eqs. (14)-(15) as written; same arguments as `population`."""
    return lif_reference(integrate(balanced, i_div, gain_e, bias), constants, v, time_steps)


def population(
    balanced: Tensor,
    i_div: Tensor,
    gain_e: Tensor,
    bias: Tensor,
    constants: LIFConstants,
    v: Tensor | None = None,
    time_steps: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Spikes of an E population from its two currents, over all time steps.

    Division, membrane and gradients are computed in at least float32, whatever the dtype of the currents.

    Args:
        balanced: `I_EE - I_sub`, `[T, B, n_E, ...]`; or `[1, B, n_E, ...]` with `time_steps=T` for a static input.
        i_div: divisive current, like `balanced`, >= 0.
        gain_e, bias: `[n_E]`.
        constants: of the LIF neuron.
        v: potential before the first step, `[B, n_E, ...]`; None is 0.
    Returns: spikes `[T, B, n_E, ...]` in the dtype of `balanced`, and the potential after the last step
        `[B, n_E, ...]` in at least float32.
    """
    steps = balanced.shape[0] if time_steps is None else time_steps
    return _Population.apply(balanced, i_div, gain_e, bias, v, constants, steps)


def _currents(balanced: Tensor, i_div: Tensor, smallest: Tensor) -> tuple[Tensor, Tensor]:
    """`q = N / I_div~` and `I_div~`, in at least float32."""
    wide = torch.promote_types(i_div.dtype, torch.float32)
    i_div = replace_zeros(i_div, smallest).to(wide)
    return balanced / i_div, i_div


def _potentials(q: Tensor, gain_e: Tensor, bias: Tensor, steps: int) -> Tensor:
    """`I_E` at each step, in memory of its own: what `scan_` turns into `H`."""
    i_e = torch.addcmul(per_neuron(bias, q), q, per_neuron(gain_e, q))
    return i_e if steps == i_e.shape[0] else i_e.expand(steps, *i_e.shape[1:]).clone()


class _Population(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        balanced: Tensor,
        i_div: Tensor,
        gain_e: Tensor,
        bias: Tensor,
        v: Tensor | None,
        constants: LIFConstants,
        steps: int,
    ) -> tuple[Tensor, Tensor]:
        wide = torch.promote_types(i_div.dtype, torch.float32)
        gain, offset = gain_e.to(wide), bias.to(wide)
        smallest = i_div.new_empty((*i_div.shape[:2], *(1,) * (i_div.ndim - 2)))
        spikes = torch.empty_like(i_div.expand(steps, *i_div.shape[1:]), dtype=balanced.dtype)
        v_last = torch.empty_like(i_div[0], dtype=wide)
        for b in pieces(i_div):
            smallest[:, b] = smallest_positive(i_div[:, b])
            q, _ = _currents(balanced[:, b], i_div[:, b], smallest[:, b])
            h = _potentials(q, gain, offset, steps)
            v_last[b] = scan_(h, spikes[:, b], None if v is None else v[b].to(wide), constants)
        ctx.save_for_backward(balanced, i_div, smallest, gain_e, bias, v)
        ctx.constants, ctx.steps = constants, steps
        ctx.set_materialize_grads(False)
        return spikes, v_last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        balanced, i_div, smallest, gain_e, bias, v = ctx.saved_tensors
        grad_spikes, grad_v_last = grads
        wide = torch.promote_types(i_div.dtype, torch.float32)
        gain, offset = gain_e.to(wide), bias.to(wide)
        others = tuple(a for a in range(i_div.ndim) if a != 2)
        grad_balanced, grad_i_div = torch.empty_like(i_div, dtype=balanced.dtype), torch.empty_like(i_div)
        grad_gain, grad_bias = torch.zeros_like(gain), torch.zeros_like(offset)
        grad_v = None if v is None else torch.empty_like(v)
        for b in pieces(i_div):
            q, divisor = _currents(balanced[:, b], i_div[:, b], smallest[:, b])
            h = _potentials(q, gain, offset, ctx.steps)
            scratch = torch.empty_like(h)
            scan_(h, scratch, None if v is None else v[b].to(wide), ctx.constants)
            upstream = scratch.zero_() if grad_spikes is None else grad_spikes[:, b]
            delta, before = scan_backward_(h, upstream, None if grad_v_last is None else grad_v_last[b], ctx.constants)
            if grad_v is not None:
                grad_v[b] = before
            if delta.shape[0] != q.shape[0]:
                delta = delta.sum(0, keepdim=True)
            grad_bias += delta.sum(others)
            grad_gain += (delta * q).sum(others)
            nbar = delta.mul_(per_neuron(gain, delta)).div_(divisor)
            grad_balanced[:, b] = nbar
            grad_i_div[:, b] = nbar.mul_(q).neg_()
        return grad_balanced, grad_i_div, grad_gain.to(gain_e.dtype), grad_bias.to(bias.dtype), grad_v, None, None
