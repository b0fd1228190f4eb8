"""Draw the accuracy curves of runs whose configuration and log are kept.

python experiments/curves.py experiments/results/cifar10_vgg8/{ei,bn} --output docs/cifar10_vgg8.png
"""

import argparse
from pathlib import Path

from matplotlib.figure import Figure

from eisnn.analysis.figures import accuracy_curves
from eisnn.train import Run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="folders with config.json and metrics.jsonl")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    curves = {
        f"{Run(folder).config().network.model}, {Run(folder).config().network.circuit}": [
            line["test_accuracy"] for line in Run(folder).metrics()
        ]
        for folder in args.runs
    }
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    accuracy_curves(figure.subplots(), curves, chance=10)
    figure.savefig(args.output, dpi=150)


if __name__ == "__main__":
    main()
