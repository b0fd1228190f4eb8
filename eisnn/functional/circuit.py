"""The E-I circuit, eqs. (9)-(14): as written, and folded (one stacked kernel) to the same function at less cost.

d, n_E, n_I   fan-in, number of E and I neurons (channels)
x             [T, B, C, ...]   input of one layer, >= 0
weight_ee     [n_E, d]         W_EE >= 0 (a convolution: [n_E, C, kh, kw])
weight_ie     [n_I, d]         W_IE >= 0
weight_ei     [n_E, n_I]       W_EI >= 0
gain_i        [n_I]            g_I >= 0, strength of divisive inhibition
gain_e, bias  [n_E]            g_E >= 0 and b_E
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from eisnn.functional.connection import Connection, by_position, fan_in, lateral, per_neuron
from eisnn.functional.kernels.matmul import matmul
from eisnn.functional.stabilize import stabilize


class Currents(NamedTuple):
    """Input currents of the E population, eqs. (9)-(13), each `[T, B, n_E, ...]` and >= 0."""

    i_ee: Tensor
    i_sub: Tensor
    i_div: Tensor


class FoldedCurrents(NamedTuple):
    """The currents that matter: `balanced` = `I_EE - I_sub` (any sign) and `i_div` >= 0, each `[T, B, n_E, ...]`."""

    balanced: Tensor
    i_div: Tensor


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * ctx.factor, None


def scale_gradient(weight: Tensor, factor: float) -> Tensor:
    """Identity whose gradient is multiplied by `factor`; E-I Prop scales that of `weight_ei` by `1/d`."""
    return _ScaleGradient.apply(weight, factor)


def ei_currents(
    x: Tensor, weight_ee: Tensor, weight_ie: Tensor, weight_ei: Tensor, gain_i: Tensor, connection: Connection
) -> Currents:
    """Eqs. (9)-(13) as written: five projections, each current on its own.

    The I neuron is fast spiking without memory, `s_I = ReLU(I_IE)`, eqs. (5)-(8); as `I_IE >= 0` that is the
    identity, with derivative 1 at `I_IE = 0` too.
    """
    weight_ei = scale_gradient(weight_ei, 1 / fan_in(weight_ee))
    i_ee = connection.feedforward(x, weight_ee)
    s_i = connection.feedforward(x, weight_ie)
    i_sub = lateral(s_i, weight_ei)
    i_div = lateral(per_neuron(gain_i, s_i) * s_i, weight_ei)
    return Currents(i_ee, i_sub, i_div)


def integrate(balanced: Tensor, i_div: Tensor, gain_e: Tensor, bias: Tensor) -> Tensor:
    """Eq. (14): `I_E = g_E (I_EE - I_sub) / I_div~ + b_E`, `[T, B, n_E, ...]`, with adaptive stabilisation.

    The division is done in at least float32, whatever the dtype of the currents.
    """
    wide = torch.promote_types(balanced.dtype, torch.float32)
    q = balanced.to(wide) / stabilize(i_div).to(wide)
    i_e = per_neuron(gain_e, q) * q + per_neuron(bias, q)
    return i_e.to(torch.promote_types(balanced.dtype, gain_e.dtype))


def ei_circuit(
    x: Tensor,
    weight_ee: Tensor,
    weight_ie: Tensor,
    weight_ei: Tensor,
    gain_i: Tensor,
    gain_e: Tensor,
    bias: Tensor,
    connection: Connection,
) -> Tensor:
    """The readable reference of eqs. (9)-(14): `x` `[T, B, C, ...]` -> `I_E` `[T, B, n_E, ...]`."""
    i_ee, i_sub, i_div = ei_currents(x, weight_ee, weight_ie, weight_ei, gain_i, connection)
    return integrate(i_ee - i_sub, i_div, gain_e, bias)


def fold(weight_ee: Tensor, weight_ie: Tensor, weight_ei: Tensor) -> Tensor:
    """The signed kernel `W = W_EE - W_EI W_IE` of the balanced current, shaped like `weight_ee`.

    The difference is taken between weights, in at least float32, also under autocast: between the currents, two large
    and nearly equal numbers, it loses digits.
    """
    with torch.autocast(weight_ee.device.type, enabled=False):
        wide = torch.promote_types(weight_ee.dtype, torch.float32)
        ee, ie = weight_rows(weight_ee), weight_rows(laid_out_like(weight_ie, weight_ee))
        folded = ee.to(wide) - matmul(weight_ei.to(wide), ie.to(wide))
        return from_rows(folded.to(weight_ee.dtype), weight_ee)


def weight_rows(weight: Tensor) -> Tensor:
    """Weights of each neuron in one row, in the order in which they lie in memory."""
    return weight.movedim(1, -1).flatten(1) if _channels_last(weight) else weight.flatten(1)


def from_rows(rows: Tensor, like: Tensor) -> Tensor:
    """The inverse of `weight_rows`: rows of any number of neurons, shaped otherwise like `like`."""
    if _channels_last(like):
        return rows.view(-1, *like.movedim(1, -1).shape[1:]).movedim(-1, 1)
    return rows.view(-1, *like.shape[1:])


def laid_out_like(weight: Tensor, other: Tensor) -> Tensor:
    """`weight` in the memory format of `other`; copied only if need be."""
    return weight.contiguous(memory_format=torch.channels_last if _channels_last(other) else torch.contiguous_format)


def _channels_last(weight: Tensor) -> bool:
    return weight.ndim == 4 and weight.stride(1) == 1 and weight.shape[1] > 1


def folded_currents(
    x: Tensor, weight_ee: Tensor, weight_ie: Tensor, weight_ei: Tensor, gain_i: Tensor, connection: Connection
) -> FoldedCurrents:
    """Eqs. (9)-(13) folded: one convolution with `[W; W_IE]` and one lateral projection `M = W_EI diag(g_I)`.

    Weights and inputs are non-negative, so the I neurons are linear: `I_EE - I_sub = W x` and `I_div = M W_IE x`.
    """
    currents, weight = stacked_currents(x, weight_ee, weight_ie, weight_ei, gain_i, connection)
    return split_currents(currents, weight)


class StackedCurrents(NamedTuple):
    """What one convolution gives: `currents` `[T, B, n_E + n_I, ...]`, the balanced current and `I_IE` on top of each
    other; and `weight` `[n_E, n_I]`, `M = W_EI diag(g_I)`, which makes `I_div` of the latter."""

    currents: Tensor
    weight: Tensor


def stacked_currents(
    x: Tensor, weight_ee: Tensor, weight_ie: Tensor, weight_ei: Tensor, gain_i: Tensor, connection: Connection
) -> StackedCurrents:
    """Eqs. (9)-(12) by one convolution with the stacked kernel `[W; W_IE]`."""
    weight_ei = scale_gradient(weight_ei, 1 / fan_in(weight_ee))
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    return StackedCurrents(_StackedProjection.apply(x, weight_ee, weight_ie, weight_ei, connection), weight_ei * gain_i)


class _StackedProjection(torch.autograd.Function):
    """`[W; W_IE] x`. The stacked kernel is not kept.

    Two ways back: with `[W; W_IE]` made again, through the products of weights that made it; or with `[W_EE; W_IE]` and
    the gradients of the currents as they are before folding, `g_I - W_EI^T g_E` for the I neurons, which costs less
    where a layer has fewer positions than inputs, and in less than float32 loses digits.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight_ee: Tensor, weight_ie: Tensor, weight_ei: Tensor, connection: Connection
    ) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            currents = connection.feedforward(x, stacked_kernel(weight_ee, weight_ie, weight_ei).to(x.dtype))
        ctx.connection = connection
        ctx.unfold = 2 * currents[:, :, 0].numel() < 3 * fan_in(weight_ee) and x.dtype.itemsize >= 4
        ctx.save_for_backward(x, weight_ee, weight_ie, weight_ei, currents if ctx.unfold else None)
        return currents

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_ee, weight_ie, weight_ei, currents = ctx.saved_tensors
        way = _backward_unfolded if ctx.unfold else _backward_folded
        return *way(ctx, grads[0], x, weight_ee, weight_ie, weight_ei, currents), None


def _backward_unfolded(
    ctx: Any, grad: Tensor, x: Tensor, weight_ee: Tensor, weight_ie: Tensor, weight_ei: Tensor, currents: Tensor
) -> tuple[Tensor | None, ...]:
    sizes = [len(weight_ee), len(weight_ie)]
    grad = grad.clone()
    grad_e, grad_i = grad.split(sizes, dim=2)
    rows_e, i_ie = (by_position(x).contiguous() for x in (grad_e, currents.split(sizes, dim=2)[1]))
    grad_ei = matmul(rows_e.T, i_ie).neg_()
    grad_i.movedim(2, -1).sub_(matmul(rows_e, weight_ei).view(grad_i.movedim(2, -1).shape))
    kernel = torch.cat([weight_ee, laid_out_like(weight_ie, weight_ee)]).to(x.dtype)
    grad_x, grad_kernel = ctx.connection.feedforward_backward(grad, x, kernel, ctx.needs_input_grad[0])
    grad_ee, grad_ie = grad_kernel.to(weight_ee.dtype).split(sizes)
    return grad_x, grad_ee, grad_ie, grad_ei.to(weight_ei.dtype)


def _backward_folded(
    ctx: Any, grad: Tensor, x: Tensor, weight_ee: Tensor, weight_ie: Tensor, weight_ei: Tensor, _: None
) -> tuple[Tensor | None, ...]:
    kernel = stacked_kernel(weight_ee, weight_ie, weight_ei).to(x.dtype)
    grad_x, grad_kernel = ctx.connection.feedforward_backward(grad, x, kernel, ctx.needs_input_grad[0])
    # dW_EE = G_W, dW_IE = G_I - W_EI^T G_W, dW_EI = -G_W W_IE^T, with [G_W; G_I] the gradient of the kernel.
    rows = weight_rows(laid_out_like(grad_kernel.to(weight_ee.dtype), weight_ee))
    grad_ee, grad_i = rows.split([len(weight_ee), len(weight_ie)])
    grad_ie = grad_i - matmul(weight_ei.T, grad_ee)
    grad_ei = matmul(grad_ee, weight_rows(laid_out_like(weight_ie, weight_ee)).T).neg_()
    return grad_x, from_rows(grad_ee, weight_ee), from_rows(grad_ie, weight_ee), grad_ei


@torch.no_grad()
def stacked_kernel(weight_ee: Tensor, weight_ie: Tensor, weight_ei: Tensor) -> Tensor:
    """`[W; W_IE]`, `[n_E + n_I, ...]`: what one convolution computes both currents with. Without gradient."""
    ee, ie, n_e = weight_rows(weight_ee), weight_rows(laid_out_like(weight_ie, weight_ee)), len(weight_ee)
    stacked = ee.new_empty(n_e + len(ie), ee.shape[1])
    wide = torch.promote_types(ee.dtype, torch.float32)
    torch.sub(ee.to(wide), matmul(weight_ei.to(wide), ie.to(wide)), out=stacked[:n_e])
    stacked[n_e:] = ie
    return from_rows(stacked, weight_ee)


def split_currents(currents: Tensor, weight: Tensor) -> FoldedCurrents:
    """The balanced current, and eq. (13): `I_div = M I_IE`."""
    n_e, n_i = weight.shape
    balanced, i_ie = currents.split([n_e, n_i], dim=2)
    return FoldedCurrents(balanced, lateral(i_ie, weight))


def ei_circuit_folded(
    x: Tensor,
    weight_ee: Tensor,
    weight_ie: Tensor,
    weight_ei: Tensor,
    gain_i: Tensor,
    gain_e: Tensor,
    bias: Tensor,
    connection: Connection,
) -> Tensor:
    """The same function as `ei_circuit` by the folded currents."""
    return integrate(*folded_currents(x, weight_ee, weight_ie, weight_ei, gain_i, connection), gain_e, bias)


def ei_readout(x: Tensor, weight_ee: Tensor, weight_ie: Tensor, weight_ei: Tensor, connection: Connection) -> Tensor:
    """Readout as written: `W_EE x - W_EI W_IE x`, subtractive inhibition only; `[T, B, d]` -> `[T, B, n_E]`."""
    weight_ei = scale_gradient(weight_ei, 1 / fan_in(weight_ee))
    i_ie = connection.feedforward(x, weight_ie)
    return connection.feedforward(x, weight_ee) - lateral(i_ie, weight_ei)


def ei_readout_folded(
    x: Tensor, weight_ee: Tensor, weight_ie: Tensor, weight_ei: Tensor, connection: Connection
) -> Tensor:
    """The same function as `ei_readout` with the folded kernel."""
    weight_ei = scale_gradient(weight_ei, 1 / fan_in(weight_ee))
    return connection.feedforward(x, fold(weight_ee, weight_ie, weight_ei))
