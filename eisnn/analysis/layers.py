"""What can be seen in each kind of spiking layer, and how it is computed from the layer's input.

The fused path of a layer never forms its inner currents; they are computed here once more, as written in eqs. (9)-(14).
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeGuard

import torch
from torch import Tensor, nn

from eisnn import functional as EF
from eisnn.analysis.perturbed import PerturbedLayer
from eisnn.functional.lif import scan_, scan_backward_
from eisnn.functional.stabilize import zero_level
from eisnn.nn import LIF, EILayer
from eisnn.nn.ablations import AblatedConv2d, AblatedLinear
from eisnn.nn.baselines import ProjectionLayer
from eisnn.nn.folded import FoldedLayer

CURRENTS = ("I_EE", "I_sub", "I_div", "I_E")
QUANTITIES = (*CURRENTS, "undivided", "membrane", "spikes", "gradient")

SpikingLayer = EILayer | ProjectionLayer | FoldedLayer


def spiking_layers(model: nn.Module) -> dict[str, SpikingLayer]:
    """The hidden layers of `model` by name: E-I circuits, whole, folded or perturbed, and the layers with a projection
    and a neuron that they are compared with, batch norm among them. Networks of ReLU units (DANN) have none."""
    return {name: module for name, module in model.named_modules() if isinstance(module, SpikingLayer)}


def has_synapses(layer: nn.Module) -> TypeGuard[EILayer | PerturbedLayer]:
    """Whether the currents of `layer` are those of its `synapses()`, so that changing these perturbs it: those of an
    ablated circuit are not, and a folded one has lost them."""
    return isinstance(layer, EILayer | PerturbedLayer) and not isinstance(layer, AblatedConv2d | AblatedLinear)


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
    """Which of `QUANTITIES` this layer has.

    A layer without a circuit has one current, which goes by `I_E` as it is what its neurons integrate. A folded circuit
    has lost the two that it subtracts. Of an ablated one nothing is said to be `undivided`, as it may divide by
    something else. Membrane and spikes are those of a neuron; only `LIF` shows its membrane.
    """
    found: tuple[str, ...] = (*CURRENTS, "undivided")
    if isinstance(layer, FoldedLayer) and not isinstance(layer, PerturbedLayer):
        found = ("I_div", "I_E", "undivided")
    elif isinstance(layer, AblatedConv2d | AblatedLinear):
        found = CURRENTS
    elif isinstance(layer, ProjectionLayer):
        found = ("I_E",)
    if layer.neuron is None:
        return (*found, "gradient")
    return (*found, *(("membrane", "spikes", "gradient") if type(layer.neuron) is LIF else ("spikes",)))


@torch.no_grad()
def circuit_currents(layer: EILayer | FoldedLayer, x: Tensor) -> dict[str, Tensor]:
    """All currents that a circuit has for its input `x` `[T or 1, B, ...]`, each `[T or 1, B, n_E, ...]`.

    In the precision of the weights, whatever that of `x` and of autocast: two large currents are subtracted.
    """
    with torch.autocast(x.device.type, enabled=False):
        if isinstance(layer, AblatedConv2d | AblatedLinear):
            x = x.to(layer.weight_ee.dtype)
            return dict(zip(CURRENTS, (*layer.currents_as_written(x), layer.integrated(x)), strict=True))
        if isinstance(layer, FoldedLayer) and not isinstance(layer, PerturbedLayer):
            found: dict[str, Tensor] = {}
            balanced, i_div = EF.split_currents(layer._project(x.to(layer.kernel.dtype), None), layer.weight)
        else:
            synapses = layer.synapses()
            i_ee, i_sub, i_div = EF.currents_of(x.to(synapses.weight_ee.dtype), synapses, layer.connection)
            if isinstance(layer, PerturbedLayer):
                i_sub, i_div = layer.injected(i_sub, i_div)
            found, balanced = {"I_EE": i_ee, "I_sub": i_sub}, i_ee - i_sub
        i_e = EF.integrate(balanced, i_div, layer.gain_e, layer.bias)
    undivided = (i_div <= zero_level(i_div)) & (balanced.abs() > zero_level(balanced.abs()))
    return found | {"I_div": i_div, "I_E": i_e, "undivided": undivided.to(i_e)}


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
