"""Information maximization loss (Guo et al. 2022): each layer's potentials are drawn to the threshold, where a spike
tells most.

    L_IM = sum over layers (mean H - theta)^2,   L = cross-entropy + weight * L_IM

The mean is over steps, images and neurons of one process. The authors' release differs: there the mean input current is
compared with theta / T. Their other part, a surrogate that sharpens during training, is not in here.

Source: IM-Loss: information maximization loss for spiking neural networks, NeurIPS 2022.
"""

from typing import Any

import torch
from torch import Tensor, nn

from eisnn.functional import LIFConstants
from eisnn.nn import LIF
from eisnn.nn.baselines import ProjectionLayer


def potentials(current: Tensor, spikes: Tensor, constants: LIFConstants) -> Tensor:
    """`H[t]` `[T, B, ...]`, eq. (1), of neurons that answered `current` `[T or 1, B, ...]` with `spikes`, from rest."""
    v, trace = torch.zeros_like(current[0]), []
    for i, s in zip(current.expand_as(spikes), spikes, strict=True):
        h = constants.decay * v + i
        trace.append(h)
        reset = s.detach() if constants.detach_reset else s
        v = h - constants.theta * reset if constants.reset == "soft" else h * (1 - reset)
    return torch.stack(trace)


class InformationMaximization:
    """Collects `L_IM` while `model` runs in training mode.

    Raises: ValueError if the model has no layer whose LIF neurons can be followed.
    """

    def __init__(self, model: nn.Module) -> None:
        self._terms: list[Tensor] = []
        neurons = [m.neuron for m in model.modules() if isinstance(m, ProjectionLayer) and type(m.neuron) is LIF]
        if not neurons:
            raise ValueError("the information maximization loss needs LIF neurons of a circuit such as plain or bn")
        for neuron in neurons:
            neuron.register_forward_hook(self._collect)

    def _collect(self, neuron: LIF, args: Any, output: Any) -> None:
        if neuron.training:
            spikes = output[0] if isinstance(output, tuple) else output
            mean = potentials(args[0], spikes, neuron.constants).float().mean()
            self._terms.append((mean - neuron.constants.theta).square())

    def take(self) -> Tensor:
        """`L_IM` of the last pass, a scalar with gradient."""
        terms, self._terms = self._terms, []
        return torch.stack(terms).sum()
