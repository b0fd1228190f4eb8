"""Balance of excitation and inhibition: how far the two currents cancel, and whether they do so moment by moment.

`i_ee` and `i_sub` are the recorded `I_EE` and `I_sub`, `[T or 1, B, n_E, ...]`, both >= 0. Balance is *loose* where
they cancel on average only, and *tight* where inhibition follows excitation in time, across positions or from neuron to
neuron (Deneve and Machens 2016, doi:10.1038/nn.4243). In the paper's circuit inhibition is instantaneous: both are
linear in the same input, so what correlates them is how alike the weights of their receptive fields are, not a
dynamics. In cortical layers it may lag, see `ei_lag`.
"""

from typing import Literal

import torch
from torch import Tensor

from eisnn.analysis.measures.values import Values, correlation, not_negative, numbers

Axis = Literal["time", "space", "neurons", "images"]


def balance_ratio(i_ee: Values, i_sub: Values) -> Tensor:
    """Mean subtractive inhibition over mean excitation of each neuron, `[n_E, ...]`, >= 0; 1 is balanced.

    NaN for a neuron that receives neither, infinity without excitation. E-I Init makes it 1 on average over neurons,
    exact balance in every one where its input is spread evenly.

    Raises: ValueError for currents of different shapes, below 0, NaN or infinite.
    """
    e, i = _checked(i_ee, i_sub)
    return i.mean((0, 1), dtype=torch.float64) / e.mean((0, 1), dtype=torch.float64)


def residual(i_ee: Values, i_sub: Values) -> float:
    """What is left of the currents, `mean |I_EE - I_sub| / mean (I_EE + I_sub)`, in [0, 1].

    0 where they cancel exactly at each step, image and neuron; 1 where there is only one of them; NaN without current.
    Raises as `balance_ratio`.
    """
    e, i = _checked(i_ee, i_sub)
    return float((e - i).abs().double().mean() / (e + i).double().mean())


def ei_correlation(i_ee: Values, i_sub: Values, over: Axis) -> Tensor:
    """Pearson correlation of excitation and subtractive inhibition, in [-1, 1]; near 1 is tight balance.

    Args:
        over: along what the two are compared.
            "time": over the steps of one image, for each neuron and image. A static first layer has one step: NaN;
            "space": over the positions of a map, for each step, image and channel;
            "neurons": over the neurons (channels) at one step, image and position;
            "images": over images and steps, for each neuron: do they rise and fall together with what is shown?
    Returns: one value for each of the rest, e.g. `[B, n_E, ...]` over time; NaN where one of the two does not vary by
        more than rounding.
    Raises: ValueError for another axis, or "space" of a layer without positions; and as `balance_ratio`.
    """
    e, i = _checked(i_ee, i_sub)
    if over == "space":
        if e.ndim == 3:
            raise ValueError(f"a layer without positions has no correlation over space, got shape {list(e.shape)}")
        return correlation(e.flatten(3), i.flatten(3), -1)
    if over == "images":
        return correlation(e.flatten(0, 1), i.flatten(0, 1), 0)
    if over not in ("time", "neurons"):
        raise ValueError(f'over must be "time", "space", "neurons" or "images", got {over!r}')
    return correlation(e, i, 0 if over == "time" else 2)


def _checked(i_ee: Values, i_sub: Values) -> tuple[Tensor, Tensor]:
    e, i = numbers("I_EE", i_ee), numbers("I_sub", i_sub)
    e, i = not_negative("I_EE", e, beside=i), not_negative("I_sub", i, beside=e)
    if e.shape != i.shape or e.ndim < 3:
        raise ValueError(
            f"I_EE and I_sub must have one shape [T, B, n_E, ...], got {list(e.shape)} and {list(i.shape)}"
        )
    return e, i
