"""Operations that `eisnn.deploy.cost` and NeuroBench count in the same trained networks, on the same images, in one
run.

    pip install --no-deps neurobench
    python benchmarks/operation_counts.py --output benchmarks/results/operation_counts.json

NeuroBench counts by hooks on torch's own layers. It sees the convolutions of the batch-norm twin and of a network whose
divisors are held, and nothing of an E-I circuit, whose currents come from one stacked convolution that is a function.
Readouts are left out: those of circuits are no layers of torch either.
"""

import argparse
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from neurobench.benchmarks import Benchmark
from neurobench.metrics.static import ConnectionSparsity, Footprint
from neurobench.metrics.workload import SynapticOperations
from neurobench.models import TorchModel
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from eisnn.deploy import cost, hold
from eisnn.interop import load_trained
from eisnn.nn import fold
from eisnn.provenance import provenance, write_result


class Convolutions(TorchModel):
    """A network of whose layers NeuroBench sees the convolutions."""

    def connection_layers(self) -> list[nn.Module]:
        return [layer for layer in super().connection_layers() if isinstance(layer, nn.Conv2d)]


def theirs(model: nn.Module, images: Tensor) -> dict[str, Any]:
    """NeuroBench's own numbers."""
    loader = DataLoader(TensorDataset(images, torch.zeros(len(images))), len(images))
    measures = [[Footprint, ConnectionSparsity], [SynapticOperations]]
    return dict(Benchmark(Convolutions(model), loader, [], [], measures).run(quiet=True))


def ours(model: nn.Module, images: Tensor) -> dict[str, Any]:
    """Totals, and of the hidden layers dense and effective operations by pathway."""
    counted = cost(model, images)
    pathways: dict[str, dict[str, float]] = {}
    for layer in counted.layers:
        for p in layer.pathways if layer.neurons else ():
            of = pathways.setdefault(p.pathway, {"Dense": 0.0, "Effective": 0.0})
            of["Dense"] += p.dense
            of["Effective"] += p.effective
    return {**counted.neurobench(), "hidden": pathways}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    opened = {name: load_trained(name) for name in ("demo-bn", "demo-plus")}
    images = opened["demo-plus"].training_images(args.images)
    plus = opened["demo-plus"].model.eval()
    networks = {
        "demo-bn, folded": fold(opened["demo-bn"].model),
        "demo-plus, divisors held": hold(plus, images),
        "demo-plus, folded": fold(plus),
        "demo-plus, as written": plus,
    }
    found = {name: {"eisnn": ours(m, images), "neurobench": theirs(m, images)} for name, m in networks.items()}
    for name, counts in found.items():
        print(f"{name}: {counts['eisnn']['hidden']}, NeuroBench {counts['neurobench']['SynapticOperations']}")
    if args.output:
        peer = {"neurobench": version("neurobench")}
        write_result(args.output, {**provenance(), "peers": peer, "images": args.images, "networks": found})


if __name__ == "__main__":
    main()
