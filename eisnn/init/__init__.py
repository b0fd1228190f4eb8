"""E-I Init: what fills the circuits before training, from one batch of data or from a firing probability."""

from eisnn.init import attention, recurrent  # register how attention and cortical circuits are filled
from eisnn.init.from_data import adjust_, ei_init_, fill_
from eisnn.init.statistics import (
    InputStatistics,
    UnusableInput,
    bernoulli_statistics,
    inhibitory_gain,
    measure_input,
    weight_scale,
)

__all__ = [
    "InputStatistics",
    "UnusableInput",
    "adjust_",
    "attention",
    "bernoulli_statistics",
    "ei_init_",
    "fill_",
    "inhibitory_gain",
    "measure_input",
    "recurrent",
    "weight_scale",
]
