"""Adaptive clipping of gradients, between the backward pass and the optimizer's step."""

import torch
from torch import Tensor

from eisnn.models import SpikingNetwork

SMALLEST_NORM = 1e-3  # what a neuron's weights count as at least, so that those that start at 0 can grow


@torch.no_grad()
def clip_gradients_(model: SpikingNetwork, limit: float) -> None:
    """Adaptive gradient clipping, in place: each neuron's gradient `G_i` of each weight `W_i` gets at most the norm
    `limit max(|W_i|, 1e-3)`, and keeps its direction.

    Norms are those of a neuron's inputs (rows); gains and biases count as one vector each. The readout is left out.

    Args:
        limit: lambda, > 0.
    Source: Brock et al. 2021, eq. (3).
    """
    readout = {id(parameter) for parameter in model.readout.parameters()}
    for weight in model.parameters():
        if weight.grad is not None and id(weight) not in readout:
            allowed = limit * _unit_norm(weight).clamp_min(SMALLEST_NORM)
            norm = _unit_norm(weight.grad)
            weight.grad *= torch.where(norm > allowed, allowed / norm, 1)


def _unit_norm(values: Tensor) -> Tensor:
    axes = tuple(range(1, values.ndim)) or (0,)
    return torch.linalg.vector_norm(values, dim=axes, keepdim=True)
