"""Looking inside a network: recording, measures, stimuli, perturbations. Layers know nothing of it.

What needs an extra imports it where it is used; figures and movies (matplotlib) are modules of their own.
"""

from eisnn.analysis.balance import balance_ratio, ei_correlation, residual
from eisnn.analysis.contours import contour_correlation, contour_strength
from eisnn.analysis.dip import DipTest, dip_statistic, dip_test
from eisnn.analysis.distributions import Moments, bimodality_coefficient, moments
from eisnn.analysis.dose import DoseResponse, assess, dose_response
from eisnn.analysis.gain import GainControl, NakaRushton, fit_naka_rushton, gain_control, gain_curve, naka_rushton
from eisnn.analysis.geometry import dissimilarity, effective_dimension, representational_similarity
from eisnn.analysis.layers import spiking_layers
from eisnn.analysis.noise import noise_correlation, noisy_responses, signal_to_noise
from eisnn.analysis.perturb import Perturbation, UndefinedDivision, effective_gain, mean_division, perturb
from eisnn.analysis.rates import firing_rate, interval_cv, saturated_fraction, silent_fraction
from eisnn.analysis.record import Recording, RunningStatistics, record, running_statistics
from eisnn.analysis.respond import responses, run_for
from eisnn.analysis.tuning import (
    OrientationTuning,
    cross_orientation_suppression,
    orientation_selectivity,
    orientation_tuning,
    size_tuning,
    suppression_index,
)
from eisnn.analysis.weights import WeightSummary, gradient_norms, pathways, weight_summary
from eisnn.nn import dale_violations
from eisnn.nn.circuit import CURRENTS

__all__ = [
    "CURRENTS",
    "DipTest",
    "DoseResponse",
    "GainControl",
    "Moments",
    "NakaRushton",
    "OrientationTuning",
    "Perturbation",
    "Recording",
    "RunningStatistics",
    "UndefinedDivision",
    "WeightSummary",
    "assess",
    "balance_ratio",
    "bimodality_coefficient",
    "contour_correlation",
    "contour_strength",
    "cross_orientation_suppression",
    "dale_violations",
    "dip_statistic",
    "dip_test",
    "dissimilarity",
    "dose_response",
    "effective_dimension",
    "effective_gain",
    "ei_correlation",
    "firing_rate",
    "fit_naka_rushton",
    "gain_control",
    "gain_curve",
    "gradient_norms",
    "interval_cv",
    "mean_division",
    "moments",
    "naka_rushton",
    "noise_correlation",
    "noisy_responses",
    "orientation_selectivity",
    "orientation_tuning",
    "pathways",
    "perturb",
    "record",
    "representational_similarity",
    "residual",
    "responses",
    "run_for",
    "running_statistics",
    "saturated_fraction",
    "signal_to_noise",
    "silent_fraction",
    "size_tuning",
    "spiking_layers",
    "suppression_index",
    "weight_summary",
]
