"""The mathematics as pure functions: tensors in, tensors out."""

from eisnn.functional.circuit import (
    Currents,
    FoldedCurrents,
    StackedCurrents,
    ei_circuit,
    ei_circuit_folded,
    ei_currents,
    ei_readout,
    ei_readout_folded,
    fold,
    folded_currents,
    integrate,
    scale_gradient,
    split_currents,
    stacked_currents,
    stacked_kernel,
)
from eisnn.functional.connection import Connection, Conv, Dense, fan_in, lateral, per_neuron
from eisnn.functional.lif import LIFConstants, lif, lif_reference, lif_step
from eisnn.functional.population import population, population_reference
from eisnn.functional.stabilize import smallest_positive, stabilize
from eisnn.functional.surrogate import SURROGATES, heaviside, surrogate_derivative

__all__ = [
    "SURROGATES",
    "Connection",
    "Conv",
    "Currents",
    "Dense",
    "FoldedCurrents",
    "LIFConstants",
    "StackedCurrents",
    "ei_circuit",
    "ei_circuit_folded",
    "ei_currents",
    "ei_readout",
    "ei_readout_folded",
    "fan_in",
    "fold",
    "folded_currents",
    "heaviside",
    "integrate",
    "lateral",
    "lif",
    "lif_reference",
    "lif_step",
    "per_neuron",
    "population",
    "population_reference",
    "scale_gradient",
    "smallest_positive",
    "split_currents",
    "stabilize",
    "stacked_currents",
    "stacked_kernel",
    "surrogate_derivative",
]
