"""The layers of a model that can be looked into, and what their neurons do."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from eisnn.functional import Synapses
from eisnn.nn import LIF, SpikingLayer, layers_of
from eisnn.ops.scan import scan_, scan_backward_


def spiking_layers(model: nn.Module) -> dict[str, SpikingLayer]:
    """The hidden layers of `model` by name, but for those of units that do not spike (DANN)."""
    return {name: layer for name, layer in layers_of(model).items() if layer.hidden and not layer.rate_coded}


def synapses(model: nn.Module) -> dict[str, Synapses]:
    """The weights with which each circuit acts, all >= 0, by layer (`layer.synapses()`).

    These, not the parameters, are what to look at: in exact balance the parameters are in a form of their own.
    Layers without a circuit are left out, as are ablated ones, whose currents are not those of such weights.
    """
    found = {name: layer.synapses() for name, layer in layers_of(model).items()}
    return {
        name: Synapses(*(w.detach() for w in s if w is not None))  # only the last may be None
        for name, s in found.items()
        if s is not None
    }


@contextmanager
def evaluated(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the `with` block; afterwards each module is in the mode that it was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def choose_layers(model: nn.Module, layers: str | Iterable[str] | None) -> dict[str, SpikingLayer]:
    """The layers of these names (None: all); ValueError for a name that is no hidden layer's."""
    found = spiking_layers(model)
    names = list(found) if layers is None else names_of(layers)
    if unknown := [name for name in names if name not in found]:
        raise ValueError(f"no hidden layer is called {', '.join(unknown)}; there are: {', '.join(found) or 'none'}")
    return {name: found[name] for name in names}


def names_of(given: str | Iterable[str]) -> list[str]:
    """Each name once; a string is one name."""
    return [given] if isinstance(given, str) else list(dict.fromkeys(given))


def available(layer: SpikingLayer) -> tuple[str, ...]:
    """What can be recorded of this layer: its `quantities`, of those of a circuit `I_EE`, `I_sub`, `I_div`, `I_E` and
    `undivided`; membrane and spikes of its neuron, of which only `LIF` shows its membrane; and the gradient, unless its
    spikes come back to it."""
    if layer.neuron is None:
        return (*layer.quantities(), "gradient")
    seen = ("membrane", "spikes") if type(layer.neuron) is LIF else ("spikes",)
    gradient = ("gradient",) if type(layer.neuron) is LIF and not layer.feeds_back else ()
    return (*layer.quantities(), *seen, *gradient)


@torch.no_grad()
def membrane(i_e: Tensor, neuron: LIF, time_steps: int, state: Tensor | None = None) -> Tensor:
    """Potential `H[t]` that meets the threshold, `[T, B, ...]`, eq. (2), of a current `[T or 1, B, ...]`."""
    potentials = i_e.expand(time_steps, *i_e.shape[1:]).to(torch.promote_types(i_e.dtype, torch.float32), copy=True)
    scan_(potentials, torch.empty_like(potentials), state, neuron.constants)
    return potentials


@torch.no_grad()
def current_gradient(potentials: Tensor, grad_spikes: Tensor, neuron: LIF) -> Tensor:
    """`dL/dI_E` `[T, B, ...]` at each step, from `membrane` and `dL/ds`, by the surrogate of the neuron."""
    return scan_backward_(potentials.clone(), grad_spikes.to(potentials.dtype), None, neuron.constants)[0]
