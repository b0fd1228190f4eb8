"""What the experiments share: configurations run over seeds, resumed and never repeated, and what is told of them.

A script names its rows and calls `study`. Each run writes one JSON (configuration, command, versions, machine, seed,
curves); all of them together one summary as JSON, as Markdown and as a picture (`telling`).
"""

import argparse
import json
import shutil
import statistics
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NoReturn

from telling import Result, Row, draw, markdown, summarize

from eisnn.cli import guarded
from eisnn.data.config import load_data
from eisnn.init import UnusableInput
from eisnn.interop import Trained, load_trained
from eisnn.interop.shared import locate
from eisnn.models import SpikingNetwork
from eisnn.nn import PAPER
from eisnn.provenance import provenance, write_result
from eisnn.train import Diverged, Interrupted, Run, TrainConfig, fit, initial_model, recipe, resume

RUNS = Path(__file__).parent.parent / "runs"
RESULTS = RUNS / "results"  # what is committed lies in experiments/results: name it as --output to continue it
WHERE = {
    "data_path",
    "download",
    "accelerator",
    "devices",
    "num_nodes",
    "data_on_device",
    "checkpoint_seconds",
    "cuda_graph",
}


def run_script(main: Callable[[], None]) -> NoReturn:
    """Run a script's `main`: what a user did wrong becomes one message, as on the command line of the package."""
    sys.exit(guarded(Path(sys.argv[0]).stem, main))


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"it must be at least 1, got {number}")
    return number


def parser(doc: str | None, *, rows: bool = True, **defaults: Any) -> argparse.ArgumentParser:
    """The options that all experiments have, and those that have `rows` to choose from; `defaults` are a script's
    own."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    script = Path(sys.argv[0]).stem
    made.add_argument("--data-path", help="of the data set; None takes the sample in the package for CIFAR-10")
    made.add_argument("--epochs", type=positive, help="None: the recipe's, as below")
    made.add_argument("--subset", type=positive, help="training images, as many of each class; None: all")
    made.add_argument("--test-images", type=positive, help="evaluated on after each epoch; None: all")
    made.add_argument("--width", type=float, help="of every layer")
    made.add_argument("--batch-size", type=positive)
    made.add_argument("--lr", type=float, help="peak learning rate of the paper's circuit")
    made.add_argument("--precision", help="None: the recipe's, 32")
    made.add_argument(
        "--evaluate-epochs", type=positive, help="from one evaluation to the next; None: after every epoch"
    )
    if rows:
        made.add_argument("--seeds", type=positive, default=1, help="how many: 0, 1, ...")
        made.add_argument("--only", nargs="+", metavar="ROW", help="names of rows; all if left out")
        made.add_argument("--table", action="store_true", help="run nothing; tell of the results that are there")
    made.add_argument("--output", type=Path, default=RESULTS / script, help="folder of results")
    made.add_argument("--runs", type=Path, default=RUNS / script, help="folder of runs in motion")
    made.set_defaults(**defaults)
    return made


def budgeted(config: TrainConfig, args: argparse.Namespace) -> TrainConfig:
    """`config` at the budget that was asked for. A shorter run warms up for at most a tenth of its epochs."""
    epochs = args.epochs or config.optimization.epochs
    sample = config.data.dataset == "cifar10" and args.data_path is None
    return config.changed(
        dataset="cifar10-sample" if sample else None,
        data_path=args.data_path,
        epochs=epochs,
        warmup_epochs=min(config.optimization.warmup_epochs, epochs / 10) if args.epochs else None,
        train_images=args.subset,
        test_images=args.test_images,
        width=args.width,
        batch_size=args.batch_size,
        precision=args.precision,
        evaluate_epochs=args.evaluate_epochs,
        lr=args.lr if config.network.circuit == "ei" and config.network.circuit_options == PAPER else None,
    )


def slug(name: str) -> str:
    """`name` as part of a file's name."""
    return "".join(c if c.isalnum() or c in ".-" else "_" for c in name)


def described(config: TrainConfig) -> dict[str, Any]:
    """What of a configuration decides the result; of other networks, that there are some."""
    fields = {key: value for key, value in config.json_fields().items() if key not in WHERE}
    return fields | {name: fields[name] and "a trained network" for name in ("teacher", "start_from")}


def train(
    name: str,
    config: TrainConfig,
    seed: int,
    args: argparse.Namespace,
    *,
    keep: bool = False,
    within: Callable[[], AbstractContextManager[Any]] | None = None,
) -> Result:
    """One run: from its result if it is there or in another study's folder, continued if it has begun, else from the
    start.

    Args:
        name, config, seed: of the row, at its budget; `config` takes the seed.
        keep: leave the run's folder, with the weights, where `run_folder` says.
        within: as of the row; what is so trained shares its result with no other study.
    Raises: SystemExit if the result or run that is there is of another configuration.
    """
    config, file, run = config.changed(seed=seed), result_file(name, seed, args), Run(run_folder(name, seed, args))
    found = stored(name, config, args)
    if found and (not keep or run.last.exists()):
        return found
    if not (found or keep or within) and (found := _of_another_study(config, args)):
        write_result(file, {**found, "row": name})
        return found
    print(f"{name}, seed {seed}", flush=True)
    lost = None
    try:
        with within() if within else nullcontext():
            if begun(name, config, args):
                resume(run.folder, data_path=config.data.data_path)
            else:
                fit(config, run.folder)
    except Interrupted:
        raise Interrupted(f"stopped; the same command continues {name}, seed {seed}") from None
    except (Diverged, UnusableInput) as error:
        lost = str(error).split(". ")[0]
    epochs, data = run.metrics(), load_data(config.data, config.network.time_steps)
    evaluated = [line for line in epochs if "test_accuracy" in line]
    result = {
        **provenance(),
        "row": name,
        "seed": seed,
        "accuracy": [line["test_accuracy"] for line in evaluated],
        "average_accuracy": [line["test_average_accuracy"] for line in evaluated if "test_average_accuracy" in line],
        "train_accuracy": [line["train_accuracy"] for line in epochs],
        "train_loss": [line["train_loss"] for line in epochs],
        "firing_rate": [line["test_firing_rate"] for line in evaluated],
        "seconds_an_epoch": statistics.median([line["seconds"] for line in epochs]) if epochs else None,
        "test_images": len(data.test),
        "classes": len(data.classes),
        "lost": lost,
        "within": within is not None,
        "config": described(config),
    }
    write_result(file, result)
    if not keep:
        shutil.rmtree(run.folder, ignore_errors=True)
    return result


def stored(name: str, config: TrainConfig, args: argparse.Namespace) -> Result | None:
    """The result of a run, if it is there; SystemExit naming its file if it is damaged or of another configuration."""
    file = result_file(name, config.seed, args)
    if not file.exists():
        return None
    try:
        found: Result = json.loads(file.read_text())
        settings = found["config"]
    except (KeyError, TypeError, ValueError) as error:
        raise SystemExit(f"{file} is damaged ({error!r}): remove it, and the same command runs it again") from error
    require_same(settings, config, file)
    return found


def begun(name: str, config: TrainConfig, args: argparse.Namespace) -> bool:
    """Whether a run has a folder in which it can go on; SystemExit if that is of another configuration."""
    run = Run(run_folder(name, config.seed, args))
    if run.config_file.exists():
        require_same(described(run.config()), config, run.folder)
    return run.config_file.exists()


def trained(row: Row, args: argparse.Namespace) -> tuple[SpikingNetwork, Trained]:
    """The network of a row, seed 0, before and after training."""
    assert row.config is not None
    train(row.name, budgeted(row.config, args), 0, args, keep=True)
    found = load_trained(run_folder(row.name, 0, args), data_path=args.data_path)
    return initial_model(found.config), found


def demo_network(name: str, seed: int, args: argparse.Namespace) -> Path:
    """Where a trained demo network is: of seed 0 that in the package, of others a run, trained first if need be."""
    if seed == 0:
        return locate(name)
    train(name, budgeted(recipe(name), args), seed, args, keep=True)
    return run_folder(name, seed, args)


def going_on(config: TrainConfig, network: Path, epochs: int, **fields: Any) -> TrainConfig:
    """`config` for a few more epochs from `network`: from a quarter of its learning rate to 0, no warm-up."""
    return config.changed(
        start_from=str(network),
        epochs=epochs,
        evaluate_epochs=epochs,
        warmup_epochs=0.0,
        lr=config.optimization.lr / 4,
        **fields,
    )


def result_file(name: str, seed: int, args: argparse.Namespace) -> Path:
    return args.output / f"{slug(name)}-{seed}.json"


def run_folder(name: str, seed: int, args: argparse.Namespace) -> Path:
    return args.runs / f"{slug(name)}-{seed}"


def _of_another_study(config: TrainConfig, args: argparse.Namespace) -> Result | None:
    """The result of the same run in a folder beside `args.output`: tables and figures share rows."""
    for file in sorted(args.output.parent.glob(f"*/*-{config.seed}.json")):
        if file.parent == args.output:
            continue
        try:
            result = json.loads(file.read_text())
            same = not _differences(described(TrainConfig.model_validate(result["config"])), described(config))
            if same and not result.get("within"):
                return result
        except (KeyError, TypeError, ValueError):  # another kind of file
            continue
    return None


def _differences(found: dict[str, Any], asked: dict[str, Any]) -> list[str]:
    return [key for key in asked | found if found.get(key) != asked.get(key)]


def require_same(found: dict[str, Any], config: TrainConfig, where: Path) -> None:
    """SystemExit if the configuration `found` in the file `where` is that of another run."""
    found, asked = described(TrainConfig.model_validate(found)), described(config)  # fields that are newer: the default
    if other := _differences(found, asked):
        changes = ", ".join(f"{key} {found.get(key)!r} instead of {asked.get(key)!r}" for key in other)
        raise SystemExit(f"{where} is of another run: {changes}; name other folders (--output, --runs) or remove it")


def collect(rows: Sequence[Row], args: argparse.Namespace) -> dict[str, list[Result]]:
    """Results that are there at this budget, by row."""
    found: dict[str, list[Result]] = {}
    for row in rows:
        found[row.name] = []
        for seed in range(args.seeds) if row.config else ():
            if result := stored(row.name, budgeted(row.config, args).changed(seed=seed), args):
                found[row.name].append(result)
    return found


def tell(rows: Sequence[Row], args: argparse.Namespace) -> str:
    """Write summary, table and picture of the results that are there, if there are any; returns the table."""
    results = collect(rows, args)
    summaries = [summarize(row, results[row.name], results[row.versus or rows[0].name]) for row in rows]
    stem, table = args.output / args.output.name, markdown(summaries)
    if any(results.values()):
        write_result(stem.with_suffix(".json"), {**provenance(), "seeds": args.seeds, "rows": summaries})
        stem.with_suffix(".md").write_text(table + "\n")
        draw(stem.with_suffix(".png"), results)
    return table


def study(rows: Sequence[Row], args: argparse.Namespace) -> None:
    """Run every row over the seeds, all rows of a seed before the next, and tell of them."""
    names = [row.name for row in rows]
    if args.only and (unknown := set(args.only) - set(names)):
        raise SystemExit(f"no row is called {', '.join(unknown)}; there are: {'; '.join(names)}")
    if barred := [f"{row.name}: {row.note}" for row in rows if row.config is None and row.name in (args.only or ())]:
        raise SystemExit(f"these rows cannot be run: {'; '.join(barred)}")
    asked = [(row, budgeted(row.config, args)) for row in rows if row.config and row.name in (args.only or names)]
    todo = [] if args.table else [(*run, seed) for seed in range(args.seeds) for run in asked]
    tell(rows, args)
    for row, config, seed in todo:  # before the first is trained
        begun(row.name, config.changed(seed=seed), args)
    for row, config, seed in todo:
        train(row.name, config, seed, args, within=row.within)
        tell(rows, args)
    print(tell(rows, args))
