"""CIFAR-10 at full width: the paper's circuits, `-plus` and batch norm on the same schedule, for a GPU.

The warm-up of a schedule shorter than the recipe's 300 epochs is at most a tenth of it. Stopped, it goes on where it
was; several of these may run at once on different rows.

    python experiments/full_width.py --data-path CIFAR10 --precision bf16 --epochs 100 --evaluate-epochs 10 --only ...
    python experiments/full_width.py --data-path CIFAR10 --precision bf16 --epochs 100 --evaluate-epochs 10 --table
"""

from dataclasses import replace

from study import parser, run_script, study
from table1 import DANN
from telling import Row

from eisnn.nn import PLUS
from eisnn.train import recipe

NETWORKS = ("vgg8", "vgg16", "resnet18")
PUBLISHED = {
    "paper": {"vgg8": "87.03", "vgg16": "90.80 ± 0.16", "resnet18": "92.05 ± 0.11"},
    "batch norm": {"vgg16": "94.29 ± 0.07", "resnet18": "95.37 ± 0.13"},
    "DANN": {"vgg16": "88.54 ± 0.38"},
}
ORTHOGONAL = {"optimizer": "orthogonal", "lr": 0.02}  # the optimizer and rate of -plus
METHODS = {
    "paper": ("", {}),
    "plus": ("-plus", {}),
    # What was best over five epochs of a net of quarter width: 0.15 instead of 0.24 spikes a step at the start.
    "plus, start rate 0.15": ("-plus", {"circuit_options": replace(PLUS, unit_variance=False, start_rate=0.15)}),
    "batch norm": ("-bn", {}),
    "batch norm, orthogonal": ("-bn", ORTHOGONAL),
    "DANN": ("-bn", {"circuit": "dann", **DANN}),
}


def rows() -> list[Row]:
    return [
        Row(
            f"{method}, {network}",
            recipe(f"cifar10-{network}{suffix}").changed(**changes),
            PUBLISHED.get(method, {}).get(network, ""),
            versus=f"batch norm, {network}",
        )
        for method, (suffix, changes) in METHODS.items()
        for network in NETWORKS
    ]


if __name__ == "__main__":
    run_script(lambda: study(rows(), parser(__doc__).parse_args()))
