"""Figure 6: the paper's method against DANN (Cornford et al. 2021) by depth, CIFAR-10.

python experiments/figure6.py --data-path CIFAR10 --seeds 3
python experiments/figure6.py --data-path CIFAR10 --epochs 8 --subset 4000 --width 0.25
"""

import argparse
import statistics

from matplotlib.figure import Figure
from study import collect, parser, run_script, study
from table1 import DANN, EASIER
from telling import Row, final

from eisnn.analysis.figures import BLUE, ORANGE
from eisnn.methods import CIRCUITS
from eisnn.train import recipe

DEPTHS = ("vgg8", "vgg11", "vgg16", "vgg19")
PUBLISHED = {
    "E-I": dict(zip(DEPTHS, ("87.03", "88.43", "90.80 ± 0.16", "90.93 ± 0.33"), strict=True)),
    "DANN": {"vgg16": "88.54 ± 0.38", "vgg19": "88.28 ± 0.27"},
}


def rows() -> list[Row]:
    found = []
    for depth in DEPTHS:
        base, name = recipe(f"cifar10-{depth}"), f"E-I, {depth}"
        found.append(Row(name, base, PUBLISHED["E-I"][depth], versus=name))
        there = "dann" in CIRCUITS
        dann = recipe(f"cifar10-{depth}-bn").changed(circuit="dann", **DANN) if there else None
        note = EASIER if there else "not among the circuits"
        found.append(Row(f"DANN, {depth}", dann, PUBLISHED["DANN"].get(depth, ""), note, versus=name))
    return found


def draw(args: argparse.Namespace) -> None:
    """Mean accuracy by depth, with the standard deviation over seeds, of the results that are there."""
    results = collect(rows(), args)
    if not any(results.values()):
        return
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.subplots()
    for method, color in (("E-I", BLUE), ("DANN", ORANGE)):
        values = {depth: [final(run) for run in results[f"{method}, {depth}"]] for depth in DEPTHS}
        there = [depth for depth in DEPTHS if values[depth]]
        means = [statistics.mean(values[depth]) for depth in there]
        spread = [statistics.stdev(values[depth]) if len(values[depth]) > 1 else 0 for depth in there]
        axes.errorbar([DEPTHS.index(d) for d in there], means, spread, color=color, marker="o", capsize=3, label=method)
    axes.set(ylabel="test accuracy (%)", xticks=range(len(DEPTHS)), xticklabels=DEPTHS)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(args.output / "by_depth.png", dpi=130)


def main() -> None:
    args = parser(__doc__).parse_args()
    study(rows(), args)
    draw(args)


if __name__ == "__main__":
    run_script(main)
