"""What the weights of an exactly balanced network are after training, by layer: the totals with which neurons act.

Of each circuit: the total of a neuron's excitatory weights in units of the conserved total R (least and most), the
largest imbalance with inhibition in the same units, and the correlation of the pooled divisive current with the mean
activity of the receptive field, on test images.

    eisnn train cifar10-vgg8-plus --data-path CIFAR10 --width 0.25 --batch-size 64 --run-dir RUN
    python experiments/acting_weights.py RUN --data-path CIFAR10
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from eisnn.data import Loader
from eisnn.interop import load_trained
from eisnn.nn import EILayer
from eisnn.provenance import provenance, write_result
from eisnn.train import Run

IMAGES = 64


def measure(layer: EILayer, x: Tensor) -> dict[str, float]:
    """Of one pooled circuit with its input `[T, B, ...]`."""
    ee, ie, ei, divisive = layer.synapses()[:4]
    excitation = ee.flatten(1).sum(1) / layer.weights.total
    inhibition = (ei @ ie.flatten(1)).sum(1) / layer.weights.total
    pooled = (divisive[:1] @ ie.flatten(1)).view(1, *ie.shape[1:])
    patch = torch.full_like(pooled, 1 / pooled.numel())
    currents = torch.stack([layer.connection.feedforward(x, kernel).flatten() for kernel in (pooled, patch)])
    return {
        "least_total": float(excitation.min()),
        "most_total": float(excitation.max()),
        "imbalance": float((excitation - inhibition).abs().max()),
        "correlation": float(torch.corrcoef(currents)[0, 1]),
    }


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="of a recipe -plus")
    parser.add_argument("--data-path")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "acting_weights.json")
    args = parser.parse_args()
    trained = load_trained(args.run, data_path=args.data_path)
    images = next(Loader(trained.dataset.test, IMAGES, size=trained.config.data.image_size).epoch()).images
    rows: dict[str, dict[str, float]] = {}
    for name, layer in trained.model.named_modules():
        if isinstance(layer, EILayer):
            layer.register_forward_pre_hook(lambda m, given, name=name: rows.update({name: measure(m, given[0])}))
    trained.model.eval()(images)
    described = trained.config.json_fields() | {"data_path": None}
    epochs = [line["epoch"] for line in Run(args.run).metrics()]
    write_result(args.output, {**provenance(), "epochs": max(epochs), "layers": rows, "config": described})
    for name, row in rows.items():
        print(name, *(f"{key} {value:.3g}" for key, value in row.items()))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
