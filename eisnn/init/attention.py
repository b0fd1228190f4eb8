"""E-I Init of attention: its scale from data, so that activity neither dies in it nor saturates."""

from typing import Any

import torch
from torch import Tensor

from eisnn.init.from_data import adjust_, fill_
from eisnn.init.statistics import InputStatistics, UnusableInput, mean_over, scale_for_rate
from eisnn.nn.attention import Attention
from eisnn.nn.neurons import run_neuron

SEMISATURATION = 0.3  # share of the mean of what divides, as in `eisnn.PLUS`


@fill_.register
def _(
    layer: Attention, statistics: InputStatistics, generator: torch.Generator | None = None, group: Any = None
) -> None:
    """Nothing is drawn: attention has no weights."""
    layer.start_()
    layer.initialized = True


@adjust_.register
@torch.no_grad()
def _(layer: Attention, x: Tensor, group: Any = None, time_steps: int | None = None) -> None:
    """The gain with which the neurons fire as often as those that drive them (a gate: at every second step), and
    `sigma` 0.3 times what it is added to.

    Raises: UnusableInput if nothing drives them.
    """
    pooled = layer.drive(x).pooled
    if pooled is not None:
        layer.sigma_unit.fill_(SEMISATURATION * mean_over(pooled, group))
    current = layer.integrated(x)
    mean = mean_over(current, group)
    if not mean > 0:
        raise UnusableInput(
            f"E-I Init: in {type(layer).__name__} no query meets a key, so that nothing drives its neurons; give a "
            "batch of more images"
        )

    def rate(scale: float) -> float:
        return mean_over(run_neuron(layer.neuron, current * (scale / mean), time_steps, None, False)[0], group)

    target = mean_over(x, group) if layer.start_rate is None else layer.start_rate
    layer.gain_unit.fill_(scale_for_rate(rate, target) / mean)
