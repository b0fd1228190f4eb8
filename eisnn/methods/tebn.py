"""Temporal effective batch normalization; notation of `eisnn.methods.normalization`."""

import torch
from torch import Tensor, nn

from eisnn.methods.normalization import Standardize, TimedNorm, by_sequence, timed_layers
from eisnn.nn.registry import Layers, register


class TEBN(TimedNorm):
    """Temporal effective batch normalization (Duan et al. 2022): one batch norm over all steps, whose
    scale and shift are multiplied by a weight `p[t]` of each step.

    Args: as `BNTT`.
    Source: Temporal effective batch normalization in spiking neural networks, NeurIPS 2022.
    """

    def __init__(self, channels: int, time_steps: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__(channels, time_steps)
        self.norm = Standardize(channels, eps, momentum)
        self.p = nn.Parameter(torch.ones(time_steps))

    def _at(self, x: Tensor, start: int, stop: int) -> Tensor:
        return self._by_step(self.p[start:stop], x) * by_sequence(self.norm, x)


@register("tebn")
def tebn(neuron: nn.Module | None, time_steps: int | None) -> Layers:
    """Temporal effective batch normalization."""
    return timed_layers(neuron, time_steps, TEBN)
