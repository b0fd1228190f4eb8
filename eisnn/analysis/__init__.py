"""Looking inside a network: recording, measures, stimuli and perturbations. Layers know nothing of it."""

from eisnn.analysis.dose import DoseResponse, assess, dose_response
from eisnn.analysis.layers import CURRENTS, QUANTITIES, spiking_layers
from eisnn.analysis.perturb import Perturbation, UndefinedDivision, mean_division, perturb
from eisnn.analysis.record import Recording, RunningStatistics, record, running_statistics

__all__ = [
    "CURRENTS",
    "QUANTITIES",
    "DoseResponse",
    "Perturbation",
    "Recording",
    "RunningStatistics",
    "UndefinedDivision",
    "assess",
    "dose_response",
    "mean_division",
    "perturb",
    "record",
    "running_statistics",
    "spiking_layers",
]
