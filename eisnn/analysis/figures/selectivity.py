"""Selectivity and rates by cell type, of a network and of recorded units."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from eisnn.analysis.figures.style import BLUE, GREEN, ORANGE, bare

PANELS = {"osi": "orientation selectivity", "dsi": "direction selectivity", "rate": "rate (Hz)"}
MARKERS = (("o", BLUE), ("D", ORANGE), ("s", GREEN))


def selectivity(axes: Sequence[Axes], sources: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw OSI, DSI and rate of each cell, and their medians, by cell type.

    Args:
        axes: three, one for each quantity.
        sources: by name, at most three, of each by cell type something with sequences `osi`, `dsi` and `rate`, such as
            `DirectionTuning` and `Units`; NaN is left out, and of a single value only the median is drawn.
    """
    kinds = [kind for kind in ("E", "PV", "SST", "VIP") if any(kind in source for source in sources.values())]
    for panel, (quantity, label) in zip(axes, PANELS.items(), strict=True):
        for k, (name, source) in enumerate(sources.items()):
            marker, color = MARKERS[k]
            for at, kind in enumerate(kinds):
                values = np.asarray(getattr(source[kind], quantity) if kind in source else [], dtype=float)
                values = values[np.isfinite(values)]
                x = at + 0.25 * (k - (len(sources) - 1) / 2)
                if len(values) > 1:
                    spread = np.linspace(-0.08, 0.08, len(values))
                    panel.plot(x + spread, np.sort(values), ".", color=color, alpha=0.4, markersize=3)
                if len(values):
                    title = name if at == 0 else None
                    panel.plot(x, np.median(values), marker, color=color, markersize=7, label=title, linestyle="none")
        panel.set_xticks(range(len(kinds)), kinds)
        panel.set(ylabel=label, xlim=(-0.5, len(kinds) - 0.5), ylim=(0, None))
        bare(panel)
    axes[0].legend(frameon=False, fontsize="x-small")
