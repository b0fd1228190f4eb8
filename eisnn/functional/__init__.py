"""The mathematics as it reads, in pure functions: tensors in, tensors out. `eisnn.ops` has the same functions fast."""

from eisnn.functional.attention import attend, attention_map, attention_sum, keys_first
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
    center_gradient,
    conserve,
    conserved_synapses,
    conserved_weights,
    divisive_weight,
    fix_norm,
)
from eisnn.functional.division import EXACT, Division
from eisnn.functional.folded import FoldedCurrents, fold, split_currents
from eisnn.functional.lif import LIFConstants, lif, lif_step, potential_after
from eisnn.functional.population import population
from eisnn.functional.stabilize import smallest_positive, stabilize, undivided
from eisnn.functional.surrogate import SURROGATES, heaviside, surrogate_derivative

__all__ = [
    "EXACT",
    "SURROGATES",
    "Connection",
    "Conv",
    "Currents",
    "Dense",
    "Division",
    "FoldedCurrents",
    "LIFConstants",
    "Synapses",
    "attend",
    "attention_map",
    "attention_sum",
    "center_gradient",
    "conserve",
    "conserved_synapses",
    "conserved_weights",
    "currents_of",
    "divisive_weight",
    "ei_circuit",
    "ei_currents",
    "ei_readout",
    "fan_in",
    "fix_norm",
    "fold",
    "heaviside",
    "integrate",
    "keys_first",
    "lateral",
    "lif",
    "lif_step",
    "per_neuron",
    "population",
    "potential_after",
    "scale_gradient",
    "smallest_positive",
    "split_currents",
    "stabilize",
    "surrogate_derivative",
    "undivided",
]
