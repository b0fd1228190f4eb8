"""What may be done to gradients between the backward pass and the optimizer's step; weights are looked at, activity is
not."""

import torch
from torch import Tensor

from eisnn.models import SpikingNetwork
from eisnn.nn import EICircuit
from eisnn.train.config import TrainConfig

SMALLEST_NORM = 1e-3  # what a neuron's weights count as at least, so that those that start at 0 can grow


def condition_gradients_(model: SpikingNetwork, config: TrainConfig) -> None:
    """All that a configuration asks for, in place: centring, then clipping."""
    if config.center_gradients:
        center_gradients_(model)
    if config.adaptive_clipping:
        clip_gradients_(model, config.adaptive_clipping)


@torch.no_grad()
def center_gradients_(model: torch.nn.Module) -> None:
    """Subtract from the gradients of each circuit's `weight_ee` and `weight_ie` their mean over the fan-in, in place.

    So that the step keeps every neuron's total excitation and inhibition (P1); clamping still changes them. Source:
    gradient centralization (Yong et al. 2020).
    """
    for circuit in model.modules():
        if isinstance(circuit, EICircuit):
            for weight in (circuit.weight_ee, circuit.weight_ie):
                if weight.grad is not None:
                    weight.grad -= weight.grad.mean(tuple(range(1, weight.ndim)), keepdim=True)


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
