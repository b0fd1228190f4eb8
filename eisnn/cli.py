"""The command line: `eisnn COMMAND ...`. Options come from the types of the functions and of `TrainConfig`."""

import os
import sys
from collections.abc import Callable
from dataclasses import make_dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from eisnn.names import did_you_mean
from eisnn.process import keep_memory, subnormals_flushed

if TYPE_CHECKING:
    from eisnn.train import Result, TrainConfig

HELP = """\
usage: eisnn COMMAND ...

  train RECIPE [--field value ...]   train from a recipe into a new run folder (`eisnn train RECIPE --help`: all fields)
  resume RUN                         continue a run that was interrupted or killed
  evaluate RUN_OR_CHECKPOINT         accuracy of a checkpoint on its evaluation split
  publish RUN OWNER/NAME             share a trained network on the Hugging Face hub (--dry-run: write the folder only)
  export RUN_OR_CHECKPOINT FOLDER    write a trained network to run elsewhere: --format authors, c, nir, onnx or torch
  cost RUN_OR_CHECKPOINT             operations, memory traffic and energy of a network, by layer and pathway
  report RUN                         one HTML page about a run: curves, currents, balance, gain, lesions, feature maps
  explore RUN                        change inhibition by sliders, in the browser, and see what the network does
  events show|convert|simulate|live  recordings of event cameras: look at one, convert it, simulate them from images,
                                     watch a network watch them
  bench [--model vgg8 ...]           step time and memory of an E-I network against its batch-norm twin
  list                               models, circuits, ablations, data sets and recipes
  demo                               train two small E-I networks and their batch-norm twin on bundled images

`eisnn COMMAND --help` explains a command. Where a run is asked for to be looked at, the name of a trained network does
as well: one in the package, as demo-plus, or hf:OWNER/NAME on the Hugging Face hub.
"""

EXTRAS = {
    "matplotlib": "report",
    "jinja2": "report",
    "dash": "explore",
    "onnx": "onnx",
    "onnxscript": "onnx",
}  # which extra brings a module
EXIT_USER_ERROR, EXIT_DIVERGED, EXIT_INTERRUPTED = 2, 3, 130


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 (wrong input), 3 (diverged), 130 (interrupted, saved)."""
    args = sys.argv[1:] if argv is None else argv
    keep_memory()
    if not args or args[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0 if args else EXIT_USER_ERROR
    if args[0] == "--version":
        from eisnn import __version__

        print(__version__)
        return 0
    if args[0] not in COMMANDS:
        hint = did_you_mean(args[0], COMMANDS)
        return _fail(f"unknown command {args[0]!r}; {hint}known: {', '.join(COMMANDS)}", EXIT_USER_ERROR)
    return guarded(args[0], partial(COMMANDS[args[0]], args[1:]))


def guarded(command: str, run: Callable[[], None]) -> int:
    """Run a command; the errors that are meant for users become one message and an exit code, as `main` returns."""
    try:
        return _run(command, run)
    except KeyboardInterrupt:  # also while torch is imported
        return _fail("interrupted", EXIT_INTERRUPTED)


def _run(command: str, run: Callable[[], None]) -> int:
    os.environ.setdefault("PYDANTIC_ERRORS_INCLUDE_URL", "0")
    from pydantic import ValidationError

    from eisnn.config import problems
    from eisnn.train import Diverged, Interrupted

    try:
        with subnormals_flushed():
            run()
    except Diverged as error:
        return _agreed(f"diverged: {error}", EXIT_DIVERGED)
    except Interrupted as error:
        return _agreed(str(error), EXIT_INTERRUPTED)
    except ValidationError as error:
        return _fail("\n  ".join(["the configuration is not valid", *problems(error)]), EXIT_USER_ERROR)
    except ImportError as error:
        if error.name is None:  # ours: it says what to install
            return _fail(str(error), EXIT_USER_ERROR)
        module = error.name.partition(".")[0]
        if module not in EXTRAS:
            raise
        return _fail(
            f"{command} needs {module}, which is not installed: pip install 'eisnn[{EXTRAS[module]}]'", EXIT_USER_ERROR
        )
    except OSError as error:
        named = error.filename is not None and error.strerror is not None  # the system's: it is without a subject
        return _fail(f"{error.filename} cannot be used: {error.strerror}" if named else str(error), EXIT_USER_ERROR)
    except ValueError as error:
        return _fail(str(error), EXIT_USER_ERROR)
    return 0


def _fail(message: str, code: int) -> int:
    print(f"eisnn: {message}", file=sys.stderr)
    return code


def _agreed(message: str, code: int) -> int:
    """All processes of a run stop for the same reason; the first one says so, and the others end in peace: the
    launcher kills everybody when one of them fails."""
    return _fail(message, code) if _is_first_process() else 0


def _is_first_process() -> bool:
    from lightning.fabric.utilities.rank_zero import rank_zero_only

    return getattr(rank_zero_only, "rank", 0) == 0


def _train(args: list[str]) -> None:
    from eisnn.train import fit, recipe, recipes
    from eisnn.train.recipes import by_ending

    if not args or args[0].startswith("-"):
        print("usage: eisnn train RECIPE [--run-dir DIR] [--field value ...]\n\nrecipes (and endings of their names):")
        print("  " + "\n  ".join(by_ending(recipes())))
        if args and args[0] in ("-h", "--help"):
            return
        raise ValueError("train needs the name of a recipe")
    config, run_dir = _asked(recipe(args[0]), args)
    _report(fit(config, run_dir))


def _asked(config: "TrainConfig", args: list[str]) -> tuple["TrainConfig", str]:
    """A recipe, changed by options, and the run's folder. Each field is an option, without the name of its part."""
    import tyro
    from tyro.conf import arg

    from eisnn.interop.shared import locate

    name, values = args[0], config.fields()
    kinds: dict[str, Any] = {"augmentation": type(values["augmentation"])}  # of images, or of events
    options = [
        (field, Annotated[kinds.get(field, info.annotation), arg(help=info.description)], values[field])
        for field, info in config.descriptions().items()
    ]
    folder = ("run_dir", Annotated[str, arg(metavar="PATH", help="Folder for log and checkpoints.")], f"runs/{name}")
    given = vars(
        tyro.cli(
            make_dataclass("Options", [*options, folder]),
            args=args[1:],
            prog=f"eisnn train {name}",
            description=f"Train from the recipe {name}.",
        )
    )
    named = {field: str(locate(given[field])) for field in ("start_from", "teacher") if given[field]}
    return type(config)(**{field: given[field] for field in values} | named), given["run_dir"]


def _resume(args: list[str]) -> None:
    import tyro

    from eisnn.train import resume

    def run(
        folder: tyro.conf.Positional[Path],
        data_path: str | None = None,
        accelerator: str | None = None,
        devices: int | None = None,
        num_nodes: int | None = None,
        no_cuda_graph: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    ) -> None:
        """Continue a run from its last checkpoint.

        Args:
            folder: The run's folder.
            data_path: Where the data set is, if it has moved; the run remembers it.
            accelerator: auto, cpu or cuda, if not that of the run so far; the run remembers it.
            devices: Devices (processes) on each node, if not as many as so far; the run remembers it.
            num_nodes: Nodes, if not as many as so far; the run remembers it.
            no_cuda_graph: Do not record the training step as a CUDA graph; the run remembers it.
        """
        changes: dict[str, Any] = {"accelerator": accelerator, "devices": devices, "num_nodes": num_nodes}
        _report(resume(folder, data_path=data_path, cuda_graph=False if no_cuda_graph else None, **changes))

    tyro.cli(run, args=args, prog="eisnn resume")


def _report(result: "Result") -> None:
    if _is_first_process():
        average = ""
        if result.average_accuracy is not None:
            average = f"of the averaged weights {result.average_accuracy:.2f} %; "
        print(
            f"accuracy after the last epoch: {result.accuracy:.2f} % "
            f"(best {result.best_accuracy:.2f} % after epoch {result.best_epoch}); {average}run: {result.run_dir}"
        )


def _evaluate(args: list[str]) -> None:
    import tyro

    from eisnn.interop import evaluate

    def run(path: tyro.conf.Positional[Path], data_path: str | None = None, accelerator: str | None = None) -> None:
        """Evaluate a checkpoint on its evaluation split.

        Args:
            path: A run's folder (its last checkpoint), a checkpoint file, e.g. RUN/best.safetensors, or a released
                checkpoint of the authors' program (the folder of its model.safetensors and config.json).
            data_path: Where the data set is, if not where it was at training.
            accelerator: auto, cpu or cuda, if not that of the training.
        """
        r = evaluate(path, data_path=data_path, accelerator=accelerator)
        for note in r["notes"]:
            print(f"note: {note}")
        average = f"averaged weights {r['average_accuracy']:.2f} %, " if "average_accuracy" in r else ""
        print(
            f"{r['accuracy']:.2f} % of {r['images']} {r['kind']}, {average}loss {r['loss']:.4f}, "
            f"firing rate {r['firing_rate']:.3f} ({r['checkpoint']}, {r['dataset']}, {r['split']})"
        )

    tyro.cli(run, args=args, prog="eisnn evaluate")


def _export(args: list[str]) -> None:
    import tyro

    from eisnn.deploy import CALIBRATION, EXPORTS
    from eisnn.functional import Division
    from eisnn.interop import load_trained, write_released

    def run(
        path: tyro.conf.Positional[Path],
        folder: tyro.conf.Positional[Path],
        format: Literal["authors", "c", "nir", "onnx", "torch"] = "authors",
        division: Literal["shift", "lut"] | None = None,
        entries: int | None = None,
        like: Path | None = None,
        data_path: str | None = None,
    ) -> None:
        """Write a trained network in a format that runs elsewhere (docs/how-to/deploy.md).

        Args:
            path: A run's folder (its last checkpoint) or a checkpoint file.
            folder: What is written goes there.
            format: authors (the checkpoint layout of the paper's program; VGGs of its circuit), c (C99 in integers),
                nir (with each divisor held at its mean over training images), onnx, or torch (torch.export and
                AOTInductor).
            division: Of c, by a table of reciprocals (lut) or by powers of two (shift); left out, as the network was
                trained, lut if that was exactly.
            entries: Of that table, a power of two; 64 if left out.
            like: Of authors, a released checkpoint of the same network, whose layer numbers and names to use; needed
                for networks that do not pool after every convolution.
            data_path: Where the data set is, if not where it was at training.
        """
        given: dict[str, dict[str, Any]] = {"c": {"division": division, "entries": entries}, "authors": {"like": like}}
        for owner, options in given.items():
            if format != owner and (stray := [name for name, value in options.items() if value is not None]):
                raise ValueError(f"--{stray[0]} is of --format {owner}, and would change nothing of --format {format}")
        if folder.is_file():
            raise ValueError(f"{folder} is a file; name a folder to write into")
        trained = load_trained(path, data_path=data_path)
        if format == "authors":
            print(f"written: {write_released(trained.model, trained.config, folder, like)}")
        else:
            images, classes = trained.training_images(CALIBRATION.get(format, 1)), trained.dataset.classes
            own = trained.config.network.circuit_options.division
            kind = division or ("lut" if own.kind == "exact" else own.kind)
            if entries is not None and kind != "lut":
                raise ValueError(f"--entries is of division lut, and would change nothing of division {kind}")
            written = EXPORTS[format](trained.model, images, classes, folder, Division(kind, entries or own.entries))
            print(f"written: {written}")

    tyro.cli(run, args=args, prog="eisnn export")


def _cost(args: list[str]) -> None:
    import tyro

    from eisnn.deploy import cost
    from eisnn.files import require_writable
    from eisnn.interop import load_trained
    from eisnn.nn import fold
    from eisnn.provenance import provenance, write_result

    def run(
        path: tyro.conf.Positional[Path],
        images: int = 256,
        folded: bool = True,
        output: Path | None = None,
        figure: Path | None = None,
        data_path: str | None = None,
    ) -> None:
        """What a network costs to run, counted on training images.

        Args:
            path: A run's folder (its last checkpoint) or a checkpoint file.
            images: How many, for firing rates.
            folded: Of the network with folded weights; --no-folded counts the circuit as the paper writes it.
            output: Also write the numbers to this JSON file, under the names of NeuroBench.
            figure: Also draw the operations by layer and pathway into this file (the extra report).
            data_path: Where the data set is, if not where it was at training.
        """
        for file in (output, figure):
            if file is not None:
                require_writable(file)
        trained = load_trained(path, data_path=data_path)
        shown = trained.training_images(images)
        counted = cost(fold(trained.model) if folded else trained.model.eval(), shown)
        print(counted.table())
        if output is not None:
            write_result(output, {**provenance(), "checkpoint": str(trained.file), "folded": folded, **counted.json()})
        if figure is not None:
            from eisnn.analysis.figures import operations_figure

            operations_figure(figure, counted.operations())

    tyro.cli(run, args=args, prog="eisnn cost")


def _publish(args: list[str]) -> None:
    import tyro

    from eisnn.interop.hub import publish

    def run(
        run: tyro.conf.Positional[Path],
        name: tyro.conf.Positional[str],
        out: Path | None = None,
        dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
        private: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
        license: str | None = None,
        data_path: str | None = None,
    ) -> None:
        """Share a trained network: its weights, curves and a card.

        Args:
            run: The run's folder, whose last checkpoint is taken, or a name that `eisnn.load` knows.
            name: OWNER/NAME on the Hugging Face hub.
            out: The new folder; left out, it is `published` in the run's, of a shared network `NAME-published` here.
            dry_run: Write the folder and upload nothing.
            private: Only the owner can see it.
            license: As the hub calls it, such as apache-2.0.
            data_path: Where the data set is, if not where it was at training.
        """
        folder = publish(run, name, out=out, dry_run=dry_run, private=private, license=license, data_path=data_path)
        print(f"written: {folder}" + ("" if dry_run else f"; load it with eisnn.load('hf:{name}')"))

    tyro.cli(run, args=args, prog="eisnn publish")


def _report_page(args: list[str]) -> None:
    import tyro

    from eisnn.report import report

    file = tyro.cli(report, args=args, prog="eisnn report", config=(tyro.conf.PositionalRequiredArgs,))
    print(f"{file} ({file.stat().st_size / 1e6:.1f} MB); open it in a browser")


def _explore(args: list[str]) -> None:
    import tyro

    from eisnn.explore import explore

    tyro.cli(explore, args=args, prog="eisnn explore", config=(tyro.conf.PositionalRequiredArgs,))


def _list(args: list[str]) -> None:
    from eisnn.data import list_datasets
    from eisnn.interop.shared import network_names
    from eisnn.methods import ABLATIONS, CIRCUITS
    from eisnn.models import list_models
    from eisnn.train import recipes
    from eisnn.train.recipes import ENDINGS, by_ending

    if args and args[0] in ("-h", "--help"):
        print("usage: eisnn list\n\nPrint the names of all models, circuits, ablations, data sets and recipes.")
        return
    if args:
        raise ValueError(f"list takes no arguments, got {' '.join(args)}")
    for title, names in {
        "models": list_models(),
        "circuits": list(CIRCUITS),
        "ablations": list(ABLATIONS),
        "data sets": list_datasets(),
        "trained networks": network_names(),
    }.items():
        print(f"{title}: {', '.join(names)}")
    print("recipes (and endings of their names):", *by_ending(recipes()), sep="\n  ")
    print("endings:", *(f"-{ending}: {meaning}" for ending, meaning in ENDINGS.items()), sep="\n  ")


def _bench(args: list[str]) -> None:
    import tyro

    from eisnn.bench import bench

    tyro.cli(bench, args=args, prog="eisnn bench")


def _events(args: list[str]) -> None:
    from importlib import import_module

    import tyro

    modules = {"show": "data.events.show", "convert": "data.events.convert", "simulate": "data.events.simulate",
               "live": "live.view"}  # fmt: skip
    if not args or args[0] not in modules:
        print(f"usage: eisnn events {'|'.join(modules)} ...\n\n`eisnn events COMMAND --help` explains a command.")
        if args and args[0] in ("-h", "--help"):
            return
        raise ValueError(f"events needs one of {', '.join(modules)}" + (f", got {args[0]!r}" if args else ""))
    run = getattr(import_module(f"eisnn.{modules[args[0]]}"), args[0])
    tyro.cli(run, args=args[1:], prog=f"eisnn events {args[0]}", config=(tyro.conf.PositionalRequiredArgs,))


def _demo(args: list[str]) -> None:
    import tyro

    from eisnn.demo import demo

    tyro.cli(demo, args=args, prog="eisnn demo")


COMMANDS = {
    "train": _train,
    "resume": _resume,
    "evaluate": _evaluate,
    "publish": _publish,
    "export": _export,
    "cost": _cost,
    "report": _report_page,
    "explore": _explore,
    "events": _events,
    "bench": _bench,
    "list": _list,
    "demo": _demo,
}

if __name__ == "__main__":
    sys.exit(main())
