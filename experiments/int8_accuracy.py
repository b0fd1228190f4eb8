"""What 8-bit weights do to trained networks: test accuracy in float32 and by `eisnn.deploy.quantize`, and how many
answers stay the same.

    python experiments/int8_accuracy.py --seeds 3 --output experiments/results/int8_accuracy.json
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from eisnn.deploy import quantize
from eisnn.nn import fold
from eisnn.process import subnormals_flushed
from eisnn.provenance import provenance, write_result
from eisnn.train import fit, recipe
from eisnn.train.evaluation import load_trained


@torch.no_grad()
def answers(model: nn.Module, pixels: Tensor) -> Tensor:
    """Classes that `model` names for uint8 images `[N, C, H, W]`."""
    return torch.cat([model(part.float() / 255).argmax(1) for part in pixels.split(100)])


def compare(name: str, seed: int, epochs: int | None) -> dict[str, float]:
    """Train a recipe on the bundled sample, and evaluate it in both ways."""
    with tempfile.TemporaryDirectory() as folder:
        changes = {} if epochs is None else {"epochs": epochs}
        fit(recipe(name).changed(seed=seed, **changes), Path(folder) / "run", quiet=True)
        trained = load_trained(Path(folder) / "run")
    test = trained.dataset.test
    exact = answers(fold(trained.model), test.pixels)
    small = answers(quantize(trained.model, test.pixels[:64].float() / 255), test.pixels)
    right = [100 * float((found == test.labels).float().mean()) for found in (exact, small)]
    return {"float32": right[0], "int8": right[1], "same answers": 100 * float((exact == small).float().mean())}


@subnormals_flushed()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=["demo", "demo-plus", "demo-bn"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="other than the recipe's")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    found = {name: [compare(name, seed, args.epochs) for seed in range(args.seeds)] for name in args.recipes}
    summary = {}
    for name, runs in found.items():
        columns = {key: [run[key] for run in runs] for key in runs[0]}
        differences = [run["int8"] - run["float32"] for run in runs]
        spread = statistics.stdev(differences) if len(runs) > 1 else None
        summary[name] = {key: statistics.mean(values) for key, values in columns.items()}
        summary[name] |= {"int8 - float32": statistics.mean(differences), "standard deviation": spread}
        print(name, {key: value if value is None else round(value, 2) for key, value in summary[name].items()})
    if args.output:
        write_result(args.output, {**provenance(), "n": args.seeds, "mean": summary, "runs": found})


if __name__ == "__main__":
    main()
