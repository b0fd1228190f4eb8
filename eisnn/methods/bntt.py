"""Batch normalization through time; notation of `eisnn.methods.normalization`."""

import torch
from torch import Tensor, nn

from eisnn.methods.normalization import Standardize, TimedNorm, timed_layers
from eisnn.nn.registry import Layers, register


class BNTT(TimedNorm):
    """Batch normalization through time (Kim and Panda 2021): statistics, running averages and the scale
    `gamma` are those of each step alone; there is no shift `beta`.

    Args:
        channels: C.
        time_steps: T, the longest sequence.
        eps, momentum: as `torch.nn.BatchNorm2d`; `eps` is that of the release.
    Source: Revisiting batch normalization for training low-latency deep spiking neural networks from scratch,
    Frontiers in Neuroscience 15, 2021, arXiv 2010.01729.
    """

    def __init__(self, channels: int, time_steps: int, eps: float = 1e-4, momentum: float = 0.1) -> None:
        super().__init__(channels, time_steps)
        self.steps = nn.ModuleList(Standardize(channels, eps, momentum) for _ in range(time_steps))
        for step in self.steps:
            step.register_parameter("bias", None)

    def _at(self, x: Tensor, start: int, stop: int) -> Tensor:
        currents = x.expand(stop - start, *x.shape[1:])
        return torch.stack([self.steps[start + t](current) for t, current in enumerate(currents)])


@register("bntt")
def bntt(neuron: nn.Module | None, time_steps: int | None) -> Layers:
    """Batch normalization through time."""
    return timed_layers(neuron, time_steps, BNTT)
