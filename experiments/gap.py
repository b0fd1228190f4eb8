"""Where the gap between -plus and its batch-norm twin with the same optimizer lies: from the one to the other in steps.

The twin loses one thing after the other until it is nearly -plus, and -plus gets back what the twin has. The steps are
not part of the package: they take the place of what a layer does. VGG-8 of quarter width, five epochs of 10,000
images, orthogonalised updates, judged on 5,000 images held out.

    python experiments/gap.py --data-path CIFAR10
    python experiments/gap.py --table --output experiments/results/gap     # those that are committed
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from screening import variants
from study import RESULTS, positive, require_same, run_script
from torch import Tensor
from torch.nn import functional as F

from eisnn.methods.bn import BNLayer
from eisnn.nn import LIF, EILayer
from eisnn.nn.neurons import run_neuron
from eisnn.provenance import provenance, write_result
from eisnn.train import Run, fit

TWIN, PLUS = "batch norm, orthogonal, 0.02", "plus, 0.02"
NORM = 0.58  # of a neuron's weights, as E-I Init and torch's own have it here
LEAST_CHANNELS = 8  # for a balance tap by tap
# What a twin's layer does otherwise; in -plus, what its currents get besides; or a changed option.
STEPS: dict[str, tuple[str, frozenset[str] | dict[str, Any]]] = {
    "twin": (TWIN, frozenset()),
    "twin, weights centred tap by tap and of one norm": (TWIN, frozenset({"centred"})),
    "the same without batch norm": (TWIN, frozenset({"centred", "free"})),
    "the same with division": (TWIN, frozenset({"centred", "free", "divided"})),
    "the same with excitation and constant inhibition": (TWIN, frozenset({"centred", "free", "divided", "dale"})),
    "plus": (PLUS, frozenset()),
    "plus, tightness 3": (PLUS, {"circuit_options": {"tightness": 3.0}}),
    "plus, tightness 10": (PLUS, {"circuit_options": {"tightness": 10.0}}),
    "plus, currents centred over the batch": (PLUS, frozenset({"centre"})),
    "plus, currents scaled over the batch": (PLUS, frozenset({"scale"})),
    "plus, currents centred and scaled over the batch": (PLUS, frozenset({"centre", "scale"})),
}


def by_channel(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1)


def kernel(layer: BNLayer, steps: frozenset[str]) -> Tensor:
    """The weights of a layer of the twin `[n, C, kh, kw]`."""
    weight: Tensor = layer.projection.weight
    axes = (1,) if weight.shape[1] >= LEAST_CHANNELS else (1, 2, 3)
    if "dale" in steps:
        with torch.no_grad():
            if not hasattr(layer, "drawn"):
                layer.drawn = True
                weight.exponential_().mul_(NORM / weight[0].numel() ** 0.5)
            weight.clamp_(min=0)
        weight = weight / weight.mean(axes, keepdim=True).clamp_min(1e-5) * (NORM / weight[0].numel() ** 0.5)
    if "centred" in steps:
        weight = weight - weight.mean(axes, keepdim=True)
        weight = weight * (NORM / weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1))
    return weight


def once(layer: Any, name: str, measured: Tensor) -> float:
    """`measured` at the first training batch."""
    if not hasattr(layer, name) and layer.training:
        setattr(layer, name, float(measured.detach()))
    return getattr(layer, name, 1.0)


def stepped(steps: frozenset[str]) -> Callable[..., Any]:
    """What a layer of the twin does with `steps`."""

    def respond(self: BNLayer, x: Tensor, time_steps: int | None, state: Any, return_state: bool) -> Any:
        conv = self.projection
        geometry = {"stride": conv.stride, "padding": conv.padding}
        maps = x.flatten(0, 1)
        current = F.conv2d(maps, kernel(self, steps), **geometry)
        if "divided" in steps:  # by the mean rate around, with semisaturation, as in -plus
            around = F.conv2d(maps, torch.full_like(conv.weight[:1], 1 / conv.weight[0].numel()), **geometry)
            current = current / (0.7 * around / once(self, "rate", around.mean()) + 0.3)
        if "free" in steps:
            scaled = current / once(self, "std", current.std())
            current = scaled * by_channel(self.norm.weight) + by_channel(self.norm.bias)
        else:
            current = self.norm(current)
        return run_neuron(self.neuron, current.unflatten(0, x.shape[:2]), time_steps, state, return_state)

    return respond


def normalized(steps: frozenset[str], ordinary: Callable[..., Any]) -> Callable[..., Any]:
    """What a circuit does whose integrated current is centred or scaled over the batch."""

    def respond(self: EILayer, x: Tensor, time_steps: int | None, state: Any, return_state: bool) -> Any:
        if not isinstance(self.neuron, LIF):  # E-I Init looks
            return ordinary(self, x, time_steps, state, return_state)
        i_e = self.integrated(x)
        seen = vars(self).setdefault("seen", torch.nn.BatchNorm2d(i_e.shape[2], affine=False))  # no part of its state
        seen.train(self.training)
        maps = i_e.flatten(0, 1)
        scaled = seen(maps)
        mean = by_channel(maps.mean((0, 2, 3)) if self.training else seen.running_mean)
        gain, bias = by_channel(self.gain_e), by_channel(self.bias)
        maps = scaled * gain if "scale" in steps else maps - mean
        maps = maps + (bias if "centre" in steps else mean)
        return self.neuron(maps.unflatten(0, i_e.shape[:2]), time_steps, state, return_state=True)

    return respond


def run(name: str, seed: int, args: argparse.Namespace) -> None:
    """Train one and write its result, unless that is there."""
    method, steps = STEPS[name]
    config = variants()[method].changed(
        width=0.25, epochs=5, warmup_epochs=0.5, batch_size=64, seed=seed, data_path=args.data_path, evaluate_epochs=5,
        hold_out=0.8, test_images=5000,
    )  # fmt: skip
    otherwise: Any = nullcontext()
    if isinstance(steps, dict):
        config = config.changed(**steps)
    elif steps:
        layer = BNLayer if method == TWIN else EILayer
        respond = stepped(steps) if method == TWIN else normalized(steps, EILayer.respond)
        otherwise = patch.object(layer, "respond", respond)
    file = args.output / f"{name} {seed}.json".replace(", ", "-").replace(" ", "_")
    if file.exists():
        require_same(json.loads(file.read_text())["config"], config, file)
        return
    with tempfile.TemporaryDirectory() as folder, otherwise:
        trained = Run(Path(folder) / "run")
        accuracy = fit(config, trained.folder).accuracy
        epochs = [line for line in trained.metrics() if "train_loss" in line]
    curves = {key: [line[key] for line in epochs] for key in ("train_loss", "train_accuracy")}
    described = config.json_fields() | {"data_path": None}
    write_result(
        file, {**provenance(), "variant": name, "seed": seed, "accuracy": accuracy, **curves, "config": described}
    )


def table(folder: Path) -> str:
    """Held-out and training accuracy of all that has run, in order."""
    lines = ["| | held-out images, % | training images, last epoch, % | n |", "|---|---|---|---|"]
    found = [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
    for name in STEPS:
        if of_name := [result for result in found if result["variant"] == name]:
            held_out, trained = (
                ", ".join(f"{value:.1f}" for value in values)
                for values in ([r["accuracy"] for r in of_name], [r["train_accuracy"][-1] for r in of_name])
            )
            lines.append(f"| {name} | {held_out} | {trained} | {len(of_name)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-path", help="of CIFAR-10")
    parser.add_argument("--seeds", type=positive, default=1)
    parser.add_argument("--only", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--table", action="store_true", help="run nothing; tell of the results that are there")
    parser.add_argument("--output", type=Path, default=RESULTS / "gap", help="folder of results")
    args = parser.parse_args()
    if not args.table:
        for seed in range(args.seeds):
            for name in args.only:
                run(name, seed, args)
    print(table(args.output))


if __name__ == "__main__":
    run_script(main)
