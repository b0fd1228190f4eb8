"""Whether a network in NIR gives the same spikes in snnTorch: by layer, and its answers, against the network that was
written (divisors held), on test images.

    python benchmarks/nir_reader.py --output benchmarks/results/nir_reader.json

snnTorch's `Leaky`, as its own reader of NIR makes it, subtracts a threshold before it fires where a potential lies
above the threshold after a reset; `Subtracting` leaves that out, and is eq. (3).
"""

import argparse
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nir
import nirtorch
import snntorch
import torch
from torch import Tensor, nn

from eisnn.deploy import hold, write_nir
from eisnn.deploy.nir_graph import STEP
from eisnn.interop import load_trained
from eisnn.models.network import SpikingNetwork
from eisnn.provenance import provenance, write_result


class Subtracting(snntorch.Leaky):
    """The neuron of snnTorch that resets once for each spike, in the step of the spike."""

    def mem_reset(self, mem: Tensor) -> Tensor:
        return torch.zeros_like(mem)


class Neuron(nn.Module):
    """A node LIF, but for the reset that its metadata name as snnTorch's reader makes it; it keeps its spikes."""

    def __init__(self, node: Any, kind: type[snntorch.Leaky]) -> None:
        super().__init__()
        beta = float((1 - STEP / node.tau).flat[0])
        threshold = float((node.v_threshold / (node.r * STEP / node.tau)).flat[0])
        self.neuron = kind(beta, threshold, reset_mechanism=node.metadata["reset"], reset_delay=False)
        self.spikes: list[Tensor] = []

    def forward(self, current: Tensor) -> Tensor:
        spikes, _ = self.neuron(current)
        self.spikes.append(spikes)
        return spikes


def affine(node: Any) -> nn.Linear:
    layer = nn.Linear(*node.weight.shape[::-1])
    layer.load_state_dict({"weight": torch.from_numpy(node.weight), "bias": torch.from_numpy(node.bias)})
    return layer


@torch.no_grad()
def simulate(file: Path, x: Tensor, steps: int, kind: type[snntorch.Leaky]) -> tuple[list[Tensor], Tensor]:
    """Spikes of each layer `[T, B, ...]` and mean output of the graph in `file`, with neurons of this kind."""
    # NIR counts the axes that Flatten joins without the batch.
    nodes = {nir.LIF: lambda node: Neuron(node, kind), nir.Flatten: lambda node: nn.Flatten(1), nir.Affine: affine}
    net = nirtorch.nir_to_torch(nir.read(str(file)), nodes)
    outputs = []
    for _ in range(steps):
        out = net(x)
        outputs.append(out[0] if isinstance(out, tuple) else out)
    return [torch.stack(m.spikes) for m in net.modules() if isinstance(m, Neuron)], torch.stack(outputs).mean(0)


@torch.no_grad()
def ours(model: SpikingNetwork, x: Tensor) -> tuple[list[Tensor], Tensor]:
    """The same of `model`."""
    spikes: list[Tensor] = []
    hooks = [layer.register_forward_hook(lambda m, args, out: spikes.append(out)) for layer in model.layers]
    logits = model(x)
    for hook in hooks:
        hook.remove()
    return spikes, logits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    trained = load_trained("demo-plus")
    every = max(1, len(trained.dataset.test) // args.images)
    pixels = trained.test_pixels()[::every][: args.images]
    labels = trained.dataset.test.labels[::every][: args.images]
    images = pixels.float() / 255
    model: Any = hold(trained.model, trained.training_images(1000))
    expected, logits = ours(model, images)

    def right(answers: Tensor) -> float:
        return 100 * float((answers.argmax(1) == labels).float().mean())

    found: dict[str, Any] = {"held": {"accuracy": right(logits)}}
    with TemporaryDirectory() as folder:
        file = write_nir(model, tuple(images.shape[1:]), Path(folder) / "network.nir")
        for name, kind in {"Leaky": snntorch.Leaky, "Subtracting": Subtracting}.items():
            spikes, outputs = simulate(file, images, model.time_steps, kind)
            same = [100 * float((theirs == mine).float().mean()) for theirs, mine in zip(spikes, expected, strict=True)]
            answers = 100 * float((outputs.argmax(1) == logits.argmax(1)).float().mean())
            found[name] = {"same spikes, %": same, "same answers, %": answers, "accuracy": right(outputs)}
    print(found)
    if args.output:
        peers = {name: version(name) for name in ("nir", "nirtorch", "snntorch")}
        write_result(args.output, {**provenance(), "peers": peers, "images": len(images), "networks": found})


if __name__ == "__main__":
    main()
