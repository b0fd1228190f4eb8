"""Perturb the cells of a kind, as an experimenter does by light or current."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import ceil, inf, isfinite

import torch
from torch import Tensor, nn

from eisnn.cortex.layer import CorticalLayer
from eisnn.functional.checks import check_int, chosen_neurons
from eisnn.functional.cortex import Stimulus
from eisnn.nn import layers_of


@contextmanager
def stimulate(model: nn.Module, stimuli: Mapping[str, Mapping[str, Stimulus]]) -> Iterator[None]:
    """Run `model` with stimulated cells inside the `with` block; afterwards, also after an error, it is as before.

    `stimulate(model, {"layers.1": {"PV": Stimulus(factor=0, neurons=[0, 3], onset=200, offset=400)}})` silences two PV
    cells for 200 ms. Nested blocks add up, as long as they stimulate different kinds of cells. A copy of the model made
    inside keeps its stimuli.

    Args:
        model: any module that holds cortical layers, or one by itself, whose name is "".
        stimuli: by layer and kind of cell ("E", "PV", "SST", "VIP") a `Stimulus`: `factor` on the output, 0 silences;
            `current` into the cells; `onset` and `offset`, ms from the start of each call, or a `course` `[T]`.
            `neurons` are indices, or a boolean mask: `[n]`, in convolutional layers also of positions `[H, W]` (see
            `disc`) or of both `[n, H, W]`. A measure makes one: `neurons=tuning.selectivity > 0.3`.
    Raises: ValueError for a name that is no cortical layer's, a kind of cell that the layer has not or that is
        stimulated already, no neurons or such as there are not, a factor below 0, what is not finite, times or a course
        out of range or between two steps; from the layer, when it runs, for a tensor, map or course of another size.
    """
    layers = {name: layer for name, layer in layers_of(model).items() if isinstance(layer, CorticalLayer)}
    made: dict[str, dict[str, Stimulus]] = {}
    for name, kinds in stimuli.items():
        if name not in layers:
            there = ", ".join(map(repr, layers)) or "none"
            raise ValueError(f"no cortical layer is called {name!r}; there are: {there}")
        if unknown := [kind for kind in kinds if kind not in layers[name].populations()]:
            has = ", ".join(layers[name].populations())
            raise ValueError(f"{name or 'the layer'} has no cells of kind {', '.join(unknown)}; it has: {has}")
        if twice := [kind for kind in kinds if kind in layers[name].stimuli]:
            raise ValueError(f"{', '.join(twice)} of {name or 'the layer'} is stimulated already: end that block first")
        made[name] = {kind: _checked(stimulus, layers[name], kind, name) for kind, stimulus in kinds.items()}
    before = {name: layers[name].stimuli for name in made}
    try:
        for name, kinds in made.items():
            layers[name].stimuli = before[name] | kinds
        yield
    finally:
        for name, kept in before.items():
            layers[name].stimuli = kept


def disc(height: int, width: int, radius: float, centre: tuple[float, float] | None = None) -> Tensor:
    """Positions of a map within `radius` of `centre` (row, column; None is the middle), a boolean mask
    `[height, width]`: light that is shone on a part of the cortex.

    Raises: ValueError unless the sizes are ints >= 1, the radius is finite and >= 0, and the centre is finite.
    """
    check_int("disc", "height", height)
    check_int("disc", "width", width)
    if not 0 <= radius < inf:
        raise ValueError(f"disc: radius must be finite and >= 0, got {radius!r}")
    row, column = ((height - 1) / 2, (width - 1) / 2) if centre is None else centre
    if not (isfinite(row) and isfinite(column)):
        raise ValueError(f"disc: centre must be finite, got {centre!r}")
    return (torch.arange(height)[:, None] - row) ** 2 + (torch.arange(width) - column) ** 2 <= radius**2


def _checked(stimulus: Stimulus, layer: CorticalLayer, kind: str, name: str) -> Stimulus:
    """As tensors that the layer takes; ValueError for what is out of range."""
    factor, current = (torch.as_tensor(v).to(layer.weight_ee) for v in (stimulus.factor, stimulus.current))
    if not bool(((factor >= 0) & factor.isfinite()).all()):
        raise ValueError(
            f"the factor on the output of {kind} must be finite and >= 0 (0 silences), got {stimulus.factor}"
        )
    if not bool(current.isfinite().all()):
        raise ValueError(f"the current into {kind} must be finite, got {stimulus.current}")
    onset, offset, course, neurons = stimulus.onset, stimulus.offset, stimulus.course, stimulus.neurons
    if not 0 <= onset < (inf if offset is None else offset):
        raise ValueError(
            f"a stimulus of {kind} begins at an onset >= 0 and ends at a later offset, in ms; got {onset!r}, {offset!r}"
        )
    dt = layer.options.dt
    if offset is not None and ceil(onset / dt) * dt >= offset:
        raise ValueError(
            f"a stimulus of {kind} must reach a step; no step of {dt:g} ms begins from {onset!r} to {offset!r} ms"
        )
    if course is not None:
        if (onset, offset) != (0, None):
            raise ValueError(f"give a stimulus of {kind} a course, or an onset and an offset; got both")
        course = torch.as_tensor(course).to(layer.weight_ee)
        if course.ndim != 1 or not bool(((course >= 0) & (course <= 1)).all()):
            raise ValueError(f"the course of a stimulus of {kind} must be [T] values in [0, 1], got {stimulus.course}")
    if neurons is not None:
        neurons, spatial = torch.as_tensor(neurons), layer.connections["forward"].spatial
        if not (spatial and neurons.dtype is torch.bool and neurons.ndim in (2, 3)):
            owner = name or "the layer"
            neurons = chosen_neurons(owner, neurons, layer.sizes[kind], f"{kind} cells").view(-1, *(1,) * spatial)
        if not bool(neurons.any()):
            raise ValueError(f"a stimulus of {kind} must reach at least one cell, got neurons that choose none")
        neurons = neurons.view(*(1,) * (1 + spatial - neurons.ndim), *neurons.shape).to(layer.weight_ee)
    return stimulus._replace(factor=factor, current=current, neurons=neurons, course=course)
