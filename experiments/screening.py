"""Screening of recipes at small width on real CIFAR-10: each method at its own best rate, chosen on held-out images.

First every variant runs on a part of the training images and is judged on the rest of them; then each method at its
best rate trains on all training images, over seeds, and is judged on the test images, once. A run that is done is not
repeated, so the script may be stopped, and several may share the work (each takes what nobody has begun). Runs are
evaluated after the last epoch only. A variant learns from a teacher, such as the twin of
`eisnn train cifar10-vgg8-bn --width 0.25 --epochs 10 --warmup-epochs 1 --batch-size 64 --lr 0.05 --hold-out 0.8`.

    python experiments/screening.py --data-path CIFAR10                         # choose
    python experiments/screening.py --data-path CIFAR10 --final 3 --epochs 4    # report, 3 seeds
    python experiments/screening.py --table                                     # both as Markdown
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from eisnn.process import subnormals_flushed
from eisnn.provenance import provenance, write_result
from eisnn.train import TrainConfig, fit, recipe

CHOICE, REPORT = "held-out images", "test images"
RESULTS = Path(__file__).parent / "results" / "screening"
# What stands for each method, and the rates that it may choose from.
METHODS = {
    "paper": ("cifar10-vgg8", (0.002, 0.005)),
    "plus": ("cifar10-vgg8-plus", (0.02, 0.05, 0.1)),
    "batch norm": ("cifar10-vgg8-bn", (0.05, 0.1)),
}
TEACHER = "--teacher"  # stands for the run that is given there: a batch-norm twin that holds out the same images
# A method, and the fields of its recipe that are changed; of a field that has fields of its own, those named.
CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "plus, one current for each neuron": ("plus", {"circuit_options": {"pooled": False}}),
    "plus without semisaturation": ("plus", {"circuit_options": {"semisaturation": 0.0}}),
    "plus without unit variance": ("plus", {"circuit_options": {"unit_variance": False}}),
    "plus, label smoothing 0.1": ("plus", {"label_smoothing": 0.1}),
    "plus, Adam 0.003": ("plus", {"optimizer": "adam", "lr": 0.003}),
    "plus, adaptive clipping 0.1": ("plus", {"adaptive_clipping": 0.1}),
    "plus, adaptive clipping 0.03": ("plus", {"adaptive_clipping": 0.03}),
    "plus, tapwise": ("plus", {"circuit_options": {"tapwise": True}}),
    "plus, tapwise, adaptive clipping 0.03": (
        "plus",
        {"circuit_options": {"tapwise": True}, "adaptive_clipping": 0.03},
    ),
    "plus, TET": ("plus", {"loss": "tet"}),
    "plus, average": ("plus", {"average": 0.99}),
    "plus, CutMix and Mixup": ("plus", {"augmentation": {"cutmix": 1.0, "mixup": 0.2}}),
    "plus, TrivialAugment": ("plus", {"augmentation": {"trivial": True}}),
    "plus, orthogonal": ("plus", {"optimizer": "orthogonal"}),
    "plus, orthogonal 0.01": ("plus", {"optimizer": "orthogonal", "lr": 0.01}),
    "plus, orthogonal 0.02": ("plus", {"optimizer": "orthogonal", "lr": 0.02}),
    "plus, tapwise, orthogonal 0.02": (
        "plus",
        {"circuit_options": {"tapwise": True}, "optimizer": "orthogonal", "lr": 0.02},
    ),
    "plus, tapwise, orthogonal 0.02, clipping 0.03": (
        "plus",
        {"circuit_options": {"tapwise": True}, "optimizer": "orthogonal", "lr": 0.02, "adaptive_clipping": 0.03},
    ),
    "batch norm, orthogonal": ("batch norm", {"optimizer": "orthogonal", "lr": 0.05}),
    "batch norm, orthogonal 0.02": ("batch norm", {"optimizer": "orthogonal", "lr": 0.02}),
    "paper, orthogonal": ("paper", {"optimizer": "orthogonal", "lr": 0.005}),
    "plus, teacher": ("plus", {"teacher": TEACHER}),
}


def variants() -> dict[str, TrainConfig]:
    """Configurations by name: every method at every rate, and the changes of one thing."""
    found = {
        f"{method}, {lr}": recipe(name).changed(lr=lr) for method, (name, rates) in METHODS.items() for lr in rates
    }
    for title, (method, changes) in CHANGES.items():
        base = recipe(METHODS[method][0])
        fields = base.model_dump()
        for field, value in changes.items():
            fields[field] = fields[field] | value if isinstance(value, dict) else value
        found[title] = TrainConfig(**fields)
    return found


def run(name: str, config: TrainConfig, seed: int, stage: str, args: argparse.Namespace) -> None:
    """Train one, unless it has been or is being trained, and write its result."""
    file = RESULTS / f"{stage} {name} {seed}.json".replace(", ", "-").replace(" ", "_")
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        file.touch(exist_ok=False)
    except FileExistsError:
        return
    config = config.changed(
        width=args.width, epochs=args.epochs, warmup_epochs=1, batch_size=64, seed=seed, data_path=args.data_path,
        evaluate_epochs=args.epochs,
        hold_out=0.0 if args.final else args.hold_out, teacher=args.teacher if config.teacher else None,
    )  # fmt: skip
    try:
        with tempfile.TemporaryDirectory() as folder:
            result = fit(config, Path(folder) / "run")
    except BaseException:
        file.unlink()
        raise
    described = config.model_dump(mode="json") | {"data_path": None, "teacher": config.teacher and TEACHER}
    outcome = {"accuracy": result.accuracy, "best_accuracy": result.best_accuracy}
    if result.average_accuracy is not None:
        outcome["average_accuracy"] = result.average_accuracy
    write_result(file, {**provenance(), "stage": stage, "variant": name, "seed": seed, **outcome, "config": described})


def results() -> list[dict[str, Any]]:
    return [json.loads(text) for file in sorted(RESULTS.glob("*.json")) if (text := file.read_text())]


def best_rates() -> dict[str, str]:
    """For each method, the variant that did best on held-out images."""
    chosen = {r["variant"]: r["accuracy"] for r in results() if r["stage"] == CHOICE}
    rates = {method: [f"{method}, {lr}" for lr in options] for method, (_, options) in METHODS.items()}
    missing = [name for names in rates.values() for name in names if name not in chosen]
    if missing:
        raise SystemExit(f"run the choice first; missing: {'; '.join(missing)}")
    return {method: max(names, key=chosen.__getitem__) for method, names in rates.items()}


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
    parser.add_argument("--only", nargs="+", help="names of variants; all if left out")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    known = variants()
    if args.final:
        for seed in range(args.final):
            for name in best_rates().values():
                run(name, known[name], seed, REPORT, args)
    elif not args.table:
        for name, config in known.items():
            if (name in args.only) if args.only else (args.teacher or not config.teacher):
                run(name, config, 0, CHOICE, args)
    print(table())


if __name__ == "__main__":
    main()
