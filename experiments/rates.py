"""Accuracy against firing rate: trained networks go on for a few epochs towards lower and lower rates.

python experiments/rates.py --seeds 3 --output experiments/results/rates
python experiments/rates.py --other RUN --data-path CIFAR10 --epochs 1 --output experiments/results/rates_vgg8
"""

import argparse
import statistics
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from study import collect, demo_network, going_on, parser, run_script, study
from telling import Result, Row

from eisnn.analysis.figures import COLORS, bare
from eisnn.interop import load_trained
from eisnn.provenance import provenance, write_result
from eisnn.train import TrainConfig, recipe

RECIPES = ("demo-plus", "demo-bn", "demo")
TARGETS = (None, 0.12, 0.06, 0.03)
BREAK_EVEN = 0.06  # rate below which a spiking network can cost less than a quantized one (arXiv 2409.08290)


def row_name(name: str, target: float | None) -> str:
    return name if target is None else f"{name}, target {target}"


def rows(args: argparse.Namespace) -> list[Row]:
    """Each network goes on without a target as well: what the epochs alone bring."""
    return [
        Row(row_name(name, target), going_on(config, network, args.epochs, target_rate=target), versus=name)
        for name, (config, network) in networks(args).items()
        for target in TARGETS
    ]


def networks(args: argparse.Namespace) -> dict[str, tuple[TrainConfig, Path]]:
    """Trained networks that go on: the demo's of seed 0, or another, by name with their configurations."""
    if args.other:
        config = load_trained(args.other, data_path=args.data_path).config
        return {config.network.model: (config, args.other)}
    return {name: (recipe(name), demo_network(name, 0, args)) for name in RECIPES}


def main(args: argparse.Namespace) -> None:
    made = rows(args)
    study(made, args)
    found = collect(made, args)
    curves: dict[str, list[dict[str, Any]]] = {}
    for row, target in zip(made, cycle(TARGETS)):  # as `rows` orders them
        if results := found[row.name]:
            curves.setdefault(row.versus or row.name, []).append(point(target, results))
    write_result(args.output / "curves.json", {**provenance(), "curves": curves})
    draw(args.output / "curves.png", curves)


def point(target: float | None, results: list[Result]) -> dict[str, Any]:
    """Means over seeds after the last epoch."""
    means = {key: statistics.mean(r[key][-1] for r in results) for key in ("firing_rate", "accuracy")}
    return {"target": target, "n": len(results), **means}


def draw(file: Path, curves: dict[str, list[dict[str, Any]]]) -> None:
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for color, (name, points) in zip(COLORS, curves.items(), strict=False):
        axes.plot(*([p[key] for p in points] for key in ("firing_rate", "accuracy")), "o-", color=color, label=name)
    axes.axvline(BREAK_EVEN, color="grey", linestyle=":", label="6 %")
    axes.set(xlabel="spikes a neuron and step", ylabel="test accuracy (%)", ylim=(0, None), xlim=(0, None))
    axes.legend(frameon=False)
    bare(axes)
    figure.savefig(file, dpi=130)


if __name__ == "__main__":
    options = parser(__doc__, epochs=5, runs=Path("runs/rates"))
    options.add_argument("--other", type=Path, help="another trained network, in the place of the demo's")
    run_script(lambda: main(options.parse_args()))
