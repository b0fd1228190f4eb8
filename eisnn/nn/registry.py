"""Circuits by name: which kind of layer a model is built of (`circuit="ei"`, `"bn"`, ...).

A circuit is registered in the file that defines it; `eisnn.methods` imports those of the package.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from eisnn.nn.layer import SpikingLayer
from eisnn.nn.neurons import LIF


@dataclass(frozen=True)
class Layers:
    """Constructors of the kinds of layer with weights a model consists of.

    `conv(in_channels, out_channels, kernel_size, stride=, padding=)` and `linear(in_features, out_features)` end in a
    neuron; `readout(in_features, out_features)` does not. All make a `SpikingLayer`. `neuron` is what layers without
    weights end in, such as attention; `make_layers` fills it.
    """

    conv: Callable[..., SpikingLayer]
    linear: Callable[..., SpikingLayer]
    readout: Callable[..., SpikingLayer]
    neuron: nn.Module | None = None


@dataclass(frozen=True)
class Circuit:
    """A registered circuit.

    Args:
        layers: `(neuron, time_steps, **options) -> Layers`.
        neurons: "any" module can be its neurons; "own": it has neurons of its own, which take their constants from an
            `LIF`; "rate": its units have no spikes, leak or state.
        options: names of its options.
    """

    layers: Callable[..., Layers]
    neurons: str
    options: tuple[str, ...]

    @property
    def default_neuron(self) -> nn.Module:
        """What a layer ends in, unless told otherwise."""
        return nn.ReLU() if self.neurons == "rate" else LIF()


CIRCUITS: dict[str, Circuit] = {}


def register(name: str, *, neurons: str = "any") -> Callable[[Callable[..., Layers]], Callable[..., Layers]]:
    """Decorator that enters a function `(neuron, time_steps, **options) -> Layers` as the circuit `name`.

    Args: see `Circuit`.
    Raises: ValueError for a name that is taken, or another kind of neurons.
    """
    if neurons not in ("any", "own", "rate"):
        raise ValueError(f'neurons must be "any", "own" or "rate", got {neurons!r}')

    def enter(layers: Callable[..., Layers]) -> Callable[..., Layers]:
        if name in CIRCUITS:
            raise ValueError(f"there is a circuit {name!r} already; register another name")
        CIRCUITS[name] = Circuit(layers, neurons, tuple(inspect.signature(layers).parameters)[2:])
        return layers

    return enter


def circuit_of(name: str) -> Circuit:
    """The circuit called `name`; ValueError with the known names for any other."""
    if name not in CIRCUITS:
        hint = "; -plus is circuit 'ei' with circuit_options=eisnn.PLUS" if "plus" in name.lower() else ""
        raise ValueError(f"unknown circuit {name!r}; known: {', '.join(CIRCUITS)}{hint}")
    return CIRCUITS[name]


def make_layers(circuit: str, neuron: nn.Module | None, time_steps: int | None = None, **options: Any) -> Layers:
    """The constructors of `circuit`; ValueError for an unknown name, TypeError for an option it does not have.

    Args:
        circuit: one of `CIRCUITS`.
        neuron: copied into each layer; None returns the currents.
        time_steps: T, which circuits with parameters for each step need.
        **options: of the circuit.
    """
    found = circuit_of(circuit)
    if unknown := [name for name in options if name not in found.options]:
        has = f"its options: {', '.join(found.options)}" if found.options else "it has no options"
        raise TypeError(f"the circuit {circuit!r} does not take {', '.join(unknown)}; {has}")
    return replace(found.layers(neuron, time_steps, **options), neuron=neuron)
