"""Selectivity and rates by cell type of a trained cortical network under drifting gratings, beside recorded units.

Each layer sees gratings at 0.125 cycles a pixel and 2 Hz in eight directions, a second each; the cells at the centre of
its map are taken. Beside them stand published medians of mouse V1, and with --units a table of your own (columns:
`eisnn.analysis.read_units`).

    python experiments/cortex_vision.py --seeds 1 --only "cortex, recurrence and SST"
    python experiments/gratings.py runs/cortex_vision/cortex__recurrence_and_SST-0 --figure docs/how-to/gratings.png
"""

import argparse
from math import isfinite, nan
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

from matplotlib.figure import Figure
from study import RESULTS, run_script

from eisnn.analysis import PUBLISHED_UNITS, direction_tuning, read_units
from eisnn.analysis.figures import selectivity
from eisnn.cortex import CorticalLayer
from eisnn.interop import load_trained
from eisnn.nn import layers_of
from eisnn.provenance import provenance, write_result

PARTS = ("osi", "dsi", "rate")


def tuned(network: str) -> dict[str, Any]:
    """OSI, DSI and rates of the cells of all cortical layers, by layer and kind; None where there is none."""
    trained, found = load_trained(network), {}
    for name, layer in layers_of(trained.model.eval()).items():
        if isinstance(layer, CorticalLayer):
            for kind, tuning in direction_tuning(trained.model, name, size=trained.config.data.image_size).items():
                parts = {part: getattr(tuning, part).tolist() for part in PARTS}
                known = {part: [v if isfinite(v) else None for v in values] for part, values in parts.items()}
                found[f"{name}, {kind}"] = known
    return found


def pooled(found: dict[str, Any]) -> dict[str, SimpleNamespace]:
    """The cells of a kind of all layers together."""
    kinds: dict[str, SimpleNamespace] = {}
    for name, cells in found.items():
        of = kinds.setdefault(name.split(", ")[1], SimpleNamespace(osi=[], dsi=[], rate=[]))
        for part, values in cells.items():
            getattr(of, part).extend(nan if value is None else value for value in values)
    return kinds


def medians_of(cells: Any) -> dict[str, float | None]:
    """Of what is known."""
    known = {part: [value for value in getattr(cells, part) if isfinite(value)] for part in PARTS}
    return {part: median(values) if values else None for part, values in known.items()}


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("network", help="a run, checkpoint or name of a trained network of circuit cortex")
    made.add_argument("--units", type=Path, help="CSV of recorded units")
    made.add_argument("--figure", type=Path)
    made.add_argument("--output", type=Path, default=RESULTS / "gratings.json")
    args = made.parse_args()
    found = tuned(args.network)
    sources: dict[str, Any] = {"network": pooled(found), "mouse V1, medians": PUBLISHED_UNITS}
    if args.units:
        sources[args.units.stem] = read_units(args.units)
    medians = {name: {kind: medians_of(of) for kind, of in source.items()} for name, source in sources.items()}
    write_result(args.output, {**provenance(), "medians": medians, "cells": found})
    for name, source in medians.items():
        for kind, of in source.items():
            print(f"{name:20} {kind:4}", *(f"{part} {'?' if v is None else f'{v:.2f}'}" for part, v in of.items()))
    if args.figure:
        figure = Figure(figsize=(8, 2.6), layout="constrained")
        selectivity(figure.subplots(1, 3).tolist(), sources)
        figure.savefig(args.figure, dpi=130)


if __name__ == "__main__":
    run_script(main)
