"""How deep a circuit goes: what reaches the last layer at the start, and what deep networks learn in few steps.

At the start, by depth: firing rate, standard deviation of the integrated current I_E, the share of its variance that
lies between images (1: all that a neuron says depends on the image; 0: it says the same of every image), and the size
of the gradient that comes back to it. Then a short training on the bundled sample, for those who ask for it.

    python experiments/depth.py                                   # the start, all networks and methods
    python experiments/depth.py --train stack20 stack40 --epochs 4
"""

import argparse
import json
import statistics
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import eisnn
from eisnn.analysis import record, spiking_layers
from eisnn.data import load
from eisnn.models import VGG, SpikingNetwork
from eisnn.nn import LIF, PLUS, make_layers
from eisnn.process import subnormals_flushed
from eisnn.provenance import provenance, write_result
from eisnn.train import fit, recipe

RESULTS = Path(__file__).parent / "results" / "depth"
METHODS: dict[str, dict[str, Any]] = {
    "paper": {"circuit": "ei"},
    "plus": {"circuit": "ei", "options": PLUS},
    "plus, tapwise": {"circuit": "ei", "options": replace(PLUS, tapwise=True)},
    "batch norm": {"circuit": "bn"},
}
NETWORKS = ("vgg16", "resnet34", "resnet50", "resnet101", "stack20", "stack40", "stack80", "narrow1000")
# A thousand layers of few neurons on small maps.
NARROW: tuple[Any, ...] = (16, "P", 16, "P", *(16,) * 998)
RECIPES = {"paper": "demo", "plus": "demo-plus", "plus, tapwise": "demo-plus", "batch norm": "demo-bn"}


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
        create = partial(eisnn.create_model, network, width=width, circuit=options["circuit"], neuron=neuron)
        model = create(circuit_options=options["options"]) if "options" in options else create()
    if options["circuit"] == "ei":
        eisnn.ei_init_(model, images, generator=torch.Generator().manual_seed(0))
    return model


def propagation(model: SpikingNetwork, images: Tensor, labels: Tensor) -> list[dict[str, float]]:
    """What each layer shows, from the first to the last, for one batch in training mode."""
    names, rows = list(spiking_layers(model)), []
    with record(model, what=["I_E", "spikes", "gradient"]) as seen:
        F.cross_entropy(model.train()(images), labels).backward()
    for name in names:
        i_e = seen[name]["I_E"].double()
        variance = float(i_e.var(unbiased=False))
        between = float((i_e - i_e.mean(1, keepdim=True)).square().mean())
        rows.append(
            {
                "rate": float(seen[name]["spikes"].float().mean()),
                "std": variance**0.5,
                "between_images": between / variance if variance else float("nan"),
                "gradient": float(seen[name]["gradient"].double().norm()),
            }
        )
    return rows


def start(args: argparse.Namespace) -> None:
    """Propagation at the start of each network by each method; a method that cannot start says why."""
    sample = load("cifar10-sample").train
    images, labels = sample.pixels[: args.images].float() / 255, sample.labels[: args.images]
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
                RESULTS / f"start_{network}_{method}{suffix}.json".replace(", ", "-").replace(" ", "_"),
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
        "gradient": "{gradient:.1e}",
    }
    return "; ".join(f"{name} {' '.join(form.format(**row) for row in shown)}" for name, form in parts.items())


def train(args: argparse.Namespace) -> None:
    """Short trainings on the bundled sample; test accuracy (%) on its 1,000 test images."""
    for network in args.train:
        for method in args.methods:
            for seed in range(args.seeds):
                file = RESULTS / f"train_{network}_{method}_{seed}.json".replace(", ", "-").replace(" ", "_")
                if file.exists():
                    continue
                changes: dict[str, Any] = {"lr": args.lr} if args.lr else {}
                if "options" in METHODS[method]:
                    changes["circuit_options"] = METHODS[method]["options"]
                config = recipe(RECIPES[method]).changed(
                    model=network, width=args.width, epochs=args.epochs, warmup_epochs=1, seed=seed, **changes
                )
                result: dict[str, Any] = {"network": network, "method": method, "seed": seed}
                try:
                    with tempfile.TemporaryDirectory() as folder:
                        result["accuracy"] = fit(config, Path(folder) / "run").accuracy
                except (ValueError, FloatingPointError, RuntimeError) as error:
                    result["problem"] = str(error)
                write_result(file, {**provenance(), **result, "config": config.model_dump(mode="json")})


def table() -> str:
    """Trainings as Markdown."""
    rows: dict[tuple[str, str], list[float]] = {}
    problems: dict[tuple[str, str], str] = {}
    for file in sorted(RESULTS.glob("train_*.json")):
        result = json.loads(file.read_text())
        key = result["network"], result["method"]
        if "accuracy" in result:
            rows.setdefault(key, []).append(result["accuracy"])
        else:
            problems[key] = result["problem"]
    lines = ["| network | method | test accuracy, % | n |", "|---|---|---|---|"]
    for (network, method), values in rows.items():
        spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        lines.append(f"| {network} | {method} | {statistics.mean(values):.1f}{spread} | {len(values)} |")
    lines += [f"| {network} | {method} | {problem} | 0 |" for (network, method), problem in problems.items()]
    return "\n".join(lines)


def draw(file: Path) -> None:
    """What reaches each depth at the start: a row for each network, a column for each measure."""
    from matplotlib.figure import Figure

    from eisnn.analysis.figures import COLORS

    results = [json.loads(f.read_text()) for f in sorted(RESULTS.glob("start_*.json"))]
    networks = [n for n in NETWORKS if any(r["network"] == n for r in results)]
    measures = {"rate": "firing rate", "std": "std of $I_E$", "between_images": "share between images",
                "gradient": "norm of $dL/dI_E$"}  # fmt: skip
    figure = Figure(figsize=(13, 2.1 * len(networks)), layout="constrained")
    panels = figure.subplots(len(networks), len(measures), squeeze=False)
    for row, network in zip(panels, networks, strict=True):
        for axes, (measure, label) in zip(row, measures.items(), strict=True):
            for method, color in zip(METHODS, COLORS, strict=False):
                for result in results:
                    if (result["network"], result["method"], result.get("alpha")) == (
                        network,
                        method,
                        None,
                    ) and "layers" in result:
                        values = [layer[measure] for layer in result["layers"]]
                        axes.plot(range(1, len(values) + 1), values, color=color, label=method, linewidth=1.2)
            axes.set(title=f"{network}: {label}", xlabel="layer")
            axes.title.set_size("small")
            if measure == "gradient":
                axes.set_yscale("log")
            axes.spines[["top", "right"]].set_visible(False)
    panels[0][0].legend(frameon=False, fontsize="x-small")
    figure.savefig(file, dpi=110)


@subnormals_flushed()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--alpha", type=float, help="width parameter of the surrogate, instead of 4")
    parser.add_argument("--train", nargs="*", default=[], metavar="NETWORK")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--lr", type=float, help="other than the recipes'")
    parser.add_argument("--figure", type=Path, help="draw the results that are there")
    args = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    if args.train:
        train(args)
        print(table())
    elif args.figure:
        draw(args.figure)
    else:
        start(args)


if __name__ == "__main__":
    main()
