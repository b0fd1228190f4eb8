"""Accuracy of the demo's E-I networks and of their batch-norm twin over several seeds, also in mixed precision.

python experiments/demo_seeds.py --seeds 3
python experiments/demo_seeds.py --seeds 3 --recipes demo --precisions 32 bf16 --epochs 5 --output OUT.json
"""

import argparse
import statistics
import tempfile
from itertools import product
from pathlib import Path

from eisnn.process import subnormals_flushed
from eisnn.provenance import provenance, write_result
from eisnn.train import fit, recipe


@subnormals_flushed()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="how many: 0, 1, ...")
    parser.add_argument("--recipes", nargs="+", default=["demo", "demo-plus", "demo-bn"])
    parser.add_argument("--precisions", nargs="+", default=["32"])
    parser.add_argument("--epochs", type=int, help="instead of the recipe's, with a warm-up of at most half of them")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "demo_seeds.json")
    args = parser.parse_args()
    configs = {}
    for name, precision in product(args.recipes, args.precisions):
        config = recipe(name).changed(precision=precision)
        if args.epochs:
            warmup = min(config.optimization.warmup_epochs, args.epochs / 2)
            config = config.changed(epochs=args.epochs, warmup_epochs=warmup)
        configs[name if precision == "32" else f"{name}, {precision}"] = config
    networks = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, config in configs.items():
            results = [fit(config.changed(seed=seed), Path(folder) / f"{name}-{seed}") for seed in range(args.seeds)]
            accuracy = [result.accuracy for result in results]
            networks[name] = {
                "accuracy": accuracy,
                "mean": statistics.mean(accuracy),
                "standard_deviation": statistics.stdev(accuracy) if len(accuracy) > 1 else None,
                "best_accuracy": [result.best_accuracy for result in results],
                "config": config.json_fields(),
            }
    write_result(args.output, {**provenance(), "n": args.seeds, "networks": networks})
    for name, row in networks.items():
        print(
            f"{name:10} {row['mean']:.1f} % (n = {args.seeds}, standard deviation {row['standard_deviation'] or 0:.1f})"
        )


if __name__ == "__main__":
    main()
