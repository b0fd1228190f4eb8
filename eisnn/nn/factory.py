"""Layer factories: which kind of layer a model is built of (`circuit="ei"`, `"bn"`, ...)."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import nn

from eisnn.nn.ablations import AblatedConv2d, AblatedLinear, AblatedReadout, ablated
from eisnn.nn.backei import BackEILayer
from eisnn.nn.baselines import BNConv2d, BNLinear, LinearReadout, plain_conv, plain_linear
from eisnn.nn.circuit import EIConv2d, EILinear, EIReadout
from eisnn.nn.dann import DANNConv2d, DANNLinear, DANNReadout
from eisnn.nn.lif import LIF
from eisnn.nn.neunorm import NeuNorm
from eisnn.nn.normalization import BNTT, TAB, TDBN, TEBN, SequenceNorm, TimedNorm
from eisnn.nn.normalized import NormalizedLayer
from eisnn.nn.options import PAPER, CircuitOptions
from eisnn.nn.plain import Init, PlainLayer, activity_preserving_, fluctuation_driven_, lif_constants


@dataclass(frozen=True)
class Layers:
    """Constructors of the three kinds of layer a model consists of.

    `conv(in_channels, out_channels, kernel_size, stride=, padding=)` and `linear(in_features, out_features)` end in a
    neuron; `readout(in_features, out_features)` does not. All take sequences `[T, B, ...]` and are called as
    described in `eisnn.nn.layer`.
    """

    conv: Callable[..., nn.Module]
    linear: Callable[..., nn.Module]
    readout: Callable[..., nn.Module]


def _ei(
    neuron: nn.Module | None,
    time_steps: int | None,
    ei_ratio: int = 4,
    options: CircuitOptions = PAPER,
    ablation: str | None = None,
) -> Layers:
    """The paper's circuit, or one that departs from it by `options`, or lacks a part by the name of an `ablation`."""
    if ablation is None:
        return Layers(
            partial(EIConv2d, neuron=neuron, ei_ratio=ei_ratio, options=options),
            partial(EILinear, neuron=neuron, ei_ratio=ei_ratio, options=options),
            partial(EIReadout, ei_ratio=ei_ratio, options=options),
        )
    if options != PAPER:
        raise ValueError(f"an ablation is of the paper's circuit, without other options; got {options}")
    missing = ablated(ablation)
    return Layers(
        partial(AblatedConv2d, neuron=neuron, ei_ratio=ei_ratio, ablation=missing),
        partial(AblatedLinear, neuron=neuron, ei_ratio=ei_ratio, ablation=missing),
        partial(AblatedReadout, ei_ratio=ei_ratio, ablation=missing),
    )


def _bn(neuron: nn.Module | None, time_steps: int | None) -> Layers:
    """Conv-BN-LIF, the baseline."""
    return Layers(partial(BNConv2d, neuron=neuron), partial(BNLinear, neuron=neuron), LinearReadout)


def _projected(kind: Callable[..., nn.Module], neuron: nn.Module | None) -> Layers:
    """Layers that `kind(projection, neuron)` makes of a projection without bias."""

    def conv(*sizes: Any, **geometry: Any) -> nn.Module:
        return kind(plain_conv("conv", *sizes, **geometry), neuron)

    def linear(in_features: int, out_features: int) -> nn.Module:
        return kind(plain_linear("linear", in_features, out_features), neuron)

    return Layers(conv, linear, LinearReadout)


def _normalized(neuron: nn.Module | None, norm: Callable[[int], SequenceNorm]) -> Layers:
    def layer(projection: nn.Conv2d | nn.Linear, neuron: nn.Module | None) -> nn.Module:
        return NormalizedLayer(projection, norm(len(projection.weight)), neuron)

    return _projected(layer, neuron)


def _tdbn(neuron: nn.Module | None, time_steps: int | None) -> Layers:
    """Threshold-dependent batch norm, scaled to the threshold of the neuron."""
    return _normalized(neuron, partial(TDBN, threshold=lif_constants(neuron).theta))


def _timed(norm: type[TimedNorm]) -> Callable[..., Layers]:
    """The factory of a normalization with parameters for each step."""

    def layers(neuron: nn.Module | None, time_steps: int | None) -> Layers:
        if time_steps is None:
            raise ValueError(f"{norm.__name__} has parameters for each time step: give time_steps")
        return _normalized(neuron, partial(norm, time_steps=time_steps))

    return layers


def _neunorm(neuron: nn.Module | None, time_steps: int | None) -> Layers:
    """Conv-LIF-NeuNorm."""
    return _normalized(neuron, NeuNorm)


def _plain(init: Init) -> Callable[..., Layers]:
    """The factory of Conv-LIF with weights by `init`."""
    return lambda neuron, time_steps: _projected(partial(PlainLayer, init=init), neuron)


def _backei(neuron: nn.Module | None, time_steps: int | None) -> Layers:
    """Self-feedback and signed spikes in convolutional layers, plain linear ones."""
    return replace(_projected(PlainLayer, neuron), conv=_projected(BackEILayer, neuron).conv)


def _dann(neuron: nn.Module | None, time_steps: int | None, ei_ratio: int = 4) -> Layers:
    """Cornford et al.'s E-I network; `neuron` is its unit, a ReLU in their paper."""
    return Layers(
        partial(DANNConv2d, neuron=neuron, ei_ratio=ei_ratio),
        partial(DANNLinear, neuron=neuron, ei_ratio=ei_ratio),
        DANNReadout,
    )


# To add a circuit: a function (neuron, time_steps, options...) -> Layers, and its name here.
CIRCUITS: dict[str, Callable[..., Layers]] = {
    "ei": _ei,
    "bn": _bn,
    "tdbn": _tdbn,
    "bntt": _timed(BNTT),
    "tebn": _timed(TEBN),
    "tab": _timed(TAB),
    "neunorm": _neunorm,
    "dann": _dann,
    "backei": _backei,
    "plain": _plain(fluctuation_driven_),
    "dap": _plain(activity_preserving_),
}
RATE_CIRCUITS = ("dann",)  # whose units are ReLUs, without spikes, leak or state


def default_neuron(circuit: str) -> nn.Module:
    """What a layer of `circuit` ends in, unless told otherwise."""
    return nn.ReLU() if circuit in RATE_CIRCUITS else LIF()


def make_layers(circuit: str, neuron: nn.Module | None, time_steps: int | None = None, **options: Any) -> Layers:
    """The factory of `circuit`; ValueError for an unknown name, TypeError for an option it does not have.

    Args:
        circuit: one of `CIRCUITS`.
        neuron: copied into each layer; None returns the currents.
        time_steps: T, which circuits with parameters for each step need.
        **options: of the circuit.
    """
    if circuit not in CIRCUITS:
        raise ValueError(f"unknown circuit {circuit!r}; known: {', '.join(CIRCUITS)}")
    known = list(inspect.signature(CIRCUITS[circuit]).parameters)[2:]
    unknown = [name for name in options if name not in known]
    if unknown:
        has = f"its options: {', '.join(known)}" if known else "it has no options"
        raise TypeError(f"the circuit {circuit!r} does not take {', '.join(unknown)}; {has}")
    return CIRCUITS[circuit](neuron, time_steps, **options)
