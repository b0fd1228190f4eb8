"""A target for the firing rate, below which a spiking network costs less than one that does not spike."""

from typing import Any

import torch
from torch import Tensor, nn

from eisnn.nn import layers_of


class RateTarget:
    """Collects how far layers fire above a rate while `model` runs in training mode: the sum over layers of
    `max(0, rate / target - 1)^2`, with the rate over steps, images of one process, and neurons.

    Args:
        model: with spiking layers.
        target: spikes for each neuron and step, in (0, 1).
    Raises: ValueError if the model has no spiking layer.
    """

    def __init__(self, model: nn.Module, target: float) -> None:
        self.target = target
        self._terms: list[Tensor] = []
        layers = [layer for layer in layers_of(model).values() if layer.neuron is not None and not layer.rate_coded]
        if not layers:
            raise ValueError(f"target_rate is {target}, but no layer of this network spikes")
        for layer in layers:
            layer.watched.register_forward_hook(self._collect)

    def _collect(self, module: nn.Module, args: Any, output: Any) -> None:
        if module.training:
            spikes = output[0] if isinstance(output, tuple) else output
            self._terms.append((spikes.mean(dtype=torch.float32) / self.target - 1).relu().square())

    def take(self) -> Tensor:
        """That of the last pass, a scalar with gradient."""
        terms, self._terms = self._terms, []
        return torch.stack(terms).sum()
