"""Ten classes of simulated event recordings, trained end to end: the paper's circuit, `-plus`, batch norm.

    eisnn events simulate runs/simulated --dataset cifar10 --data-path ../shared/data/cifar10 --train 3000 --test 1000
    python experiments/simulated_events.py --data runs/simulated

The recordings are simulated from images of CIFAR-10 and say nothing about CIFAR10-DVS. Networks, optimizers and rates
are those of `nmnist-demo` and its variants. It goes on where it was stopped.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from eisnn.data.events import EventAugmentation
from eisnn.process import subnormals_flushed
from eisnn.provenance import provenance, write_result
from eisnn.train import Result, Run, TrainConfig, fit, recipe, resume

EPOCHS = 8
CHANGES: dict[str, Any] = {
    "dataset": "event-folder",
    "image_size": 24,
    "time_steps": 5,
    "frames": {"bins": "count"},
    "augmentation": EventAugmentation(resized_crop=(0.7, 1.0), flip=True),
    "train_images": 1000,  # of 3,000
    "epochs": EPOCHS,
    "warmup_epochs": 1,
    "evaluate_epochs": EPOCHS,
    "accelerator": "cpu",
}


def trained(config: TrainConfig, folder: Path) -> Result:
    """A run, trained as far as it is not trained yet."""
    return resume(folder, quiet=True) if Run(folder).config_file.exists() else fit(config, folder, quiet=True)


@subnormals_flushed()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that `eisnn events simulate` wrote")
    parser.add_argument("--runs", type=Path, default=Path("runs/simulated-study"))
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "simulated_events.json")
    args = parser.parse_args()
    changes = CHANGES | {"data_path": str(args.data)}
    networks: dict[str, Any] = {}
    for end in ("", "-plus", "-bn"):
        config = recipe(f"nmnist-demo{end}").changed(**changes)
        result = trained(config, args.runs / f"run{end}")
        networks[end.removeprefix("-") or "paper"] = {"accuracy": result.accuracy, "config": config.json_fields()}
        print(f"{end or 'paper':8} {result.accuracy:.1f} %", flush=True)
    about = json.loads((args.data / "simulated.json").read_text())
    write_result(args.output, {**provenance(), "recordings": about, "networks": networks})


if __name__ == "__main__":
    main()
