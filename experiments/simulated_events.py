"""Ten classes of simulated event recordings, trained end to end: the paper's circuit, `-plus`, batch norm.

    eisnn events simulate runs/simulated --dataset cifar10 --data-path ../shared/data/cifar10 --train 3000 --test 1000
    python experiments/simulated_events.py --data-path runs/simulated

The recordings are simulated from images of CIFAR-10 and say nothing about CIFAR10-DVS. Networks, optimizers and rates
are those of `nmnist-demo` and its variants. It goes on where it was stopped.
"""

import json
from pathlib import Path
from typing import Any

from study import budgeted, described, parser, run_script, train
from telling import final

from eisnn.data.events import EventAugmentation
from eisnn.provenance import provenance, write_result
from eisnn.train import recipe

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


def main() -> None:
    options = parser(__doc__, rows=False)
    args = options.parse_args()
    if args.data_path is None:
        options.error("--data-path is missing: the folder that `eisnn events simulate` wrote")
    about = json.loads((Path(args.data_path) / "simulated.json").read_text())
    networks: dict[str, Any] = {}
    for end in ("", "-plus", "-bn"):
        name, config = end.removeprefix("-") or "paper", budgeted(recipe(f"nmnist-demo{end}").changed(**CHANGES), args)
        accuracy = final(train(name, config, 0, args))
        networks[name] = {"accuracy": accuracy, "config": described(config)}
        print(f"{name:8} {accuracy:.1f} %", flush=True)
    write_result(args.output / f"{args.output.name}.json", {**provenance(), "recordings": about, "networks": networks})


if __name__ == "__main__":
    run_script(main)
