"""What recurrence and SST cells bring and cost in vision: cortical circuits beside the paper's and `-plus`.

Three layers of a quarter of the demo's width on 1,000 of the sample's images at 16x16 pixels, six steps of 10 ms, four
epochs of orthogonalised updates. Rates: 0.02 for `-plus`, its recipe's; 0.005 for the others, of which 0.02, and SGD
with 0.03, learned less in a trial with recurrence. Then the networks see test images with noise on each pixel (in units
of intensity, clipped) and at lower contrast.

    python experiments/cortex_vision.py --seeds 3
"""

import json
import statistics
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from study import begun, budgeted, parser, result_file, run_folder, run_script, tell, train
from telling import Row, cell
from torch import Tensor, nn

from eisnn.analysis.stimuli import add_noise, scale_contrast
from eisnn.data import load
from eisnn.interop import load_trained
from eisnn.provenance import provenance, write_result
from eisnn.train import recipe

CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "clean": lambda images: images,
    **{f"noise {level:g}": lambda images, level=level: add_noise(images, level) for level in (0.1, 0.2)},
    **{f"contrast {level:g}": lambda images, level=level: scale_contrast(images, level) for level in (0.5, 0.25)},
}
IMAGES = 400  # of the test images, the same for all changes


def rows() -> list[Row]:
    """The first is what the others are compared with."""
    cortex = recipe("demo-cortex").changed(optimizer="orthogonal", lr=0.005)
    made = {
        "cortex, without recurrence": cortex.changed(cortex={"recurrence": 0.0, "sst": 0.0}),
        "cortex, recurrence": cortex.changed(cortex={"sst": 0.0}),
        "cortex, recurrence and SST": cortex,
        "paper": recipe("demo").changed(optimizer="orthogonal", lr=0.005),
        "plus": recipe("demo-plus"),
    }
    return [Row(name, config.changed(time_steps=6)) for name, config in made.items()]


def networks(args: Namespace) -> None:
    """Train what is not there yet, and keep it."""
    configs = {row.name: budgeted(row.config, args) for row in rows() if row.config}
    todo = [(name, seed) for seed in range(args.seeds) for name in configs if name in (args.only or configs)]
    for name, seed in todo:  # before the first is trained
        begun(name, configs[name].changed(seed=seed), args)
    for name, seed in todo:
        train(name, configs[name], seed, args, keep=True)
        tell(rows(), args)
    print(tell(rows(), args))


def changed_images(args: Namespace) -> None:
    """Accuracy (%) of the networks that are there on changed test images."""
    test = load("cifar10-sample", size=16).test
    chosen = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[:IMAGES]
    images, labels = test.pixels[chosen].float() / 255, test.labels[chosen]
    found: dict[str, dict[int, dict[str, float]]] = {}
    for row in rows():
        of_seeds = found[row.name] = {}
        for seed in range(args.seeds):
            if result_file(row.name, seed, args).exists():
                model = load_trained(run_folder(row.name, seed, args)).model.eval()
                of_seeds[seed] = {name: accuracy(model, change(images), labels) for name, change in CHANGES.items()}
    write_result(args.output / "changed.json", {**provenance(), "images": len(images), "rows": found})
    print(changed_table(args.output))


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """In %."""
    right = [
        (model(part).argmax(1) == of).float() for part, of in zip(images.split(100), labels.split(100), strict=True)
    ]
    return 100 * float(torch.cat(right).mean())


def changed_table(folder: Path) -> str:
    """Accuracy by change as Markdown, mean and standard deviation over seeds."""
    found: dict[str, Any] = json.loads((folder / "changed.json").read_text())["rows"]
    lines = [f"| network | {' | '.join(CHANGES)} | n |", "|---" * (len(CHANGES) + 2) + "|"]
    for row, seeds in found.items():
        cells = []
        for name in CHANGES:
            values = [of[name] for of in seeds.values()]
            deviation = statistics.stdev(values) if len(values) > 1 else None
            cells.append(cell((statistics.mean(values) if values else None, deviation)))
        lines.append(f"| {row} | {' | '.join(cells)} | {len(seeds)} |")
    return "\n".join(lines)


def main() -> None:
    args = parser(__doc__, epochs=4, subset=1000, width=0.25, batch_size=32, evaluate_epochs=2).parse_args()
    if not args.table:
        networks(args)
    changed_images(args)


if __name__ == "__main__":
    run_script(main)
