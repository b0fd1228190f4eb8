"""Perturb the cells of a kind, as an experimenter does by light or current."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from eisnn.cortex.layer import CorticalLayer
from eisnn.functional.cortex import Stimulus
from eisnn.nn import layers_of


@contextmanager
def stimulate(model: nn.Module, stimuli: Mapping[str, Mapping[str, Stimulus]]) -> Iterator[None]:
    """Run `model` with stimulated cells inside the `with` block; afterwards, also after an error, it is as before.

    Args:
        model: any module that holds cortical layers, or one by itself, whose name is "".
        stimuli: by layer and kind of cell ("E", "PV", "SST", "VIP"): a `factor` on its output, 0 silences it, and a
            `current` into it. Numbers, or tensors that broadcast to `[T, B, n, ...]`: a mask `[1, 1, n]` chooses cells,
            `[T, 1, 1]` is a time course.
    Raises: ValueError for a name that is no cortical layer's, a kind of cell that the layer has not, or a factor below
        0 or NaN, or a current that is not finite; from the layer, when it runs, for a tensor of another size.
    """
    layers = {name: layer for name, layer in layers_of(model).items() if isinstance(layer, CorticalLayer)}
    for name, kinds in stimuli.items():
        if name not in layers:
            there = ", ".join(map(repr, layers)) or "none"
            raise ValueError(f"no cortical layer is called {name!r}; there are: {there}")
        if unknown := [kind for kind in kinds if kind not in layers[name].populations()]:
            has = ", ".join(layers[name].populations())
            raise ValueError(f"{name or 'the layer'} has no cells of kind {', '.join(unknown)}; it has: {has}")
        for kind, stimulus in kinds.items():
            if not bool((torch.as_tensor(stimulus.factor) >= 0).all()):
                raise ValueError(f"the factor on the output of {kind} must be >= 0 (0 silences), got {stimulus.factor}")
            if not bool(torch.as_tensor(stimulus.current).isfinite().all()):
                raise ValueError(f"the current into {kind} must be finite, got {stimulus.current}")
    before = {name: layers[name].stimuli for name in stimuli}
    try:
        for name, kinds in stimuli.items():
            layers[name].stimuli = dict(kinds)
        yield
    finally:
        for name, kept in before.items():
            layers[name].stimuli = kept
