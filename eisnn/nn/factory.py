"""Layer factories: which kind of layer a model is built of (`circuit="ei"`, `"bn"`, ...)."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from eisnn.nn.baselines import BNConv2d, BNLinear, LinearReadout
from eisnn.nn.circuit import EIConv2d, EILinear, EIReadout
from eisnn.nn.options import PAPER, CircuitOptions


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


def _ei(neuron: nn.Module | None, ei_ratio: int = 4, options: CircuitOptions = PAPER) -> Layers:
    """The paper's circuit, or one that departs from it by `options`."""
    return Layers(
        partial(EIConv2d, neuron=neuron, ei_ratio=ei_ratio, options=options),
        partial(EILinear, neuron=neuron, ei_ratio=ei_ratio, options=options),
        partial(EIReadout, ei_ratio=ei_ratio, options=options),
    )


def _bn(neuron: nn.Module | None) -> Layers:
    """Conv-BN-LIF, the baseline."""
    return Layers(partial(BNConv2d, neuron=neuron), partial(BNLinear, neuron=neuron), LinearReadout)


# To add a circuit: a function (neuron, options...) -> Layers, and its name here.
CIRCUITS: dict[str, Callable[..., Layers]] = {"ei": _ei, "bn": _bn}


def make_layers(circuit: str, neuron: nn.Module | None, **options: Any) -> Layers:
    """The factory of `circuit`; ValueError for an unknown name, TypeError for an option it does not have."""
    if circuit not in CIRCUITS:
        raise ValueError(f"unknown circuit {circuit!r}; known: {', '.join(CIRCUITS)}")
    known = list(inspect.signature(CIRCUITS[circuit]).parameters)[1:]
    unknown = [name for name in options if name not in known]
    if unknown:
        has = f"its options: {', '.join(known)}" if known else "it has no options"
        raise TypeError(f"the circuit {circuit!r} does not take {', '.join(unknown)}; {has}")
    return CIRCUITS[circuit](neuron, **options)
