"""The mathematics as pure functions: tensors in, tensors out."""

from eisnn.functional.circuit import (
    Currents,
    Synapses,
    currents_of,
    ei_circuit,
    ei_currents,
    ei_readout,
    integrate,
    scale_gradient,
)
from eisnn.functional.connection import Connection, Conv, Dense, fan_in, lateral, per_neuron
from eisnn.functional.conserved import (
    ConservedKernel,
    center_gradient,
    conserve,
    conserved_synapses,
    conserved_weights,
    divisive_weight,
    fix_norm,
)
from eisnn.functional.folded import (
    FoldedCurrents,
    Kernel,
    StackedCurrents,
    StackedKernel,
    ei_circuit_folded,
    ei_readout_folded,
    fold,
    folded_currents,
    project,
    split_currents,
    stacked_currents,
)
from eisnn.functional.lif import LIFConstants, lif, lif_reference, lif_step
from eisnn.functional.pooling import average_pool
from eisnn.functional.population import population, population_reference
from eisnn.functional.stabilize import smallest_positive, stabilize, undivided
from eisnn.functional.surrogate import SURROGATES, heaviside, surrogate_derivative

__all__ = [
    "SURROGATES",
    "Connection",
    "ConservedKernel",
    "Conv",
    "Currents",
    "Dense",
    "FoldedCurrents",
    "Kernel",
    "LIFConstants",
    "StackedCurrents",
    "StackedKernel",
    "Synapses",
    "average_pool",
    "center_gradient",
    "conserve",
    "conserved_synapses",
    "conserved_weights",
    "currents_of",
    "divisive_weight",
    "ei_circuit",
    "ei_circuit_folded",
    "ei_currents",
    "ei_readout",
    "ei_readout_folded",
    "fan_in",
    "fix_norm",
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
    "project",
    "scale_gradient",
    "smallest_positive",
    "split_currents",
    "stabilize",
    "stacked_currents",
    "surrogate_derivative",
    "undivided",
]
