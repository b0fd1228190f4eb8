"""Weights by pathway and layer."""

import torch
from torch import Tensor, nn

from eisnn.nn import layers_of


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
