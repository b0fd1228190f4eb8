"""Weights and their gradients by pathway and layer."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from eisnn.nn import layers_of


def gradient_norms(model: nn.Module) -> dict[str, dict[str, float]]:
    """Euclidean norm of the gradient of every parameter, by layer and parameter (Fig. 5 of the paper).

    To be called after `backward`. The gradients are those the optimizer gets: that of `weight_ei` is scaled by 1/d in
    the paper's circuit.

    Returns: `{layer: {parameter: norm}}` of all modules with parameters of their own, in the order of the model.
    Raises: ValueError if no parameter has a gradient.
    """
    norms: dict[str, dict[str, float]] = {}
    for full, parameter in model.named_parameters():
        if parameter.grad is not None:
            layer, _, name = full.rpartition(".")
            norms.setdefault(layer, {})[name] = float(torch.linalg.vector_norm(parameter.grad.double()))
    if not norms:
        raise ValueError("no parameter has a gradient: call loss.backward() first")
    return norms


@torch.no_grad()
def pathways(model: nn.Module) -> dict[str, dict[str, Tensor]]:
    """The weights with which each circuit acts, all >= 0, whatever it is parametrized by: `{layer: {pathway: Tensor}}`.

    Pathways: `weight_ee` (E of the layer below -> E), `weight_ie` (-> I), `subtractive` and `divisive` (I -> E), and
    `sigma`, the semisaturation, where there is one. Ablated circuits are left out: their currents are not those of such
    weights.
    """
    return {
        name: {pathway: w for pathway, w in synapses._asdict().items() if w is not None}
        for name, layer in layers_of(model).items()
        if (synapses := layer.synapses()) is not None
    }


class WeightSummary(NamedTuple):
    """Of one pathway: number of weights, mean, coefficient of variation (1 for an exponential distribution) and part
    of the weights that is exactly 0: the synapses that Dale's law has closed."""

    n: int
    mean: float
    cv: float
    zero: float


def weight_summary(weights: Tensor) -> WeightSummary:
    """Count, mean, coefficient of variation and part of zeros of some weights, any shape; the CV of zeros is NaN."""
    w = weights.detach().double()
    mean = float(w.mean())
    cv = float(w.std(correction=0)) / mean if mean else float("nan")
    return WeightSummary(w.numel(), mean, cv, float((w == 0).double().mean()))
