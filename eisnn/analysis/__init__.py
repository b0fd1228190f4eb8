"""Looking inside a network: recorded currents and figures. Layers know nothing of it."""

from eisnn.analysis.record import CURRENTS, record

__all__ = ["CURRENTS", "record"]
