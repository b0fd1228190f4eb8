"""Looking inside a network: record, measure, perturb. Layers know nothing of it.

layers, record, histograms   what each layer shows, and how it is collected while the network runs
measures/                    numbers from what was recorded
stimuli                      images of visual physiology
responses, tuning, gain      show them to a network and collect what a layer does
perturb, dose                change inhibition for a while, and see what that costs
stability                    of cortical layers, linearised
figures/                     the only place that imports matplotlib

What needs an extra imports it where it is used.
"""

from eisnn.analysis.dose import DoseResponse, assess, dose_response
from eisnn.analysis.gain import GainControl, gain_control, gain_controls, gain_curve, gain_curves
from eisnn.analysis.layers import spiking_layers, synapses
from eisnn.analysis.measures.balance import balance_ratio, ei_correlation, residual
from eisnn.analysis.measures.choices import (
    Fractions,
    Psychometric,
    fit_psychometric,
    fraction_by,
)
from eisnn.analysis.measures.courses import (
    TimeCourse,
    psth,
    spike_count_correlation,
    spike_counts,
    time_course,
)
from eisnn.analysis.measures.distributions import (
    DipTest,
    WeightSummary,
    bimodality_coefficient,
    dip_test,
    weight_summary,
)
from eisnn.analysis.measures.lags import CrossCorrelation, Timescale, cross_correlation, ei_lag, intrinsic_timescale
from eisnn.analysis.measures.maps import contour_correlation, contour_strength
from eisnn.analysis.measures.populations import (
    dissimilarity,
    effective_dimension,
    noise_correlation,
    representational_similarity,
    signal_to_noise,
)
from eisnn.analysis.measures.rates import firing_rate, interval_cv, saturated_fraction, silent_fraction
from eisnn.analysis.measures.rhythms import (
    Coherence,
    Peak,
    Spectrogram,
    Spectrum,
    peak_frequency,
    power_spectrum,
    spectrogram,
    spike_field_coherence,
)
from eisnn.analysis.measures.tuning import (
    NakaRushton,
    choice_probability,
    direction_selectivity,
    fit_naka_rushton,
    naka_rushton,
    orientation_selectivity,
    suppression_index,
)
from eisnn.analysis.perturb import Perturbation, UndefinedDivision, mean_division, perturb
from eisnn.analysis.record import Recording, RunningStatistics, record, running_statistics
from eisnn.analysis.responses import noisy_responses, responses, run_for
from eisnn.analysis.stability import stability
from eisnn.analysis.tuning import (
    DirectionTuning,
    OrientationTuning,
    cross_orientation_suppression,
    direction_tuning,
    orientation_tuning,
    size_tuning,
)
from eisnn.analysis.units import PUBLISHED_UNITS, Units, read_units
from eisnn.nn import dale_violations
from eisnn.nn.circuit import CURRENTS

__all__ = [
    "CURRENTS",
    "PUBLISHED_UNITS",
    "Coherence",
    "CrossCorrelation",
    "DipTest",
    "DirectionTuning",
    "DoseResponse",
    "Fractions",
    "GainControl",
    "NakaRushton",
    "OrientationTuning",
    "Peak",
    "Perturbation",
    "Psychometric",
    "Recording",
    "RunningStatistics",
    "Spectrogram",
    "Spectrum",
    "TimeCourse",
    "Timescale",
    "UndefinedDivision",
    "Units",
    "WeightSummary",
    "assess",
    "balance_ratio",
    "bimodality_coefficient",
    "choice_probability",
    "contour_correlation",
    "contour_strength",
    "cross_correlation",
    "cross_orientation_suppression",
    "dale_violations",
    "dip_test",
    "direction_selectivity",
    "direction_tuning",
    "dissimilarity",
    "dose_response",
    "effective_dimension",
    "ei_correlation",
    "ei_lag",
    "firing_rate",
    "fit_naka_rushton",
    "fit_psychometric",
    "fraction_by",
    "gain_control",
    "gain_controls",
    "gain_curve",
    "gain_curves",
    "interval_cv",
    "intrinsic_timescale",
    "mean_division",
    "naka_rushton",
    "noise_correlation",
    "noisy_responses",
    "orientation_selectivity",
    "orientation_tuning",
    "peak_frequency",
    "perturb",
    "power_spectrum",
    "psth",
    "read_units",
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
    "spectrogram",
    "spike_count_correlation",
    "spike_counts",
    "spike_field_coherence",
    "spiking_layers",
    "stability",
    "suppression_index",
    "synapses",
    "time_course",
    "weight_summary",
]
