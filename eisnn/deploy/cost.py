"""What a network costs to run: synaptic operations by layer and pathway, counted on real input."""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from eisnn import ops
from eisnn.nn import Pathway, SpikingLayer, layers_of


@dataclass(frozen=True)
class PathwayCost:
    """Of one pathway of one layer.

    Args:
        layer: its name.
        pathway: such as "E->I".
        synapses: weights, each counted once.
        dense: multiply-adds an image over all time steps; where a kernel reaches beyond the map there are none.
        effective: those of them whose source is not 0, the ones an event-driven machine does; None for lateral
            pathways, whose sources are not seen.
    """

    layer: str
    pathway: str
    synapses: int
    dense: float
    effective: float | None


@torch.no_grad()
def count_operations(model: nn.Module, batch: Tensor) -> list[PathwayCost]:
    """Count the synaptic operations of `model` on `batch`, by brute force: each connection is run on ones.

    A static input counts once for each step that the layer computes it, which is one.

    Args:
        model: any module with spiking layers, initialised; folded or not.
        batch: what `model(batch)` takes.
    Returns: a row for each pathway, in the order of the network.
    """
    found: list[PathwayCost] = []

    def hook(name: str) -> Any:
        def count(layer: SpikingLayer, args: Any, kwargs: Any, out: Any) -> None:
            x = args[0] if args else kwargs["x"]
            found.extend(_cost(name, pathway, x) for pathway in _with_sizes(layer.pathways(), x))

        return count

    modes = {module: module.training for module in model.modules()}
    try:
        with ExitStack() as hooks:
            for name, layer in layers_of(model).items():
                hooks.enter_context(layer.register_forward_hook(hook(name), with_kwargs=True))
            model.eval()(batch)
    finally:
        for module, training in modes.items():
            module.training = training
    return found


def _with_sizes(pathways: list[Pathway], x: Tensor) -> list[tuple[Pathway, int]]:
    """Each pathway with the number of positions of the layer's map."""
    ones = torch.ones_like(x[:1, :1])
    forward = next((p for p in pathways if p.connection is not None), None)
    maps = None if forward is None or forward.connection is None else _run(forward.connection, ones, forward.weight)
    return [(p, 1 if maps is None else maps[0, 0, 0].numel()) for p in pathways]


def _cost(layer: str, sized: tuple[Pathway, int], x: Tensor) -> PathwayCost:
    pathway, positions = sized
    weight = pathway.weight
    if pathway.connection is None:
        return PathwayCost(layer, pathway.name, weight.numel(), float(len(x) * positions * weight.numel()), None)
    dense, effective = (
        float(_run(pathway.connection, source, torch.ones_like(weight[:1])).double().sum()) * len(weight) / x.shape[1]
        for source in (torch.ones_like(x), (x != 0).to(x))
    )
    return PathwayCost(layer, pathway.name, weight.numel(), dense, effective)


def _run(connection: ops.Connection, x: Tensor, weight: Tensor) -> Tensor:
    return connection.feedforward(x, weight.detach())
