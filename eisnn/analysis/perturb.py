"""Perturb the inhibition of a trained network as an experimenter would, and put it back.

Each perturbation is a change of the weights with which a circuit acts (`EILayer.synapses()`): a lesion mask m on the I
neurons gives `W = W_EE - W_EI diag(m) W_IE` and `M = W_EI diag(m g_I)`. The changed circuit is folded into a layer for
inference that stands in the model's place of the old one inside the `with` block.

Inhibition here is feed-forward and instantaneous: silencing I neurons disinhibits, and no paradoxical effect (Tsodyks
et al. 1997) can appear, as no I neuron receives input from the E neurons that it inhibits. Cells of recurrent layers,
of any kind and for a while, are perturbed by `eisnn.cortex.stimulate`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from math import inf
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn

from eisnn import functional as EF
from eisnn.analysis.layers import choose_layers, spiking_layers
from eisnn.analysis.measures.values import Values
from eisnn.analysis.perturbed import PerturbedLayer
from eisnn.analysis.record import is_recorded, running_statistics
from eisnn.functional.checks import check_int, chosen_neurons
from eisnn.nn import EILayer, SpikingLayer, uninitialized


class UndefinedDivision(ValueError):
    """Nothing divides any more, and there is no semisaturation: `I_E = N / 0` has no value."""


@dataclass(frozen=True, kw_only=True)
class Perturbation:
    """What is changed in each circuit; the default changes nothing.

    Args:
        activity: factor on the output of the chosen I neurons, >= 0; 0 silences them ("optogenetics").
        fraction: which part of each layer's I neurons `activity` and `inject_i` act on, in [0, 1], chosen at random.
            With the same seed the neurons of a smaller part are among those of a larger one.
        neurons: by layer, the I neurons to choose instead: their indices, or a boolean mask `[n_I]`; none of a layer
            that it does not name.
        subtractive: factor on subtractive inhibition, >= 0.
        divisive: factor on divisive inhibition, >= 0; semisaturation stays, as it is no inhibition.
        gain_i: clamp `g_I` of every I neuron to this value, >= 0 (see `effective_gain`). One whose `g_I`
            is 0 then divides as in the paper's circuit, in proportion to how it subtracts.
        lesion_ee, lesion_ie, lesion_ei: part of the synapses of a pathway that is removed at random, in [0, 1]: E of
            the layer below -> E, -> I, and I -> E, of which each is lost for subtraction and division alike.
        inject_e: current added to each E neuron, units of `I_E` (1 is the threshold), any sign.
        inject_i: current added to the chosen I neurons, units of `s_I`, >= 0; before `activity` acts.
        hold_division: by layer, a constant `[n_E]` > 0 in the place of `I_div`, so that nothing divides by the
            activity (see `mean_division`); layers that it does not name keep theirs.
        seed: of all that is random, >= 0; each layer draws its own from it.
    Raises: ValueError naming the field, the value and its range.
    """

    activity: float = 1.0
    fraction: float = 1.0
    neurons: Mapping[str, Sequence[int] | Values] | None = None
    subtractive: float = 1.0
    divisive: float = 1.0
    gain_i: float | None = None
    lesion_ee: float = 0.0
    lesion_ie: float = 0.0
    lesion_ei: float = 0.0
    inject_e: float = 0.0
    inject_i: float = 0.0
    hold_division: Mapping[str, Tensor] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_int("Perturbation", "seed", self.seed, 0)
        parts = ("fraction", "lesion_ee", "lesion_ie", "lesion_ei")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in ("neurons", "hold_division", "seed") or value is None:
                continue
            low, high = (-inf if field.name == "inject_e" else 0), (1 if field.name in parts else inf)
            if not (low <= value <= high and abs(value) < inf):
                wanted = "a finite number" if low < 0 else "in [0, 1]" if high == 1 else "finite and >= 0"
                raise ValueError(f"{field.name} must be {wanted}, got {value!r}")
        if self.neurons is not None and self.fraction != 1:
            raise ValueError(f"give neurons or a fraction of them, got both, with fraction {self.fraction!r}")
        for name, level in (self.hold_division or {}).items():
            if not bool((level > 0).all()):
                raise ValueError(f"hold_division of {name} must be > 0 everywhere, got {float(level.min())!r}")


@contextmanager
def perturb(model: nn.Module, change: Perturbation, layers: str | Iterable[str] | None = None) -> Iterator[None]:
    """Run `model` with perturbed circuits inside the `with` block; afterwards, also after an error, it is as before.

    Inside the block the perturbed layers infer; they cannot be trained. Perturbations can be nested: the inner one
    changes what the outer one has left.

    Args:
        model: any module that holds E-I layers; the readout stays as it is.
        change: what to do to each layer.
        layers: one name or several, as in `model.named_modules()`; None takes every hidden E-I layer.
    Raises:
        UndefinedDivision: a layer without semisaturation has no divisive inhibition left.
        ValueError: a name is no E-I layer's, or `neurons` or `hold_division` do not fit one.
        RuntimeError: a circuit was never initialised, or is being recorded (perturb first, then record).
    """
    chosen = _circuits(model, layers)
    for field in ("neurons", "hold_division"):
        if unknown := [name for name in getattr(change, field) or {} if name not in chosen]:
            raise ValueError(f"{field} names {', '.join(unknown)}; perturbed are {', '.join(chosen)}")
    swapped: dict[nn.Module, nn.Module] = {}
    for name, layer in chosen.items():
        if is_recorded(layer):
            raise RuntimeError(f"{name} is being recorded: perturb first, `with perturb(...), record(...) as r:`")
        swapped[layer] = perturbed_layer(layer, change, name)
    _replace(model, swapped)
    try:
        yield
    finally:
        _replace(model, {new: old for old, new in swapped.items()})


def perturbed_layer(layer: EILayer | PerturbedLayer, change: Perturbation, name: str = "") -> PerturbedLayer:
    """The layer for inference that `perturb` puts in the place of `layer`; `name` is its name in the model, of which
    the random choices depend."""
    synapses = layer.synapses()
    assert synapses is not None
    draws = torch.Generator().manual_seed(_seed(change.seed, name))
    chosen = _choose(change, synapses.subtractive.shape[1], name, draws).to(synapses.subtractive)
    changed = _lesioned(_scaled(synapses, change, chosen), change, draws)
    if change.hold_division is not None and name in change.hold_division:
        changed = _held(changed, change.hold_division[name], name)
    injected = chosen * change.inject_i
    _require_division(synapses, changed, injected, name)
    origin = layer
    if isinstance(layer, PerturbedLayer):
        origin, injected = layer.origin, injected + layer.inject_i
    assert isinstance(origin, EILayer)
    return PerturbedLayer(origin, changed, layer.bias + change.inject_e, injected)


def effective_gain(synapses: EF.Synapses) -> Tensor:
    """`g_I` `[n_I]` with which each I neuron divides, relative to how it subtracts: the ratio of the sums of its
    divisive and its subtractive synapses. In the paper's circuit it is the parameter `gain_i`. NaN for an I neuron
    without synapses."""
    return synapses.divisive.sum(0) / synapses.subtractive.sum(0)


@torch.no_grad()
def mean_division(model: nn.Module, images: Tensor, layers: str | Iterable[str] | None = None) -> dict[str, Tensor]:
    """Mean divisive current `I_div` of each E neuron (channel) for `images`, `[n_E]` by layer: what `hold_division`
    puts in the place of the current itself. Where it is never positive, the smallest positive mean of the layer.

    Raises: UndefinedDivision if a layer's divisive current is zero everywhere.
    """
    chosen = _circuits(model, layers)
    with running_statistics(model, chosen, "I_div") as found:
        model(images)
    maps = {name: quantities["I_div"].mean for name, quantities in found.items()}  # [n_E] or [n_E, H, W]
    means = {name: each.reshape(len(each), -1).mean(1) for name, each in maps.items()}
    for name, mean in means.items():
        if not bool((mean > 0).any()):
            raise UndefinedDivision(f"the divisive current of {name} is zero everywhere for these images")
        mean[mean <= 0] = mean[mean > 0].min()
    return means


def _circuits(model: nn.Module, layers: str | Iterable[str] | None) -> dict[str, EILayer | PerturbedLayer]:
    if names := uninitialized(model):
        raise RuntimeError(f"{', '.join(names)} was never initialised: call eisnn.ei_init_ or load a checkpoint first")
    if isinstance(model, SpikingLayer):
        raise ValueError("perturb takes a model with E-I layers in it; for one layer by itself use perturbed_layer")
    kinds = {name: layer for name, layer in spiking_layers(model).items() if layer.synapses() is not None}
    chosen = choose_layers(model, kinds if layers is None else layers)
    if not chosen:
        raise ValueError(
            f"{type(model).__name__} has no E-I layer to perturb (a folded or ablated one cannot be; "
            "cells of cortical layers: eisnn.cortex.stimulate)"
        )
    if wrong := [name for name in chosen if name not in kinds]:
        raise ValueError(
            f"{', '.join(wrong)} is no E-I layer, or an ablated one (of a folded one, perturb the model it comes from; "
            "cells of cortical layers: eisnn.cortex.stimulate)"
        )
    return {name: kinds[name] for name in chosen}  # type: ignore[misc]


def _replace(model: nn.Module, new: Mapping[nn.Module, nn.Module]) -> None:
    """Put other modules in the place of those in `new`, wherever `model` holds them, under every name."""
    for module in list(model.modules()):
        for name, child in module._modules.items():
            if child is not None and child in new:
                module._modules[name] = new[child]


def _seed(seed: int, name: str) -> int:
    """Of one layer: other layers draw others, and a layer the same whatever else is perturbed."""
    return int(np.random.SeedSequence((seed, crc32(name.encode()))).generate_state(1)[0])


def _choose(change: Perturbation, count: int, name: str, draws: torch.Generator) -> Tensor:
    """1 for the chosen ones of the `count` I neurons of a layer, 0 for the others."""
    if change.neurons is not None:
        return chosen_neurons(name or "the layer", change.neurons.get(name, ()), count, "I neurons").float()
    chosen = torch.zeros(count)
    chosen[torch.randperm(count, generator=draws)[: round(change.fraction * count)]] = 1
    return chosen


def _scaled(synapses: EF.Synapses, change: Perturbation, chosen: Tensor) -> EF.Synapses:
    """Clamped gain, scaled output of the chosen I neurons, scaled kinds of inhibition."""
    divisive = synapses.divisive
    if change.gain_i is not None:
        factor = torch.nan_to_num(change.gain_i / effective_gain(synapses), nan=0.0, posinf=0.0)
        divisive = torch.where(divisive.sum(0) > 0, divisive * factor, synapses.subtractive * change.gain_i)
    output = 1 + (change.activity - 1) * chosen
    return synapses._replace(
        subtractive=synapses.subtractive * output * change.subtractive, divisive=divisive * output * change.divisive
    )


def _lesioned(synapses: EF.Synapses, change: Perturbation, draws: torch.Generator) -> EF.Synapses:
    """Without a random part of the synapses of each pathway."""

    def kept(part: float, weight: Tensor) -> Tensor:
        return (torch.rand(weight.shape, generator=draws) >= part).to(weight)

    ee, ie = (
        w * kept(p, w) for w, p in ((synapses.weight_ee, change.lesion_ee), (synapses.weight_ie, change.lesion_ie))
    )
    ei = kept(change.lesion_ei, synapses.subtractive)
    return synapses._replace(
        weight_ee=ee, weight_ie=ie, subtractive=synapses.subtractive * ei, divisive=synapses.divisive * ei
    )


def _held(synapses: EF.Synapses, level: Tensor, name: str) -> EF.Synapses:
    """With a constant in the place of the divisive current."""
    n_e = len(synapses.divisive)
    if level.shape != (n_e,):
        raise ValueError(f"hold_division of {name} must have shape [{n_e}], got {list(level.shape)}")
    return synapses._replace(divisive=torch.zeros_like(synapses.divisive), sigma=level.to(synapses.divisive))


def _require_division(before: EF.Synapses, after: EF.Synapses, injected: Tensor, name: str) -> None:
    """UndefinedDivision if no E neuron can be divided by anything any more."""
    if after.sigma is not None and bool((after.sigma > 0).any()):
        return
    current = after.divisive @ (after.weight_ie.flatten(1).sum(1) + injected)
    if not bool((current > 0).any()):
        raise UndefinedDivision(
            f"no divisive inhibition is left in {name or 'the layer'}, and it has no semisaturation (sigma > 0), so "
            "its division is undefined: leave some, take a circuit with semisaturation, or hold the division constant "
            "(Perturbation(hold_division=mean_division(model, images)))"
        )
