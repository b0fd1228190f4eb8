"""The paper's circuit by one convolution: what `eisnn.functional.circuit` has as written."""

from typing import NamedTuple

from torch import Tensor

from eisnn.functional.circuit import integrate, scale_gradient
from eisnn.functional.connection import fan_in
from eisnn.functional.folded import FoldedCurrents
from eisnn.ops.connection import Connection
from eisnn.ops.population.torch import split_currents
from eisnn.ops.weights.op import project
from eisnn.ops.weights.stacked import StackedKernel, fold


class StackedCurrents(NamedTuple):
    """What one convolution gives: `currents` `[T, B, n_E + m, ...]`, the balanced current and below it those of m I
    neurons; and `weight` `[n_E, m]`, `M`, which makes `I_div` of the latter."""

    currents: Tensor
    weight: Tensor


def stacked_currents(
    x: Tensor, weight_ee: Tensor, weight_ie: Tensor, weight_ei: Tensor, gain_i: Tensor, connection: Connection
) -> StackedCurrents:
    """Eqs. (9)-(12) by one convolution with the stacked kernel `[W; W_IE]`."""
    weight_ei = scale_gradient(weight_ei, 1 / fan_in(weight_ee))
    sources = weight_ee, weight_ie, weight_ei
    return StackedCurrents(project(x, StackedKernel(), sources, connection), weight_ei * gain_i)


def folded_currents(
    x: Tensor, weight_ee: Tensor, weight_ie: Tensor, weight_ei: Tensor, gain_i: Tensor, connection: Connection
) -> FoldedCurrents:
    """Eqs. (9)-(13) folded: one convolution with `[W; W_IE]` and one lateral projection `M = W_EI diag(g_I)`."""
    return split_currents(*stacked_currents(x, weight_ee, weight_ie, weight_ei, gain_i, connection))


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
    """`eisnn.functional.ei_circuit` by the folded currents."""
    return integrate(*folded_currents(x, weight_ee, weight_ie, weight_ei, gain_i, connection), gain_e, bias)


def ei_readout(x: Tensor, weight_ee: Tensor, weight_ie: Tensor, weight_ei: Tensor, connection: Connection) -> Tensor:
    """`eisnn.functional.ei_readout` with the folded kernel."""
    weight_ei = scale_gradient(weight_ei, 1 / fan_in(weight_ee))
    return connection.feedforward(x, fold(weight_ee, weight_ie, weight_ei))
