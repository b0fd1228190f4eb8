"""The circuit folded to the same function: one signed kernel in place of excitation and subtractive inhibition.

Weights and inputs are non-negative, so the I neurons are linear: `I_EE - I_sub = W x` with `W = W_EE - W_EI W_IE`, and
`I_div = M W_IE x`. Names as in `eisnn.functional.circuit`; (M7) of docs/science/method.md.
"""

from typing import NamedTuple

from torch import Tensor

from eisnn.functional.connection import lateral


class FoldedCurrents(NamedTuple):
    """The currents that matter: `balanced` = `I_EE - I_sub` (any sign) and `i_div` >= 0, each `[T, B, n_E, ...]`."""

    balanced: Tensor
    i_div: Tensor


def fold(weight_ee: Tensor, weight_ie: Tensor, weight_ei: Tensor) -> Tensor:
    """The signed kernel `W = W_EE - W_EI W_IE` of the balanced current, shaped like `weight_ee`."""
    return weight_ee - (weight_ei @ weight_ie.flatten(1)).unflatten(1, weight_ee.shape[1:])


def split_currents(currents: Tensor, weight: Tensor) -> FoldedCurrents:
    """The balanced current, and eq. (13): `I_div = M I_IE`, of `currents` `[T, B, n_E + n_I, ...]`: `W x` and below it
    `W_IE x`; `weight` is `M = W_EI diag(g_I)` `[n_E, n_I]`."""
    n_e, n_i = weight.shape
    if currents.shape[2] != n_e + n_i:
        raise ValueError(
            f"split_currents takes currents [T, B, n_E + n_I, ...] and weight [n_E, n_I], got shapes "
            f"{list(currents.shape)} and {list(weight.shape)}"
        )
    return FoldedCurrents(currents[:, :, :n_e], lateral(currents[:, :, n_e:], weight))
