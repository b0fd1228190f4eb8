"""Does divisive inhibition make a network robust to the mismatch of mixed-signal chips?

Each virtual chip multiplies every synapse of the trained network, and every neuron's gain, threshold and time constant,
by a log-normal factor of median 1, drawn once. Inhibition is analogue too: E and I synapses vary by themselves, before
they are subtracted. Re-calibration changes the gains alone: each neuron's current gets the standard deviation that it
has in the network itself, over training images, layer by layer.

    python experiments/mismatch.py --seeds 3 --evaluate-epochs 25 --output experiments/results/mismatch
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from study import demo_network, parser, run_script
from torch import Tensor, nn

from eisnn import functional as EF
from eisnn.analysis.figures import COLORS
from eisnn.interop import load_trained
from eisnn.models import VGG
from eisnn.nn import LIF, fold
from eisnn.nn.inference import FoldedLayer
from eisnn.nn.layer import SpikingLayer
from eisnn.nn.projection import ProjectionLayer
from eisnn.provenance import provenance, write_result

RECIPES = ("demo", "demo-plus", "demo-bn")
SPREADS = (0.1, 0.2, 0.3)


class Chip(nn.Module):
    """LIF neurons (soft reset) whose decay and inverse threshold vary; the threshold scales the current instead."""

    def __init__(self, decay: Tensor, inverse_threshold: Tensor) -> None:
        super().__init__()
        self.decay, self.inverse_threshold, self.gain = decay, inverse_threshold, torch.ones_like(decay)
        self.seen: Tensor | None = None

    def forward(self, current: Tensor) -> Tensor:
        self.seen = current
        current = current * EF.per_neuron(self.gain * self.inverse_threshold, current)
        v, spikes = torch.zeros_like(current[0]), []
        for i in current:
            h = EF.per_neuron(self.decay, current) * v + i
            spikes.append((h >= 1).to(h))
            v = h - spikes[-1]
        return torch.stack(spikes)


def varied(x: Tensor, spread: float, g: torch.Generator) -> Tensor:
    return x * torch.randn(x.shape, generator=g).mul(spread).exp()


def on_chip(layer: SpikingLayer, spread: float, g: torch.Generator) -> SpikingLayer:
    """A layer as one chip has it, with `Chip` neurons."""
    assert type(layer.neuron) is LIF
    n, tau = layer.pathways()[0].weight.shape[0], layer.neuron.constants.tau
    decay = (1 - 1 / varied(torch.full((n,), tau), spread, g)).clamp_min(0)
    neuron = Chip(decay, 1 / varied(torch.ones(n), spread, g))
    synapses = layer.synapses()
    if synapses is None:
        plain = fold(layer)
        assert isinstance(plain, ProjectionLayer)
        plain.projection.weight.copy_(varied(plain.projection.weight, spread, g))
        plain.neuron = neuron
        return plain
    ee, ie, sub, div = (varied(w.detach(), spread, g) for w in synapses[:4])
    kernel = torch.cat([EF.fold(ee, ie, sub), ie])
    tonic = synapses.sigma is not None
    if synapses.sigma is not None:
        kernel = torch.cat([kernel, torch.zeros_like(kernel[:1])])
        div = torch.cat([div, varied(synapses.sigma.detach(), spread, g)[:, None]], 1)
    gain_e, bias = layer.gain_e.detach(), layer.bias.detach()
    return FoldedLayer(layer.connection, kernel, div, varied(gain_e, spread, g), bias, neuron, tonic)


@torch.no_grad()
def chip(model: VGG, spread: float, seed: int, shown: Tensor | None, reference: list[Tensor] | None) -> VGG:
    """A virtual chip; re-calibrated on the images `shown`, where these are given, to the deviations of `reference`."""
    g = torch.Generator().manual_seed(seed)
    made = fold(model)
    assert isinstance(made, VGG)
    for k, layer in enumerate(model.layers):
        made.layers[k] = on_chip(layer, spread, g)
    if shown is not None and reference is not None:
        for layer, deviation in zip(made.layers, reference, strict=True):
            made(shown)
            layer.neuron.gain = (deviation / deviations(layer).clamp_min(1e-6)).clamp(0.1, 10)
    return made


def deviations(layer: Any) -> Tensor:
    """Of each neuron's current in the last call."""
    return layer.neuron.seen.transpose(0, 2).flatten(1).std(1)


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    answers = torch.cat([model(part).argmax(1) for part in images.split(100)])
    return 100 * float((answers == labels).float().mean())


def accuracies(network: Path, args: argparse.Namespace) -> dict[str, list[float]]:
    """Of one trained network: itself, rebuilt without mismatch, and on each chip."""
    trained = load_trained(network)
    model = trained.model.eval()
    assert isinstance(model, VGG)
    pixels, step = trained.test_pixels(), len(trained.dataset.test) // args.images  # which are sorted by class
    images = pixels[::step][: args.images].float() / 255
    labels = trained.dataset.test.labels[::step][: args.images]
    shown = trained.training_images(100)
    with torch.no_grad():
        perfect = chip(model, 0.0, 0, None, None)
        perfect(shown)
    reference = [deviations(layer) for layer in perfect.layers]
    found = {"itself": [accuracy(fold(model), images, labels)], "0": [accuracy(perfect, images, labels)]}
    for spread in SPREADS:
        for calibrated in (False, True):
            given = (shown, reference) if calibrated else (None, None)
            chips = [chip(model, spread, seed, *given) for seed in range(args.chips)]
            found[f"{spread}{', calibrated' if calibrated else ''}"] = [accuracy(c, images, labels) for c in chips]
    return found


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    found: dict[str, list[dict[str, list[float]]]] = {}
    for name in RECIPES:
        found[name] = []
        for seed in range(args.seeds):
            found[name].append(accuracies(demo_network(name, seed, args), args))
            means = {key: round(statistics.mean(values), 1) for key, values in found[name][-1].items()}
            print(name, seed, means, flush=True)
    summary = {name: {key: told([run[key] for run in runs]) for key in runs[0]} for name, runs in found.items()}
    write_result(
        args.output / "mismatch.json",
        {
            **provenance(),
            "n": args.seeds,
            "chips": args.chips,
            "images": args.images,
            "summary": summary,
            "runs": found,
        },
    )
    draw(args.output / "mismatch.png", found)


def told(runs: list[list[float]]) -> dict[str, float]:
    """Mean over networks of the mean over chips, and how networks and chips differ."""
    means = [statistics.mean(chips) for chips in runs]
    spread = {"of networks": statistics.stdev(means)} if len(means) > 1 else {}
    if len(runs[0]) > 1:
        spread["of chips"] = statistics.mean(statistics.stdev(chips) for chips in runs)
    return {"mean": statistics.mean(means), **spread}


def draw(file: Path, found: dict[str, list[dict[str, list[float]]]]) -> None:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for color, (name, runs) in zip(COLORS, found.items(), strict=False):
        for calibrated, style in (("", "-"), (", calibrated", "--")):
            chips = [[value for run in runs for value in run[f"{spread}{calibrated}"]] for spread in SPREADS]
            means = [statistics.mean(run["itself"][0] for run in runs), *map(statistics.mean, chips)]
            axes.plot((0, *SPREADS), means, style, color=color, label=f"{name}{calibrated}")
            for spread, c in zip(SPREADS, chips, strict=True):
                axes.plot([spread] * len(c), c, ".", color=color, markersize=3, alpha=0.5)
    axes.set(xlabel="mismatch (standard deviation of the logarithm)", ylabel="test accuracy (%)", ylim=(0, None))
    axes.legend(frameon=False, fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=130)


if __name__ == "__main__":
    options = parser(__doc__, runs=Path("runs/deploy"))
    options.add_argument("--chips", type=int, default=6, help="virtual chips for each spread")
    options.add_argument("--images", type=int, default=300, help="test images")
    run_script(lambda: main(options.parse_args()))
