"""Folded networks that divide as cheap hardware does, or not at all."""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from eisnn import functional as EF
from eisnn.nn import fold
from eisnn.nn.inference import FoldedLayer
from eisnn.nn.layer import layers_of
from eisnn.nn.projection import PlainConv2d, ProjectionLayer


def divide(model: nn.Module, division: EF.Division) -> nn.Module:
    """`model`, folded, with another division in all its circuits.

    Args:
        model: initialised; folded or not; it stays as it is.
        division: how.
    Raises: ValueError if nothing in it divides; TypeError for what is no division.
    """
    folded = fold(model)
    for layer in _dividing(folded).values():
        layer.division = EF.Division.check(division)
    return folded


@torch.no_grad()
def hold(model: nn.Module, images: Tensor, batch: int = 100) -> nn.Module:
    """`model`, folded, with each neuron's divisor replaced by its mean over `images`: a constant that folds into the
    weights. It is the only form without any division: convolutions with bias, and LIF neurons.

    Args:
        model: initialised; folded or not; it stays as it is.
        images: calibration, what the model takes; `[N, C, H, W]` or `[T, N, C, H, W]`.
        batch: how many of them at a time.
    Raises: ValueError if nothing in it divides, a divisor is 0 on all images, or the images are none, black, or not in
        [0, 1] (frames may count more).
    """
    folded = fold(model)
    if images.numel() == 0 or not images.any():
        raise ValueError(
            f"calibration needs images such as those that the network was trained on; got shape {list(images.shape)}, "
            "nothing but zeros"
        )
    if images.ndim == 4 and (largest := float(images.max())) > 1:
        raise ValueError(
            f"calibration needs images as the network takes them, in [0, 1]; got values up to {largest:g}: divide "
            "pixels by 255"
        )
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = defaultdict(int)

    def look(name: str) -> Any:
        def add(layer: FoldedLayer, args: Any, kwargs: Any) -> None:
            x = args[0] if args else kwargs["x"]
            _, i_div = EF.split_currents(layer.project(x), layer.weight)
            divisor = EF.stabilize(i_div)
            divisor = divisor.where(divisor.isfinite(), 0).double()  # a silent sample divides nothing
            axes = tuple(a for a in range(divisor.ndim) if a != 2)
            sums[name] = sums.get(name, 0) + divisor.sum(axes)
            counts[name] += divisor[:, :, 0].numel()

        return add

    layers = _dividing(folded)
    handles = [layer.register_forward_pre_hook(look(name), with_kwargs=True) for name, layer in layers.items()]
    for part in images.split(batch, images.ndim - 4):
        folded(part)
    for handle in handles:
        handle.remove()
    for name, layer in layers.items():
        parent, _, child = name.rpartition(".")
        setattr(folded.get_submodule(parent), child, _held(name, layer, sums[name] / counts[name]))
    return folded


def _held(name: str, layer: FoldedLayer, divisor: Tensor) -> ProjectionLayer:
    if not (divisor > 0).all():
        raise ValueError(f"nothing ever divides in {name}: the calibration images must be ones that it sees")
    gain = (layer.gain_e / divisor).to(layer.kernel)
    kernel = layer.kernel[: len(gain)] * gain.view(-1, *(1,) * (layer.kernel.ndim - 1))
    projection: nn.Conv2d | nn.Linear
    connection = layer.connection
    if isinstance(connection, EF.Conv):
        geometry = connection.stride, connection.padding, connection.dilation
        projection = PlainConv2d(kernel.shape[1], len(kernel), (kernel.shape[2], kernel.shape[3]), *geometry)
    else:
        projection = nn.Linear(kernel.shape[1], len(kernel))
    assert projection.bias is not None
    projection.requires_grad_(False).to(kernel)
    projection.weight.copy_(kernel)
    projection.bias.copy_(layer.bias)
    return ProjectionLayer(projection, layer.neuron).eval()


def _dividing(folded: nn.Module) -> dict[str, FoldedLayer]:
    found = {name: layer for name, layer in layers_of(folded).items() if isinstance(layer, FoldedLayer)}
    if not found:
        raise ValueError(f"nothing divides in this {type(folded).__name__}; its neurons have no divisive inhibition")
    return found


def divides(model: nn.Module) -> bool:
    """Whether anything in `model`, initialised, divides."""
    return any(isinstance(layer, FoldedLayer) for layer in layers_of(fold(model)).values())
