"""How deep a circuit goes: what reaches the last layer at the start, and what deep networks learn in few steps.

At the start, by depth: firing rate; standard deviation of the integrated current I_E; the share of its variance that
lies between images (1: all that a neuron says depends on the image; 0: it says the same of every image); how far the
layer finds the same images alike as the first layer does (rank correlation of dissimilarities); and the size of the
gradient that comes back to it. Then a short training on the bundled sample, for those who ask for it.

    python experiments/depth.py                                                    # the start, all networks and methods
    python experiments/depth.py --train stack20 stack40 --epochs 4                 # 5,000 images of 16x16 pixels
    python experiments/depth.py --train vgg16 --width 0.125 --image-size 32 --epochs 6
    python experiments/depth.py --train resnet1002 --width 0.0625 --train-images 1000 --batch-size 32 --epochs 8
"""

import argparse
import json
import statistics
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from study import budgeted, parser, positive, run_script, train
from telling import Result, Row, cell, summarize
from torch import Tensor
from torch.nn import functional as F

import eisnn
from eisnn.analysis import dissimilarity, record, representational_similarity, spiking_layers
from eisnn.data import load
from eisnn.methods import make_layers
from eisnn.models import VGG, SpikingNetwork, list_models
from eisnn.nn import LIF, PLUS
from eisnn.provenance import provenance, write_result
from eisnn.train import TrainConfig, recipe

METHODS: dict[str, dict[str, Any]] = {
    "paper": {"circuit": "ei"},
    "plus": {"circuit": "ei", "options": PLUS},
    "plus, one width": {"circuit": "ei", "options": replace(PLUS, even_gradients=False)},
    "plus, one width, whole field": {"circuit": "ei", "options": replace(PLUS, even_gradients=False, tapwise=False)},
    "batch norm": {"circuit": "bn"},
}
NETWORKS = (
    *("vgg16", "resnet18", "resnet34", "resnet50", "resnet101", "resnet82", "resnet1002"),
    *("stack20", "stack40", "stack80", "narrow1000"),
)
# A thousand layers of few neurons on small maps.
NARROW: tuple[Any, ...] = (16, "P", 16, "P", *(16,) * 998)


def build(network: str, method: str, width: float, images: Tensor, alpha: float | None) -> SpikingNetwork:
    """An initialised network with surrogates of width `alpha` (None: the default); E-I Init from `images`."""
    torch.manual_seed(0)
    options = METHODS[method]
    if network == "narrow1000":
        given = {"options": options["options"]} if "options" in options else {}
        layers = make_layers(options["circuit"], LIF(alpha=alpha), 4, **given)
        model: SpikingNetwork = VGG(NARROW, layers, 3, 10, 4)
    else:
        neuron = LIF(alpha=alpha)
        width = 1 / 16 if network == "resnet1002" else width
        create = partial(eisnn.create_model, network, width=width, circuit=options["circuit"], neuron=neuron)
        model = create(circuit_options=options["options"]) if "options" in options else create()
    if options["circuit"] == "ei":
        eisnn.ei_init_(model, images, generator=torch.Generator().manual_seed(0))
    return model


def propagation(model: SpikingNetwork, images: Tensor, labels: Tensor) -> list[dict[str, float]]:
    """What each layer shows, from the first to the last, for one batch in training mode."""
    names, rows = list(spiking_layers(model)), []
    first = None
    with record(model, what=["I_E", "spikes", "gradient"]) as seen:
        F.cross_entropy(model.train()(images), labels).backward()
    for name in names:
        i_e = seen[name]["I_E"].double()
        variance = float(i_e.var(unbiased=False))
        between = float((i_e - i_e.mean(1, keepdim=True)).square().mean())
        alike = dissimilarity(seen[name]["spikes"].mean(0))
        first = alike if first is None else first
        rows.append(
            {
                "rate": float(seen[name]["spikes"].float().mean()),
                "std": variance**0.5,
                "between_images": between / variance if variance else float("nan"),
                "similarity": representational_similarity(first, alike),
                "gradient": float(seen[name]["gradient"].double().norm()),
            }
        )
    return rows


def start(args: argparse.Namespace) -> None:
    """Propagation at the start of each network by each method; a method that cannot start says why."""
    sample = load("cifar10-sample").train
    chosen = torch.randperm(len(sample), generator=torch.Generator().manual_seed(0))[: args.images]
    images, labels = sample.pixels[chosen].float() / 255, sample.labels[chosen]
    for network in args.networks:
        for method in args.methods:
            result: dict[str, Any] = {"network": network, "method": method, "width": args.width, "images": args.images}
            result["alpha"] = args.alpha
            suffix = f"_alpha_{args.alpha}" if args.alpha else ""
            try:
                result["layers"] = propagation(build(network, method, args.width, images, args.alpha), images, labels)
            except ValueError as error:
                result["problem"] = str(error)
            write_result(
                args.output / f"start_{network}_{method}{suffix}.json".replace(", ", "-").replace(" ", "_"),
                {**provenance(), **result},
            )
            print(f"{network}, {method}: {summary(result)}", flush=True)


def summary(result: dict[str, Any]) -> str:
    """First, middle and last layer in a line."""
    if "problem" in result:
        return str(result["problem"])
    layers = result["layers"]
    shown = [layers[0], layers[len(layers) // 2], layers[-1]]
    parts = {
        "rate": "{rate:.3f}",
        "std": "{std:.2f}",
        "between images": "{between_images:.2f}",
        "similarity": "{similarity:.2f}",
        "gradient": "{gradient:.1e}",
    }
    return "; ".join(f"{name} {' '.join(form.format(**row) for row in shown)}" for name, form in parts.items())


def rows(args: argparse.Namespace) -> dict[str, TrainConfig]:
    """Short trainings on the bundled sample, evaluated on its 1,000 test images after the last epoch."""
    made = {}
    for network in args.train:
        for method in args.methods:
            twin = METHODS[method]["circuit"] == "bn"
            base = recipe("demo-bn" if twin else "demo" if method == "paper" else "demo-plus")
            options = METHODS[method].get("options")
            config = base.changed(model=network, image_size=args.image_size, circuit_options=options, lr=args.rate)
            made[f"{network}, {method}, {config.optimization.lr}"] = config
    return made


def start_table(folder: Path) -> str:
    """The start of each network by each method as Markdown."""
    measured = "std(I_E), least to most | share between images, last layer | similarity to layer 1, last layer"
    lines = [f"| network | method | {measured} | gradient, first over last layer |", "|" + "---|" * 6]
    results = [json.loads(file.read_text()) for file in sorted(folder.glob("start_*.json"))]
    for network in NETWORKS:
        for method in METHODS:
            for result in results:
                if (result["network"], result["method"], result["alpha"]) == (network, method, None):
                    lines.append(f"| {network} | {method} | {' | '.join(_told(result))} |")
    return "\n".join(lines)


def _told(result: dict[str, Any]) -> list[str]:
    if "problem" in result:
        return [result["problem"], "", "", ""]
    layers = result["layers"]
    stds = [layer["std"] for layer in layers]
    first, last = layers[0], layers[-1]
    ratio = first["gradient"] / last["gradient"] if last["gradient"] else float("nan")
    return [
        f"{min(stds):.2f} to {max(stds):.2f}",
        f"{last['between_images']:.2f}",
        f"{last['similarity']:.2f}",
        f"{ratio:.2g}",
    ]


def table(folder: Path) -> str:
    """Trainings as Markdown: each network has a budget of its own."""
    found: dict[str, list[Result]] = {}
    for file in sorted(folder.glob("*-[0-9].json")):
        result = json.loads(file.read_text())
        found.setdefault(result["row"], []).append(result)
    measured = "training loss, first and last epoch | test accuracy, %"
    lines = [f"| network, method, rate | epochs | {measured} | n |", "|" + "---|" * 5]

    def by_depth(name: str) -> tuple[str, int, str]:
        network = name.split(",")[0]
        kind = network.rstrip("0123456789")
        return kind, int(network.removeprefix(kind)), name

    for name in sorted(found, key=by_depth):
        results = found[name]
        told = summarize(Row(name, None), results, results)
        losses = [result["train_loss"] for result in results if result["train_loss"]]
        loss = " → ".join(f"{statistics.mean(curve[k] for curve in losses):.2f}" for k in (0, -1) if losses)
        outcome = results[0]["lost"] or cell((told["mean"], told["standard_deviation"]))
        epochs = max(len(result["train_loss"]) for result in results)
        lines.append(f"| {name} | {epochs} | {loss} | {outcome} | {len(results)} |")
    return "\n".join(lines)


def draw(file: Path, folder: Path) -> None:
    """What reaches each depth at the start: a row for each network, a column for each measure."""
    from matplotlib.figure import Figure

    from eisnn.analysis.figures import COLORS

    results = [json.loads(f.read_text()) for f in sorted(folder.glob("start_*.json"))]
    results = [r for r in results if r["alpha"] is None and "layers" in r]
    networks = [n for n in NETWORKS if any(r["network"] == n for r in results)]
    measures = {"rate": "firing rate", "std": "std of $I_E$", "between_images": "share between images",
                "similarity": "similarity to layer 1", "gradient": "norm of $dL/dI_E$"}  # fmt: skip
    figure = Figure(figsize=(16, 2.1 * len(networks)), layout="constrained")
    panels = figure.subplots(len(networks), len(measures), squeeze=False)
    for row, network in zip(panels, networks, strict=True):
        for axes, (measure, label) in zip(row, measures.items(), strict=True):
            for method, color in zip(METHODS, COLORS, strict=False):
                for result in results:
                    if (result["network"], result["method"]) == (network, method):
                        values = [layer[measure] for layer in result["layers"]]
                        axes.plot(range(1, len(values) + 1), values, color=color, label=method, linewidth=1.2)
            axes.set(title=f"{network}: {label}", xlabel="layer")
            axes.title.set_size("small")
            if measure == "gradient":
                axes.set_yscale("log")
            axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *panels[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=len(METHODS), frameon=False
    )
    figure.savefig(file, dpi=110)


def main() -> None:
    made = parser(__doc__, width=0.25, batch_size=64)
    made.add_argument("--networks", nargs="*", default=NETWORKS, choices=NETWORKS)
    made.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    made.add_argument("--images", type=positive, default=32)
    made.add_argument("--alpha", type=float, help="width parameter of the surrogate, instead of 4")
    made.add_argument("--train", nargs="*", default=[], choices=list_models(), metavar="NETWORK")
    made.add_argument("--image-size", type=positive, default=16, help="of a training")
    made.add_argument("--rate", type=float, help="other than the recipes'")
    made.add_argument("--figure", type=Path, help="draw the results that are there")
    args = made.parse_args()
    args.epochs = args.epochs or 4
    args.evaluate_epochs = args.evaluate_epochs or args.epochs
    if args.figure:
        draw(args.figure, args.output)
    elif not (args.train or args.table):
        start(args)
    else:
        for name, config in rows(args).items():
            config = budgeted(config, args).changed(warmup_epochs=min(1, args.epochs / 4))
            for seed in range(0 if args.table else args.seeds):
                train(name, config, seed, args)
        print(start_table(args.output), table(args.output), sep="\n\n")


if __name__ == "__main__":
    run_script(main)
