"""Screening of recipes at small width on real CIFAR-10: each method at its own best rate, chosen on held-out images.

First every variant runs on a part of the training images and is judged on the rest of them; then each method at its
best rate trains on all training images, over seeds, and is judged on the test images, once. A run that is done is not
repeated, so the script may be stopped, and several may share the work (each takes what nobody has begun). Runs are
evaluated after the last epoch only. A variant learns from a teacher, such as the twin of
`eisnn train cifar10-vgg8-bn --width 0.25 --epochs 10 --warmup-epochs 1 --batch-size 64 --lr 0.05 --hold-out 0.8`.

    python experiments/screening.py --data-path CIFAR10                         # choose
    python experiments/screening.py --data-path CIFAR10 --final 3 --epochs 1    # report, 3 seeds
    python experiments/screening.py --data-path CIFAR10 --final 3 --epochs 1 --only "plus, tightness 10"
    python experiments/screening.py --table                                     # both as Markdown
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from telling import STUDENT

from eisnn.process import subnormals_flushed
from eisnn.provenance import provenance, write_result
from eisnn.train import TrainConfig, fit, recipe

CHOICE, REPORT = "held-out images", "test images"
RESULTS = Path(__file__).parent / "results" / "screening"
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
TEACHER = "--teacher"  # stands for the run that is given there: a batch-norm twin that holds out the same images
# A method, and the fields that are changed besides; of a field that has fields of its own, those named.
CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
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
    "plus, teacher": ("plus", {"teacher": TEACHER}),
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


def run(name: str, config: TrainConfig, seed: int, stage: str, args: argparse.Namespace) -> None:
    """Train one, unless it has been or is being trained, and write its result."""
    file = RESULTS / f"{stage} {name} {seed}.json".replace(", ", "-").replace(" ", "_")
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        file.touch(exist_ok=False)
    except FileExistsError:
        return
    config = config.changed(
        width=args.width, epochs=args.epochs, warmup_epochs=args.epochs / 10, batch_size=64, seed=seed,
        data_path=args.data_path, evaluate_epochs=args.epochs,
        hold_out=0.0 if args.final else args.hold_out, teacher=args.teacher if config.objective.teacher else None,
    )  # fmt: skip
    try:
        with tempfile.TemporaryDirectory() as folder:
            result = fit(config, Path(folder) / "run")
    except BaseException:
        file.unlink()
        raise
    described = config.json_fields() | {"data_path": None, "teacher": config.objective.teacher and TEACHER}
    outcome = {"accuracy": result.accuracy, "best_accuracy": result.best_accuracy}
    if result.average_accuracy is not None:
        outcome["average_accuracy"] = result.average_accuracy
    write_result(file, {**provenance(), "stage": stage, "variant": name, "seed": seed, **outcome, "config": described})


def results() -> list[dict[str, Any]]:
    return [json.loads(text) for file in sorted(RESULTS.glob("*.json")) if (text := file.read_text())]


def best_rates() -> dict[str, str]:
    """For each method of the report, the variant that did best on held-out images."""
    chosen = {r["variant"]: r["accuracy"] for r in results() if r["stage"] == CHOICE}
    rates = {method: [f"{method}, {lr}" for lr in METHODS[method][2]] for method in REPORTED}
    missing = [name for names in rates.values() for name in names if name not in chosen]
    if missing:
        raise SystemExit(f"run the choice first; missing: {'; '.join(missing)}")
    return {method: max(names, key=chosen.__getitem__) for method, names in rates.items()}


def recovered() -> str:
    """Of the gap between the paper's method and each twin on the test images, the part that plus closes; by seed."""
    if not any(r["stage"] == REPORT for r in results()):
        return "no report yet"
    best, found = best_rates(), {(r["variant"], r["seed"]): r["accuracy"] for r in results() if r["stage"] == REPORT}
    lines = []
    for twin in REPORTED[2:]:
        seeds = [seed for seed in range(10) if all((best[m], seed) in found for m in ("paper", "plus", twin))]
        of = {m: [found[best[m], seed] for seed in seeds] for m in ("paper", "plus", twin)}
        parts = [(plus - paper) / (bn - paper) for paper, plus, bn in zip(*of.values(), strict=True)]
        gaps = [plus - bn for plus, bn in zip(of["plus"], of[twin], strict=True)]
        lines += [f"{what} {twin}: {interval(v)}" for what, v in (("part of the gap to", parts), ("plus -", gaps)) if v]
    return "\n".join(lines)


def interval(values: list[float]) -> str:
    """Mean with the 95 % interval of Student's t."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.2f} (n = 1)"
    half = STUDENT[len(values) - 2] * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:.2f} ({mean - half:.2f} to {mean + half:.2f}, n = {len(values)})"


def table() -> str:
    """All results, variants in order, with mean and standard deviation where there are seeds."""
    lines = ["| variant | stage | accuracy, % | n |", "|---|---|---|---|"]
    rows: dict[tuple[str, str], list[float]] = {}
    for result in results():
        rows.setdefault((result["stage"], result["variant"]), []).append(result["accuracy"])
        if "average_accuracy" in result:
            title = f"{result['variant']}, of the averaged weights"
            rows.setdefault((result["stage"], title), []).append(result["average_accuracy"])
    for (stage, variant), values in rows.items():
        spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        lines.append(f"| {variant} | {stage} | {statistics.mean(values):.1f}{spread} | {len(values)} |")
    return "\n".join(lines)


@subnormals_flushed()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-path")
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--hold-out", type=float, default=0.8, help="part of the training images not trained on")
    parser.add_argument("--final", type=int, default=0, metavar="SEEDS")
    parser.add_argument("--teacher", metavar="RUN", help="of the variant with a teacher, which else is left out")
    known = variants()
    parser.add_argument(
        "--only", nargs="+", choices=known, metavar="VARIANT", help="these; else all, in a report the best"
    )
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if args.final:
        for seed in range(args.final):
            for name in args.only or best_rates().values():
                run(name, known[name], seed, REPORT, args)
    elif not args.table:
        for name, config in known.items():
            if (name in args.only) if args.only else (args.teacher or not config.objective.teacher):
                run(name, config, 0, CHOICE, args)
    print(table())
    print(recovered())


if __name__ == "__main__":
    main()
