"""Circuits by name."""

from typing import Any

import pytest
from torch import nn

import eisnn
from eisnn.methods import CIRCUITS
from eisnn.nn.registry import Layers, circuit_of, make_layers, register


def layers(neuron: nn.Module | None, time_steps: int | None, strength: float = 1.0) -> Any:
    return Layers((neuron, time_steps), strength, None)


@pytest.fixture(autouse=True)
def own_circuits(monkeypatch):
    for name in list(CIRCUITS):
        monkeypatch.setitem(CIRCUITS, name, CIRCUITS[name])
    yield
    CIRCUITS.pop("mine", None)


@pytest.mark.parametrize(("neurons", "default"), [("any", eisnn.LIF), ("own", eisnn.LIF), ("rate", nn.ReLU)])
def test_a_circuit_is_entered_with_its_options_and_neurons(neurons, default):
    assert register("mine", neurons=neurons)(layers) is layers
    found = circuit_of("mine")
    assert (found.layers, found.neurons, found.options) == (layers, neurons, ("strength",))
    assert type(found.default_neuron) is default
    neuron = eisnn.LIF()
    assert make_layers("mine", neuron, 3, strength=2.0) == Layers((neuron, 3), 2.0, None, neuron)
    with pytest.raises(ValueError, match="there is a circuit 'mine' already; register another name"):
        register("mine")(layers)


def test_other_names_and_neurons_are_refused():
    with pytest.raises(ValueError, match='neurons must be "any", "own" or "rate", got \'spiking\''):
        register("mine", neurons="spiking")
    with pytest.raises(ValueError, match=r"unknown circuit 'mine'; known: .*ei"):
        circuit_of("mine")
