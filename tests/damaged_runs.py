"""Damages the files of a run, of data sets and of recordings, and counts what their readers make of it; see `damage`.

python tests/damaged_runs.py --count 26
"""

import argparse
import hashlib
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from damage import Kind, data_kinds, outcomes
from event_files import FORMATS
from train_runs import tiny, write_images

from eisnn.data.events import read
from eisnn.interop import evaluate, read_released, write_released
from eisnn.report.opened import open_run
from eisnn.train import Run, TrainConfig, fit, initial_model, resume
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
        open_run(run.folder, images=1)
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
        Kind("metrics.jsonl, drawn", run.metrics_file, curves, digest=True, error=ValueError),
        Kind("last.safetensors", run.last, resumed, digest=True, error=ValueError),
        Kind("best.safetensors", run.best, evaluated, digest=True, error=ValueError),
        Kind("released config.json", released / "config.json", released_network, digest=False, error=ValueError),
        Kind("released weights", released / "model.safetensors", released_network, digest=False, error=ValueError),
    ]


def recording_kinds(root: Path) -> Iterator[Kind]:
    """A recording in each format of events that is read here."""
    for name, format in FORMATS.items():
        file = root / f"recording-{name}"
        file.write_bytes(format.header + format.body(np.random.default_rng(0)))

        def events(file: Path = file) -> Any:
            found = read(file)
            return [part.tolist() for part in (found.t, found.x, found.y, found.p)], found.size

        yield Kind(f"events, {name}", file, events, digest=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=50, help="damaged copies of each kind of file")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, data_kinds(root := Path(folder)) as kinds:
        kinds = [*run_kinds(root / "train"), *kinds, *recording_kinds(root)]
        counted = outcomes(kinds, arguments.count, arguments.seed)
    checked = sum((counted[kind.name] for kind in kinds if kind.digest), Counter[str]())
    whole = sum(counted.values(), Counter[str]())
    for name, counts in [*counted.items(), ("formats with a digest", checked), (f"{whole.total():,} in all", whole)]:
        print(f"{name:32}", ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())))


if __name__ == "__main__":
    main()
