r"""Screening of recipes at small width on real CIFAR-10: each method at its own best rate, chosen on held-out images.

First every variant runs on a part of the training images and is judged on the rest of them; then each method at its
best rate trains on all training images, over seeds, and is judged on the test images, once: these results go into a
folder beside the first. Runs are evaluated after the last epoch only. A variant learns from a teacher, such as the twin
of `eisnn train cifar10-vgg8-bn --width 0.25 --epochs 10 --warmup-epochs 1 --batch-size 64 --lr 0.05 --hold-out 0.8`.

    python experiments/screening.py --data-path CIFAR10                         # choose
    python experiments/screening.py --data-path CIFAR10 --final 3 --epochs 1    # report, 3 seeds
    python experiments/screening.py --data-path CIFAR10 --final 3 --epochs 1 --only "plus, tightness 10"
    python experiments/screening.py --data-path CIFAR10 --final 1 --epochs 20 --evaluate-epochs 1 \
        --report experiments/results/screening_20 \
        --only "plus, 0.02" "batch norm, orthogonal, 0.05" "batch norm, 0.05" "paper, 0.001"
    python experiments/screening.py --data-path CIFAR10 --table --output experiments/results/screening
"""

import argparse
import json
from pathlib import Path
from typing import Any

from study import collect, parser, positive, run_script, study
from telling import Result, Row, final, interval

from eisnn.train import TrainConfig, recipe

# What stands for each method: a recipe, the fields of it that are changed, and the rates that it may choose from.
SGD: dict[str, Any] = {"optimizer": "sgd", "circuit_options": {"tapwise": False, "even_gradients": False}}
METHODS: dict[str, tuple[str, dict[str, Any], tuple[float, ...]]] = {
    "paper": ("cifar10-vgg8", {}, (0.002, 0.005)),
    "plus": ("cifar10-vgg8-plus", {}, (0.02,)),  # the better of 0.02 and 0.05 for exact balance, orthogonal
    "exact balance": ("cifar10-vgg8-plus", SGD, (0.02, 0.05)),  # what plus was before
    "batch norm": ("cifar10-vgg8-bn", {}, (0.05, 0.1)),
    "batch norm, orthogonal": ("cifar10-vgg8-bn", {"optimizer": "orthogonal"}, (0.02, 0.05)),
}
REPORTED = ("paper", "plus", "batch norm", "batch norm, orthogonal")
# A method, and the fields that are changed besides; of a field that has fields of its own, those named.
CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "paper, 0.001": ("paper", {"lr": 0.001}),  # the rate of its recipe, which has batches of 128
    "paper, orthogonal": ("paper", {"optimizer": "orthogonal", "lr": 0.005}),
    "paper, orthogonal 0.002": ("paper", {"optimizer": "orthogonal", "lr": 0.002}),
    "paper, orthogonal 0.01": ("paper", {"optimizer": "orthogonal", "lr": 0.01}),
    "paper, orthogonal 0.02": ("paper", {"optimizer": "orthogonal", "lr": 0.02}),
    "batch norm, decay 5e-4": ("batch norm", {"lr": 0.05, "weight_decay": 5e-4}),
    "plus, SGD": ("plus", {"optimizer": "sgd", "lr": 0.05}),
    "plus, one current for each neuron": ("plus", {"circuit_options": {"pooled": False}}),
    "plus, semisaturation 0.7": ("plus", {"circuit_options": {"semisaturation": 0.7}}),
    "plus without semisaturation": ("plus", {"circuit_options": {"semisaturation": 0.0}}),
    "plus without unit variance": ("plus", {"circuit_options": {"unit_variance": False}}),
    "plus, tightness 3": ("plus", {"circuit_options": {"tightness": 3.0}}),
    "plus, tightness 10": ("plus", {"circuit_options": {"tightness": 10.0}}),
    "plus, average": ("plus", {"average": 0.99}),
    "plus, CutMix and Mixup": ("plus", {"augmentation": {"cutmix": 1.0, "mixup": 0.2}}),
    "plus, TrivialAugment": ("plus", {"augmentation": {"trivial": True}}),
    "plus, teacher": ("plus", {"teacher": "--teacher"}),
    "exact balance, label smoothing 0.1": ("exact balance", {"label_smoothing": 0.1, "lr": 0.05}),
    "exact balance, Adam 0.003": ("exact balance", {"optimizer": "adam", "lr": 0.003}),
    "exact balance, AdamW 0.003": ("exact balance", {"optimizer": "adamw", "lr": 0.003}),
    "exact balance, exponentiated gradient": ("exact balance", {"optimizer": "exponentiated", "lr": 0.05}),
    "exact balance, adaptive clipping 0.03": ("exact balance", {"adaptive_clipping": 0.03, "lr": 0.05}),
    "exact balance, tapwise": ("exact balance", {"circuit_options": {"tapwise": True}, "lr": 0.05}),
    "exact balance, tapwise, adaptive clipping 0.03": (
        "exact balance",
        {"circuit_options": {"tapwise": True}, "adaptive_clipping": 0.03, "lr": 0.05},
    ),
    "exact balance, TET": ("exact balance", {"loss": "tet", "lr": 0.05}),
    "exact balance, orthogonal 0.02": ("exact balance", {"optimizer": "orthogonal", "lr": 0.02}),
    "exact balance, orthogonal 0.05": ("exact balance", {"optimizer": "orthogonal", "lr": 0.05}),
    "exact balance, tapwise, orthogonal 0.02": (
        "exact balance",
        {"circuit_options": {"tapwise": True}, "optimizer": "orthogonal", "lr": 0.02},
    ),
}


def variants() -> dict[str, TrainConfig]:
    """Configurations by name: every method at every rate, and the changes of one thing."""
    methods = {method: recipe(name).changed(**changes) for method, (name, changes, _) in METHODS.items()}
    found = {
        f"{method}, {lr}": methods[method].changed(lr=lr) for method, (*_, rates) in METHODS.items() for lr in rates
    }
    return found | {title: methods[method].changed(**changes) for title, (method, changes) in CHANGES.items()}


def rows(args: argparse.Namespace) -> list[Row]:
    """Every variant; the one with a teacher needs to be told which."""
    made = []
    for name, config in variants().items():
        taught = config.objective.teacher is not None
        own = config.changed(hold_out=0.0 if args.final else args.hold_out, teacher=args.teacher if taught else None)
        missing = taught and not (args.teacher or args.table)
        made.append(Row(name, None if missing else own, note="name one: --teacher" * missing, versus="plus, 0.02"))
    return made


def best_rates(choice: Path) -> dict[str, str]:
    """For each method of the report, the variant that did best on held-out images."""
    found: list[Result] = [json.loads(file.read_text()) for file in choice.glob("*-0.json")]
    chosen = {result["row"]: final(result) for result in found}
    rates = {method: [f"{method}, {lr}" for lr in METHODS[method][2]] for method in REPORTED}
    if missing := [name for names in rates.values() for name in names if name not in chosen]:
        raise SystemExit(f"run the choice first; missing in {choice}: {'; '.join(missing)}")
    return {method: max(names, key=chosen.__getitem__) for method, names in rates.items()}


def recovered(results: dict[str, list[Result]], best: dict[str, str]) -> str:
    """Of the gap between the paper's method and each twin on the test images, the part that plus closes; by seed."""
    by_seed = {method: {r["seed"]: final(r) for r in results[name]} for method, name in best.items()}
    lines = []
    for twin in REPORTED[2:]:
        paper, plus, bn = (by_seed[method] for method in ("paper", "plus", twin))
        seeds = sorted(paper.keys() & plus.keys() & bn.keys())
        parts = [(plus[seed] - paper[seed]) / (bn[seed] - paper[seed]) for seed in seeds]
        if part := interval(parts):
            lines.append(f"part of the gap to {twin}: {part['mean']:.2f} ({part['low']:.2f} to {part['high']:.2f})")
    return "\n".join(lines)


def main() -> None:
    made = parser(__doc__, width=0.25, batch_size=64)
    made.add_argument("--hold-out", type=float, default=0.8, help="part of the training images not trained on")
    made.add_argument(
        "--final", type=positive, metavar="SEEDS", help="report on the test images; all of --only, or the best"
    )
    made.add_argument("--report", type=Path, metavar="FOLDER", help="of the report, if not the one beside the choice")
    made.add_argument("--teacher", metavar="RUN", help="of the variant with a teacher, which else is left out")
    args = made.parse_args()
    args.epochs = args.epochs or 10
    args.evaluate_epochs = args.evaluate_epochs or args.epochs
    if not args.final:
        study(rows(args), args)
        return
    best = best_rates(args.output)
    args.output, args.seeds = args.report or args.output.with_name(f"{args.output.name}_report"), args.final
    args.only = args.only or list(best.values())
    study(rows(args), args)
    print(recovered(collect(rows(args), args), best))


if __name__ == "__main__":
    run_script(main)
