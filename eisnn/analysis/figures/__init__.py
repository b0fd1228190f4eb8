"""Figures: the only place that imports matplotlib (the extra `report`)."""

from eisnn.analysis.figures.confusion import confusion
from eisnn.analysis.figures.costs import operations, operations_figure, pathway_color
from eisnn.analysis.figures.currents import balance, currents, weights
from eisnn.analysis.figures.maps import feature_maps, frame_sequence
from eisnn.analysis.figures.movie import current_movie
from eisnn.analysis.figures.responses import Curve, responses
from eisnn.analysis.figures.selectivity import selectivity
from eisnn.analysis.figures.style import BLUE, COLORS, GREEN, GREY, LINES, ORANGE, PINK, SKY, YELLOW, bare, svg
from eisnn.analysis.figures.training import accuracy_curves, progress, spread

__all__ = [
    "BLUE",
    "COLORS",
    "GREEN",
    "GREY",
    "LINES",
    "ORANGE",
    "PINK",
    "SKY",
    "YELLOW",
    "Curve",
    "accuracy_curves",
    "balance",
    "bare",
    "confusion",
    "current_movie",
    "currents",
    "feature_maps",
    "frame_sequence",
    "operations",
    "operations_figure",
    "pathway_color",
    "progress",
    "responses",
    "selectivity",
    "spread",
    "svg",
    "weights",
]
