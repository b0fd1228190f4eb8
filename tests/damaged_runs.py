"""Damages the files of a run and counts what resuming and evaluating make of it; see `damage`.

python tests/damaged_runs.py --count 50
"""

import argparse
import hashlib
import json
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from damage import Kind, outcomes
from train_runs import tiny, write_images

from eisnn.train import Run, TrainConfig, evaluate, fit, initial_model, read_released, resume, write_released
from eisnn.train.run import open_checkpoint


def run_kinds(root: Path) -> list[Kind]:
    """The files of a short run, which is half done: each is read as resuming or evaluating does."""
    run = Run(root / "run")
    fit(tiny(write_images(root / "images"), epochs=1), run.folder, quiet=True)
    copy = root / "copy"

    def resumed() -> Any:
        """What a resumed copy of the run ends with."""
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(run.folder, copy)
        resume(copy, quiet=True)
        there = open_checkpoint(copy)
        weights = {name: hashlib.sha256(t.numpy().tobytes()).hexdigest() for name, t in there.tensors.items()}
        return weights, there.config.json_fields(), Run(copy).metrics_file.read_bytes()

    def evaluated() -> Any:
        return evaluate(run.best)

    def curves() -> Any:
        return [json.dumps(run.metrics(kind)) for kind in ("epoch", "steps")]

    released = root / "released"
    torch.manual_seed(0)
    config = TrainConfig(model="vgg8", width=0.0625, dataset="cifar10-sample", time_steps=2)
    write_released(initial_model(config), config, released)

    def released_network() -> Any:
        there = read_released(released)
        weights = {name: t.tolist() for name, t in there.model.state_dict().items()}
        return weights, there.config, there.notes

    return [
        Kind("config.json", run.config_file, resumed, digest=False, error=ValueError),
        Kind("metrics.jsonl, resumed", run.metrics_file, resumed, digest=True, error=ValueError),
        Kind("metrics.jsonl, drawn", run.metrics_file, curves, digest=False, error=ValueError),
        Kind("last.safetensors", run.last, resumed, digest=True, error=ValueError),
        Kind("best.safetensors", run.best, evaluated, digest=True, error=ValueError),
        Kind("released config.json", released / "config.json", released_network, digest=False, error=ValueError),
        Kind("released weights", released / "model.safetensors", released_network, digest=False, error=ValueError),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=50, help="damaged copies of each kind of file")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        counted = outcomes(run_kinds(Path(root)), arguments.count, arguments.seed)
    for name, counts in [*counted.items(), ("in all", sum(counted.values(), Counter()))]:
        print(f"{name:32}", ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())))


if __name__ == "__main__":
    main()
