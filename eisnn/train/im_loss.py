"""Information maximization loss (Guo et al. 2022): each layer's potentials are drawn to the threshold, where a spike
tells most.

    L_IM = sum over layers (mean H - theta)^2,   L = cross-entropy + weight * L_IM

The mean is over steps, images and neurons of one process. This is the formula of the paper, and a variant of what its
authors ran: their release takes 0.005 times the average over the inner layers of (mean input current - theta / T)^2, in
plain layers of spikes instead of currents. Their other part, a surrogate that sharpens in training, is not in here.

Source: IM-Loss: information maximization loss for spiking neural networks, NeurIPS 2022.
"""

from typing import Any

import torch
from torch import Tensor, nn

from eisnn.functional import LIFConstants, lif_step
from eisnn.nn import LIF, layers_of


def potentials(current: Tensor, constants: LIFConstants, time_steps: int | None = None) -> Tensor:
    """`H[t]` `[T, B, ...]`, eq. (1), of LIF neurons at rest before the first step; arguments as `functional.lif`."""
    steps = current.shape[0] if time_steps is None else time_steps
    v, trace = torch.zeros_like(current[0]), []
    for i in current.expand(steps, *current.shape[1:]):
        trace.append(constants.decay * v + i)
        v = lif_step(i, v, constants)[1]
    return torch.stack(trace)


class InformationMaximization:
    """Collects `L_IM` while `model` runs in training mode.

    Raises: ValueError if the model has no layer whose LIF neurons can be followed.
    """

    def __init__(self, model: nn.Module) -> None:
        self._terms: list[Tensor] = []
        neurons = [m.neuron for m in layers_of(model).values() if type(m.neuron) is LIF and m.watched is m.neuron]
        if not neurons:
            raise ValueError("the information maximization loss needs LIF neurons of a circuit such as plain or bn")
        for neuron in neurons:
            neuron.register_forward_hook(self._collect)

    def _collect(self, neuron: LIF, args: Any, output: Any) -> None:
        if neuron.training:
            mean = potentials(args[0], neuron.constants, args[1]).float().mean()
            self._terms.append((mean - neuron.constants.theta).square())

    def take(self) -> Tensor:
        """`L_IM` of the last pass, a scalar with gradient."""
        terms, self._terms = self._terms, []
        return torch.stack(terms).sum()
