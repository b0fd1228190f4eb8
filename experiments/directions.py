"""Why exact balance learns faster: where the gradients of an E-I network point, and whether its balance holds.

Trains `demo` as the recipe says, and `demo-plus` by SGD as well, balanced over the whole field and with one surrogate
width, so that the two differ in what is conserved; and after each epoch measures on one batch, by layer: the part of
`|dL/dW|^2` that is common to all synapses of a neuron (for `W_EE` over its inputs, for `W_EI` over its I neurons: there
the direction that breaks the balance), the imbalance of the neurons' total weights, firing rate and std(I_E).

    python experiments/directions.py --epochs 25
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from matplotlib.figure import Figure
from study import positive, run_script
from torch import Tensor, nn

from eisnn.analysis import record
from eisnn.analysis.figures import COLORS
from eisnn.data import Batch
from eisnn.data.config import load_data, train_loader
from eisnn.functional import conserved_weights
from eisnn.models import SpikingNetwork
from eisnn.nn import PLUS, EILayer
from eisnn.provenance import provenance, write_result
from eisnn.train import fit, initial_model, loop, recipe
from eisnn.train.evaluation import evaluate_loader
from eisnn.train.loss import cross_entropy

HERE = Path(__file__).parent
PANELS = {
    "common_ee": "part of |dW_EE|² along the mean input",
    "common_ei": "part of |dW_EI|² that breaks the balance",
    "imbalance": "imbalance of total weights",
    "std": "std(I_E)",
}


def common_part(grad: Tensor) -> float:
    """Part of the squared gradient along the mean over each row: `[n, ...]` -> [0, 1]."""
    rows = grad.flatten(1)
    return float(rows.mean(1).square().sum() * rows.shape[1] / rows.square().sum())


@torch.no_grad()
def imbalance(layer: EILayer) -> float:
    """Mean over E neurons of `|excitation - inhibition| / excitation`, of total effective weights."""
    weights = layer.weight_ee, layer.weight_ie, layer.weight_ei
    if layer.options.conserved:
        weights = conserved_weights(*weights, layer.weights.total)
    ee, ie, ei = weights
    excitation = ee.flatten(1).sum(1)
    return float(((excitation - (ei @ ie.flatten(1)).sum(1)).abs() / excitation).mean())


def measure(model: SpikingNetwork, batch: Batch) -> list[dict[str, float]]:
    """One row for each hidden layer."""
    layers = [m for m in model.modules() if isinstance(m, EILayer)]
    rates: list[float] = []
    hooks = [m.register_forward_hook(lambda *args: rates.append(float(args[-1].detach().mean()))) for m in layers]
    model.zero_grad()
    with record(model, what="I_E") as recorded:
        cross_entropy(model(batch.images), batch.labels).backward()
    for hook in hooks:
        hook.remove()
    rows = [
        {
            "common_ee": common_part(_grad(layer.weight_ee)),
            "common_ei": common_part(_grad(layer.weight_ei)),
            "imbalance": imbalance(layer),
            "rate": rate,
            "std": float(currents["I_E"].std()),
        }
        for layer, rate, currents in zip(layers, rates, recorded.values(), strict=True)
    ]
    model.zero_grad()
    return rows


def _grad(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def follow(name: str, epochs: int, seed: int) -> list[list[dict[str, float]]]:
    """Train recipe `name`; the rows of all layers at the start and after each epoch."""
    config = recipe(name)
    warmup = min(config.optimization.warmup_epochs, epochs)
    config = config.changed(epochs=epochs, seed=seed, warmup_epochs=warmup)
    if name == "demo-plus":
        conserved = replace(PLUS, tapwise=False, even_gradients=False)
        config = config.changed(optimizer="sgd", lr=0.05, circuit_options=conserved)
    dataset = load_data(config.data, config.network.time_steps)
    probe = next(train_loader(config.data, dataset, config.seed).epoch(0))
    history = [measure(initial_model(config), probe)]

    def look(model: Any, *args: Any) -> Any:
        """Measure before the evaluation that follows each epoch."""
        history.append(measure(model.module.train(), probe))
        return evaluate_loader(model, *args)

    with tempfile.TemporaryDirectory() as folder, patch.object(loop, "evaluate_loader", look):
        fit(config, Path(folder) / "run")
    return history


def draw(file: Path, histories: dict[str, list[list[dict[str, float]]]]) -> None:
    figure = Figure(figsize=(9, 2.6 * len(PANELS)), layout="constrained")
    axes = figure.subplots(len(PANELS), len(histories), sharex=True, sharey="row", squeeze=False)
    for column, (name, history) in enumerate(histories.items()):
        for row, (key, title) in enumerate(PANELS.items()):
            panel = axes[row][column]
            for layer, color in zip(range(len(history[0])), COLORS, strict=False):
                panel.plot([rows[layer][key] for rows in history], color=color, label=f"layer {layer + 1}")
            panel.set_title(f"{name}: {title}", fontsize="small")
            panel.spines[["top", "right"]].set_visible(False)
        axes[-1][column].set_xlabel("epoch")
    axes[0][0].legend(frameon=False, fontsize="x-small")
    figure.savefig(file, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=positive, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "directions.json")
    parser.add_argument("--picture", type=Path, default=HERE.parent / "docs" / "science" / "directions.png")
    args = parser.parse_args()
    histories = {name: follow(name, args.epochs, args.seed) for name in ("demo", "demo-plus")}
    write_result(args.output, {**provenance(), "seed": args.seed, "histories": histories})
    args.picture.parent.mkdir(parents=True, exist_ok=True)
    draw(args.picture, histories)


if __name__ == "__main__":
    run_script(main)
