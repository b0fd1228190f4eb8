"""Accuracy of `nmnist-demo` and its variants on real recordings: over seeds, and over folds of all of them.

    python experiments/nmnist_demo.py --data-path ../shared/data/nmnist-1100.npz

The archive holds 1,000 training and 100 test recordings of N-MNIST. A hundred say little (a standard error of 2 points
at 95 %), so all 1,100 are also divided into five folds of 220, with as many of each class as possible, and each is
tested on once by a network that was trained on the others. It goes on where it was stopped.
"""

import argparse
import statistics
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from study import budgeted, described, parser, run_script, train
from telling import final

from eisnn.provenance import provenance, write_result
from eisnn.train import recipe

RECIPES = ("nmnist-demo", "nmnist-demo-plus", "nmnist-demo-bn")
FOLDS, SEEDS = 5, 3


def write_folds(data: Path, folder: Path) -> list[Path]:
    """The archive's recordings as archives whose test split is one fold each; the same in every call."""
    files = [folder / f"fold-{k}.npz" for k in range(FOLDS)]
    if all(file.exists() for file in files):
        return files
    folder.mkdir(parents=True, exist_ok=True)
    with np.load(data) as stored:
        arrays = dict(stored)
    recordings = []
    for split in ("train", "test"):
        offsets = arrays[f"{split}_offsets"]
        for begin, end, label in zip(offsets[:-1], offsets[1:], arrays[f"{split}_label"], strict=True):
            recordings.append(({name: arrays[f"{split}_{name}"][begin:end] for name in "txyp"}, label))
    labels = np.array([label for _, label in recordings])
    fold = np.empty(len(labels), int)
    rng = np.random.default_rng(0)
    for label in range(10):  # round robin through each class, in a random order
        own = rng.permutation(np.flatnonzero(labels == label))
        fold[own] = (np.arange(len(own)) + label) % FOLDS
    for k, file in enumerate(files):
        parts: dict[str, np.ndarray] = {}
        for split, chosen in (("train", fold != k), ("test", fold == k)):
            mine = [recording for recording, own in zip(recordings, chosen, strict=True) if own]
            parts |= {f"{split}_{name}": np.concatenate([each[name] for each, _ in mine]) for name in "txyp"}
            parts[f"{split}_offsets"] = np.cumsum([0, *(len(each["t"]) for each, _ in mine)])
            parts[f"{split}_label"] = np.array([label for _, label in mine])
        temporary = file.with_suffix(".tmp.npz")
        np.savez_compressed(temporary, **parts)
        temporary.replace(file)
    return files


def on_fold(name: str, k: int, file: Path, args: argparse.Namespace) -> float:
    """Accuracy (%) on one fold. What a result keeps does not say on which, so no other study may take it."""
    config = budgeted(recipe(name), args).changed(data_path=str(file), accelerator="cpu")
    return final(train(f"{name}, fold {k}", config, 0, args, within=nullcontext))


def summary(values: list[float]) -> dict[str, Any]:
    return {"accuracy": values, "mean": statistics.mean(values), "standard_deviation": statistics.stdev(values)}


def main() -> None:
    options = parser(__doc__, rows=False)
    args = options.parse_args()
    if args.data_path is None:
        options.error("--data-path is missing: nmnist-1100.npz")
    folds = write_folds(Path(args.data_path), args.runs / "folds")
    networks: dict[str, Any] = {}
    for name in RECIPES:
        config = budgeted(recipe(name), args).changed(accelerator="cpu")
        parts = {
            "seeds": [final(train(name, config, seed, args)) for seed in range(SEEDS)],
            "folds": [on_fold(name, k, file, args) for k, file in enumerate(folds)],
        }
        networks[name] = {part: summary(values) for part, values in parts.items()}
        networks[name]["config"] = described(config)
        for part, values in parts.items():
            print(f"{name:18} {part} {statistics.mean(values):.1f} ± {statistics.stdev(values):.1f} %", flush=True)
    about = "real recordings of N-MNIST; seeds: 1,000 for training, 100 for testing; folds: 880 and 220 of all 1,100"
    write_result(args.output / f"{args.output.name}.json", {**provenance(), "data": about, "networks": networks})


if __name__ == "__main__":
    run_script(main)
