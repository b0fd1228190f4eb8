"""What the experiments share: configurations run over seeds, resumed and never repeated, and what is told of them.

A script names its rows and calls `study`. Each run writes one JSON (configuration, command, versions, machine, seed,
curves); all of them together one summary as JSON, as Markdown and as a picture. A run that collapses or whose loss is
no longer finite is a result like any other, with the epoch in which it happened.
"""

import argparse
import json
import shutil
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from eisnn.analysis.figures import COLORS, GREY
from eisnn.models import SpikingNetwork
from eisnn.nn import PAPER
from eisnn.provenance import provenance, write_result
from eisnn.train import Diverged, Run, TrainConfig, Trained, fit, initial_model, load_trained, resume

HERE = Path(__file__).parent
Result = dict[str, Any]
# 97.5 % quantiles of Student's t for 1 to 9 degrees of freedom; more take the last, which is a little too wide.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
WHERE = {"data_path", "download", "accelerator", "devices", "num_nodes", "data_on_device", "checkpoint_seconds"}


@dataclass(frozen=True)
class Row:
    """One configuration of a table.

    Args:
        name: what is told apart.
        config: at the full recipe; the budget changes it. None is a row that cannot be run here.
        published: what the paper reports, as it reports it.
        note: said beside the row; of one that cannot be run, why.
        versus: name of the row that it is compared with, if not the first.
    """

    name: str
    config: TrainConfig | None
    published: str = ""
    note: str = ""
    versus: str = ""


def parser(doc: str | None, **defaults: Any) -> argparse.ArgumentParser:
    """The options that all experiments have; `defaults` are a script's own."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    script = Path(sys.argv[0]).stem
    made.add_argument("--data-path", help="of the data set; None takes the sample in the package for CIFAR-10")
    made.add_argument("--epochs", type=int, help="None: the recipe's, as below")
    made.add_argument("--subset", type=int, help="training images, as many of each class; None: all")
    made.add_argument("--test-images", type=int, help="evaluated on after each epoch; None: all")
    made.add_argument("--seeds", type=int, default=1, help="how many: 0, 1, ...")
    made.add_argument("--width", type=float, help="of every layer")
    made.add_argument("--batch-size", type=int)
    made.add_argument("--lr", type=float, help="peak learning rate of the paper's circuit")
    made.add_argument("--only", nargs="+", metavar="ROW", help="names of rows; all if left out")
    made.add_argument("--output", type=Path, default=HERE / "results" / script, help="folder of results")
    made.add_argument("--runs", type=Path, default=HERE.parent / "runs" / script, help="folder of runs in motion")
    made.add_argument("--table", action="store_true", help="run nothing; tell of the results that are there")
    made.set_defaults(**defaults)
    return made


def budgeted(config: TrainConfig, args: argparse.Namespace) -> TrainConfig:
    """`config` at the budget that was asked for. A shorter run warms up for at most a tenth of its epochs."""
    epochs = args.epochs or config.epochs
    sample = config.dataset == "cifar10" and args.data_path is None
    return config.changed(
        dataset="cifar10-sample" if sample else None,
        data_path=args.data_path,
        epochs=epochs,
        warmup_epochs=min(config.warmup_epochs, epochs / 10) if args.epochs else None,
        train_images=args.subset,
        test_images=args.test_images,
        width=args.width,
        batch_size=args.batch_size,
        lr=args.lr if config.circuit == "ei" and config.circuit_options == PAPER else None,
    )


def slug(name: str) -> str:
    """`name` as part of a file's name."""
    return "".join(c if c.isalnum() or c in ".-" else "_" for c in name)


def described(config: TrainConfig) -> dict[str, Any]:
    """What of a configuration decides the result."""
    return {key: value for key, value in config.model_dump(mode="json").items() if key not in WHERE}


def train(name: str, config: TrainConfig, seed: int, args: argparse.Namespace, *, keep: bool = False) -> Result:
    """One run: from its result if it is there, continued if it has begun, else from the start.

    Args:
        name, config, seed: of the row, at its budget; `config` takes the seed.
        keep: leave the run's folder, with the weights, where `run_folder` says.
    Raises: SystemExit if the result or run that is there is of another configuration.
    """
    file = args.output / f"{slug(name)}-{seed}.json"
    config = config.changed(seed=seed)
    run = Run(run_folder(name, seed, args))
    if file.exists():
        found = json.loads(file.read_text())
        _require_same(found["config"], config, file)
        if not keep or run.last.exists():
            return found
    print(f"{name}, seed {seed}", flush=True)
    lost = None
    try:
        if run.config_file.exists():
            _require_same(described(run.config()), config, run.folder)
            resume(run.folder, data_path=config.data_path)
        else:
            fit(config, run.folder)
    except Diverged as error:
        lost = str(error).split(". ")[0]
    except ValueError as error:
        if not str(error).startswith("E-I Init"):
            raise
        lost = str(error)
    epochs = run.metrics()
    images = config.test_images or (epochs[-1].get("test_images") if epochs else None)
    result = {
        **provenance(),
        "row": name,
        "seed": seed,
        "accuracy": [line["test_accuracy"] for line in epochs],
        "train_accuracy": [line["train_accuracy"] for line in epochs],
        "train_loss": [line["train_loss"] for line in epochs],
        "firing_rate": [line["test_firing_rate"] for line in epochs],
        "seconds_an_epoch": statistics.median([line["seconds"] for line in epochs]) if epochs else None,
        "test_images": images,
        "lost": lost,
        "config": described(config),
    }
    write_result(file, result)
    if not keep:
        shutil.rmtree(run.folder, ignore_errors=True)
    return result


def trained(row: Row, args: argparse.Namespace) -> tuple[SpikingNetwork, Trained]:
    """The network of a row, seed 0, before and after training."""
    assert row.config is not None
    train(row.name, budgeted(row.config, args), 0, args, keep=True)
    found = load_trained(run_folder(row.name, 0, args), data_path=args.data_path)
    return initial_model(found.config), found


def run_folder(name: str, seed: int, args: argparse.Namespace) -> Path:
    return args.runs / f"{slug(name)}-{seed}"


def _require_same(found: dict[str, Any], config: TrainConfig, where: Path) -> None:
    asked = described(config)
    if other := [key for key in asked | found if found.get(key) != asked.get(key)]:
        changes = ", ".join(f"{key} {found.get(key)!r} instead of {asked.get(key)!r}" for key in other)
        raise SystemExit(f"{where} is of another run: {changes}; name other folders (--output, --runs) or remove it")


def chance_level(result: Result) -> float:
    """Accuracy (%) that guessing may reach: 10 %, and three standard errors of so many test images."""
    images = result["test_images"] or 10_000
    return 10 + 3 * sqrt(10 * 90 / images)


def outcome(result: Result) -> str:
    """Whether the run learned, and if not, in which epoch it was lost."""
    curve, level = result["accuracy"], chance_level(result)
    learned = max((epoch for epoch, accuracy in enumerate(curve, 1) if accuracy > level), default=0)
    if result["lost"]:
        silent = result["lost"].startswith("E-I Init")
        return "silent from the start" if silent else f"not finite in epoch {len(curve) + 1}"
    if learned == 0:
        return "never learned"
    return "learned" if learned == len(curve) else f"collapsed in epoch {learned + 1}"


def final(result: Result) -> float:
    """Accuracy (%) after the last epoch; of a run that was lost, that of guessing."""
    return result["accuracy"][-1] if result["accuracy"] and not result["lost"] else 10.0


def difference(ours: Sequence[Result], reference: Sequence[Result]) -> dict[str, float] | None:
    """Mean difference of accuracies, paired by seed, with its 95 % interval (Student's t); None for fewer than 2."""
    others = {result["seed"]: final(result) for result in reference}
    gaps = [final(result) - others[result["seed"]] for result in ours if result["seed"] in others]
    if len(gaps) < 2:
        return None
    mean, half = statistics.mean(gaps), STUDENT[min(len(gaps) - 1, len(STUDENT)) - 1]
    half *= statistics.stdev(gaps) / sqrt(len(gaps))
    return {"mean": mean, "low": mean - half, "high": mean + half}


def summarize(row: Row, results: Sequence[Result], reference: Sequence[Result]) -> dict[str, Any]:
    """What is told of one row."""
    last = [final(result) for result in results]
    best = [max(result["accuracy"], default=10.0) for result in results]
    return {
        "row": row.name,
        "published": row.published,
        "note": row.note,
        "n": len(results),
        "seeds": [result["seed"] for result in results],
        "accuracy": last,
        "mean": statistics.mean(last) if last else None,
        "standard_deviation": statistics.stdev(last) if len(last) > 1 else None,
        "best": statistics.mean(best) if best else None,
        "difference": difference(results, reference) if results is not reference else None,
        "outcomes": [outcome(result) for result in results],
    }


def cell(values: Sequence[float | None]) -> str:
    """`mean ± standard deviation` of a summary."""
    mean, spread = values
    return "" if mean is None else f"{mean:.1f}" + ("" if spread is None else f" ± {spread:.1f}")


def markdown(summaries: Sequence[dict[str, Any]]) -> str:
    """The table; an outcome is given for each seed unless all are the same."""
    lines = [
        "| | published, % | accuracy after the last epoch, % | n | best epoch, % | difference, points (95 %) | runs |",
        "|---|---|---|---|---|---|---|",
    ]
    for s in summaries:
        gap = s["difference"]
        interval = "" if gap is None else f"{gap['mean']:+.1f} ({gap['low']:+.1f} to {gap['high']:+.1f})"
        outcomes = s["outcomes"] if len(set(s["outcomes"])) > 1 else s["outcomes"][:1]
        told = "; ".join(outcomes) or "not run"
        told += f" ({s['note']})" if s["note"] else ""
        best = "" if s["best"] is None else f"{s['best']:.1f}"
        accuracy = cell((s["mean"], s["standard_deviation"]))
        lines.append(f"| {s['row']} | {s['published']} | {accuracy} | {s['n'] or ''} | {best} | {interval} | {told} |")
    return "\n".join(lines)


def draw(file: Path, results: dict[str, list[Result]]) -> None:
    """Accuracy after each epoch by row: the mean over seeds, and each seed as a thin line."""
    shown = {name: runs for name, runs in results.items() if any(run["accuracy"] for run in runs)}
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for k, (name, runs) in enumerate(shown.items()):
        style = {"color": COLORS[k % len(COLORS)], "linestyle": ("-", "--", ":", "-.")[k // len(COLORS) % 4]}
        curves = [run["accuracy"] for run in runs if run["accuracy"]]
        for curve in curves:
            axes.plot(range(1, len(curve) + 1), curve, **style, linewidth=0.6, alpha=0.5)
        means = [statistics.mean(values) for values in zip(*curves, strict=False)]
        axes.plot(range(1, len(means) + 1), means, **style, marker="o", markersize=2.5, label=name)
    axes.axhline(10, color=GREY, linewidth=0.8, label="guessing")
    axes.set(xlabel="epoch", ylabel="test accuracy (%)", ylim=(0, None))
    axes.legend(frameon=False, fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=130)


def collect(rows: Sequence[Row], args: argparse.Namespace) -> dict[str, list[Result]]:
    """Results that are there at this budget, by row."""
    found: dict[str, list[Result]] = {}
    for row in rows:
        found[row.name] = []
        for seed in range(args.seeds) if row.config else ():
            file = args.output / f"{slug(row.name)}-{seed}.json"
            if file.exists():
                result = json.loads(file.read_text())
                _require_same(result["config"], budgeted(row.config, args).changed(seed=seed), file)
                found[row.name].append(result)
    return found


def tell(rows: Sequence[Row], args: argparse.Namespace) -> str:
    """Write summary, table and picture of the results that are there; returns the table."""
    results = collect(rows, args)
    summaries = [summarize(row, results[row.name], results[row.versus or rows[0].name]) for row in rows]
    stem = args.output / args.output.name
    write_result(stem.with_suffix(".json"), {**provenance(), "seeds": args.seeds, "rows": summaries})
    table = markdown(summaries)
    stem.with_suffix(".md").write_text(table + "\n")
    if any(results.values()):
        draw(stem.with_suffix(".png"), results)
    return table


def study(rows: Sequence[Row], args: argparse.Namespace) -> None:
    """Run every row over the seeds, all rows of a seed before the next, and tell of them."""
    if args.only and (unknown := set(args.only) - {row.name for row in rows}):
        raise SystemExit(f"no row is called {', '.join(unknown)}; there are: {'; '.join(row.name for row in rows)}")
    for seed in range(0 if args.table else args.seeds):
        for row in rows:
            if row.config is not None and (not args.only or row.name in args.only):
                train(row.name, budgeted(row.config, args), seed, args)
                tell(rows, args)
    print(tell(rows, args))
