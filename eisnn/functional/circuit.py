"""The E-I circuit as written, eqs. (9)-(14): the readable reference of all that is faster.

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

from eisnn.functional.connection import Connection, fan_in, lateral, per_neuron
from eisnn.functional.division import EXACT, Division
from eisnn.functional.stabilize import stabilize


class Currents(NamedTuple):
    """Input currents of the E population, eqs. (9)-(13), each `[T, B, n_E, ...]` and >= 0."""

    i_ee: Tensor
    i_sub: Tensor
    i_div: Tensor


class Synapses(NamedTuple):
    """The weights with which a circuit acts, all >= 0, whatever it is parametrized by.

    weight_ee   [n_E, ...]    feedforward excitation
    weight_ie   [n_I, ...]    onto the I neurons
    subtractive [n_E, n_I]    subtractive inhibition; `W_EI` in the paper
    divisive    [n_E, n_I]    divisive inhibition; `W_EI diag(g_I)` in the paper
    sigma       [n_E]         semisaturation, a constant part of the divisive current; None without
    """

    weight_ee: Tensor
    weight_ie: Tensor
    subtractive: Tensor
    divisive: Tensor
    sigma: Tensor | None = None

    def __repr__(self) -> str:
        shapes = (f"{name}={None if w is None else list(w.shape)}" for name, w in self._asdict().items())
        return f"Synapses({', '.join(shapes)})"


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


def currents_of(x: Tensor, synapses: Synapses, connection: Connection) -> Currents:
    """Each current on its own for any `Synapses`: eqs. (9)-(13), and `I_div + sigma` where there is one."""
    s_i = connection.feedforward(x, synapses.weight_ie)
    i_div = lateral(s_i, synapses.divisive)
    if synapses.sigma is not None:
        i_div = i_div + per_neuron(synapses.sigma, i_div)
    return Currents(connection.feedforward(x, synapses.weight_ee), lateral(s_i, synapses.subtractive), i_div)


def integrate(balanced: Tensor, i_div: Tensor, gain_e: Tensor, bias: Tensor, division: Division = EXACT) -> Tensor:
    """Eq. (14): `I_E = g_E (I_EE - I_sub) / I_div~ + b_E`, `[T, B, n_E, ...]`, with adaptive stabilisation.

    The division is done in at least float32, whatever the dtype of the currents.
    """
    wide = torch.promote_types(balanced.dtype, torch.float32)
    divisor = stabilize(i_div).to(wide)
    q = balanced.to(wide) / divisor if division == EXACT else balanced.to(wide) * division.reciprocal(divisor)
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


def ei_readout(x: Tensor, weight_ee: Tensor, weight_ie: Tensor, weight_ei: Tensor, connection: Connection) -> Tensor:
    """Readout as written: `W_EE x - W_EI W_IE x`, subtractive inhibition only; `[T, B, d]` -> `[T, B, n_E]`."""
    weight_ei = scale_gradient(weight_ei, 1 / fan_in(weight_ee))
    i_ie = connection.feedforward(x, weight_ie)
    return connection.feedforward(x, weight_ee) - lateral(i_ie, weight_ei)
