"""Accuracy of the demo's E-I networks and of their batch-norm twin over several seeds.

python experiments/demo_seeds.py --seeds 3
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from eisnn.provenance import provenance, write_result
from eisnn.train import fit, recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="how many: 0, 1, ...")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "demo_seeds.json")
    args = parser.parse_args()
    networks = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("demo", "demo-plus", "demo-bn"):
            config = recipe(name)
            results = [
                fit(config.model_copy(update={"seed": seed}), Path(folder) / f"{name}-{seed}")
                for seed in range(args.seeds)
            ]
            accuracy = [result.accuracy for result in results]
            networks[name] = {
                "accuracy": accuracy,
                "mean": statistics.mean(accuracy),
                "standard_deviation": statistics.stdev(accuracy) if len(accuracy) > 1 else None,
                "best_accuracy": [result.best_accuracy for result in results],
                "config": config.model_dump(mode="json"),
            }
    write_result(args.output, {**provenance(), "n": args.seeds, "networks": networks})
    for name, row in networks.items():
        print(
            f"{name:9} {row['mean']:.1f} % (n = {args.seeds}, standard deviation {row['standard_deviation'] or 0:.1f})"
        )


if __name__ == "__main__":
    main()
