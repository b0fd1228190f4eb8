r"""What float32 and bf16 autocast change in an E-I network, folded and in the naive form, against float64.

The naive form subtracts two large and nearly equal currents, the folded one a kernel from a kernel, in float32. Each
layer is given the float64 network's input (`alone`: what this layer does) and the input that its own network makes of
the images (`in_network`: errors add up).

    eisnn train cifar10-vgg8 --dataset cifar10-sample --width 0.5 --epochs 2 --warmup-epochs 0.5 --batch-size 32 \
        --lr 0.004 --run-dir runs/precision
    python benchmarks/precision.py runs/precision --output benchmarks/results/precision_vgg8.json

The network is that of a run, before and after its training, the images those of its test split.
"""

import argparse
import copy
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from naive import as_written
from torch import Tensor, nn

from eisnn import functional as EF
from eisnn import ops
from eisnn.data import Loader
from eisnn.interop import load_trained
from eisnn.nn import EILayer
from eisnn.provenance import provenance, write_result
from eisnn.train import initial_model

FORMS, PRECISIONS = ("folded", "naive"), ("32", "bf16")
IMAGES_AT_ONCE = 50


class Sums:
    """Means of tensors by name, over all batches."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = defaultdict(float)
        self.count: dict[str, int] = defaultdict(int)

    def add(self, name: str, values: Tensor) -> None:
        self.sums[name] += float(values.double().sum())
        self.count[name] += values.numel()

    def __getitem__(self, name: str) -> float:
        return self.sums[name] / self.count[name]

    def deviation(self, name: str) -> float:
        """From the means of `name` and of `name^2`."""
        return (self[f"{name}^2"] - self[name] ** 2) ** 0.5


def balanced_current(layer: EILayer, form: str, x: Tensor) -> Tensor:
    """`I_EE - I_sub`, as a form computes it."""
    weights = layer.weight_ee, layer.weight_ie, layer.weight_ei, layer.gain_i, layer.connection
    if form == "folded":
        return ops.folded_currents(x, *weights).balanced
    i_ee, i_sub, _ = EF.ei_currents(x, *weights)
    return i_ee - i_sub


def watch(model: nn.Module, images: Tensor) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
    """Logits, and input and spikes of every hidden circuit by name."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    circuits = {name: module for name, module in model.named_modules() if isinstance(module, EILayer)}
    handles = [
        circuit.register_forward_hook(lambda _, args, spikes, name=name: seen.update({name: (args[0], spikes)}))
        for name, circuit in circuits.items()
    ]
    logits = model(images)
    for handle in handles:
        handle.remove()
    return logits, seen


@torch.no_grad()
def compare(model: nn.Module, loader: Loader, time_steps: int) -> dict[str, Any]:
    """All numbers of one network, in float32, on the images of `loader`."""
    forms = {"folded": model.eval(), "naive": as_written(copy.deepcopy(model).eval())}
    reference = copy.deepcopy(forms["naive"]).double()
    circuits = {form: dict(own.named_modules()) for form, own in forms.items()}
    layers: dict[str, Sums] = defaultdict(Sums)
    whole: dict[str, Sums] = defaultdict(Sums)
    for batch in loader.epoch():
        expected, truth = watch(reference, batch.images.double())
        whole["64"].add("correct", expected.argmax(1) == batch.labels)
        whole["64"].add("logits", expected)
        whole["64"].add("logits^2", expected**2)
        currents = {}
        for name, (x, spikes) in truth.items():
            layer = reference.get_submodule(name)
            currents[name] = balanced_current(layer, "naive", x)
            i_ee = layer.connection.feedforward(x, layer.weight_ee)
            for key, value in [("rate", spikes), ("N", currents[name]), ("N^2", currents[name] ** 2), ("I_EE", i_ee)]:
                layers[name].add(key, value)
        for form in FORMS:
            for precision in PRECISIONS:
                key = f"{form} {precision}"
                with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                    logits, seen = watch(forms[form], batch.images)
                    whole[key].add("correct", logits.argmax(1) == batch.labels)
                    whole[key].add("changed", logits.argmax(1) != expected.argmax(1))
                    whole[key].add("error^2", (logits - expected) ** 2)
                    for name, (x, spikes) in truth.items():
                        layer = circuits[form][name]
                        error = balanced_current(layer, form, x.float()) - currents[name]
                        layers[name].add(f"{key} error^2", error**2)
                        layers[name].add(f"{key} alone", layer(x.float(), time_steps) != spikes)
                        layers[name].add(f"{key} in_network", seen[name][1] != spikes)
    keys = [f"{form} {precision}" for form in FORMS for precision in PRECISIONS]
    return {
        "accuracy": {key: 100 * sums["correct"] for key, sums in whole.items()},
        "predictions_changed": {key: whole[key]["changed"] for key in keys},
        "logit_error_over_std": {key: whole[key]["error^2"] ** 0.5 / whole["64"].deviation("logits") for key in keys},
        "layers": {
            name: {
                "firing_rate": sums["rate"],
                "excitation_over_std": sums["I_EE"] / sums.deviation("N"),
                "current_error_over_std": {key: sums[f"{key} error^2"] ** 0.5 / sums.deviation("N") for key in keys},
                "spikes_changed_alone": {key: sums[f"{key} alone"] for key in keys},
                "spikes_changed_in_network": {key: sums[f"{key} in_network"] for key in keys},
            }
            for name, sums in layers.items()
        },
    }


def show(name: str, result: dict[str, Any]) -> None:
    """The layers as a Markdown table, each cell for the folded form and the naive one; then the output."""
    columns = [
        (f"{title}, {precision}", quantity, precision)
        for title, quantity in [
            ("error of N / std N", "current_error_over_std"),
            ("spikes changed alone, %", "spikes_changed_alone"),
            ("in the network, %", "spikes_changed_in_network"),
        ]
        for precision in PRECISIONS
    ]
    head = [name, "firing rate", "I_EE / std N", *(title for title, *_ in columns)]
    print(f"\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for layer, numbers in result["layers"].items():
        cells = [layer, f"{numbers['firing_rate']:.2f}", f"{numbers['excitation_over_std']:.1f}"]
        for title, quantity, precision in columns:
            values = [numbers[quantity][f"{form} {precision}"] * (100 if "%" in title else 1) for form in FORMS]
            cells.append(", ".join(f"{value:.2g}" for value in values))
        print(f"| {' | '.join(cells)} |")
    for quantity in ("logit_error_over_std", "predictions_changed", "accuracy"):
        print(f"{quantity}: {', '.join(f'{key} {value:.3g}' for key, value in result[quantity].items())}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run of an E-I network on the CPU")
    parser.add_argument("--images", type=int, default=500, help="of the test split")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    trained = load_trained(args.run)
    test = trained.dataset.test
    loader = Loader(test[:: len(test) // args.images], IMAGES_AT_ONCE)  # they are sorted by class
    results = {}
    for name, network in {"initialised": initial_model(trained.config), "trained": trained.model}.items():
        results[name] = compare(network, loader, trained.config.network.time_steps)
        show(name, results[name])
    if args.output:
        config = trained.config.json_fields()
        write_result(args.output, {**provenance(), "images": len(loader.images), "config": config, **results})


if __name__ == "__main__":
    main()
