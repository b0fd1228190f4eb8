"""An attention layer (queries, keys and values; attention; the layer after it) beside SpikingJelly's, in one run.

Forward and backward pass of a training step in processor time, the layers in turn; the twin with the fixed scale has
the operations of SpikingJelly's.

python benchmarks/attention.py --output benchmarks/results/attention.json
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eisnn.init import ei_init_
from eisnn.methods import make_layers
from eisnn.nn import LIF, PLUS, SelfAttention
from eisnn.process import keep_memory
from eisnn.provenance import provenance, write_result

STEPS = 4
OURS: dict[str, tuple[str, dict[str, Any], str]] = {
    "paper, fixed": ("ei", {}, "fixed"),
    "plus, divisive": ("ei", {"options": PLUS}, "divisive"),
    "plus, fixed": ("ei", {"options": PLUS}, "fixed"),
    "batch norm, fixed": ("bn", {}, "fixed"),
}


class AttentionLayer(nn.Module):
    """The first half of a block of a transformer."""

    def __init__(self, circuit: str, options: dict[str, Any], kind: Any, channels: int, heads: int) -> None:
        super().__init__()
        layers = make_layers(circuit, LIF(), STEPS, **options)
        self.projection = layers.conv(channels, 3 * channels, 1)
        self.attention = SelfAttention(channels, heads, kind)
        self.out = layers.conv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.attention(self.projection(x)))
        return out


def spikingjelly(channels: int, heads: int, side: int) -> Callable[[Tensor], Tensor]:
    """Theirs, on tokens `[T, B, C, N]`."""
    from spikingjelly.activation_based.functional import reset_net
    from spikingjelly.activation_based.layer.attention import SpikingSelfAttention

    theirs = SpikingSelfAttention(channels, heads)

    def layer(x: Tensor) -> Tensor:
        reset_net(theirs)
        out: Tensor = theirs(x.flatten(3)).unflatten(3, (side, side))
        return out

    return layer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, default=384)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--side", type=int, default=8, help="of the map of tokens")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    keep_memory()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    rates = torch.full((STEPS, args.images, args.channels, args.side, args.side), 0.2)
    contiguous = torch.bernoulli(rates)
    inside = torch.empty_like(rates.movedim(2, -1).contiguous()).movedim(-1, 2).copy_(contiguous)  # channels last
    layers: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
        "spikingjelly": (spikingjelly(args.channels, args.heads, args.side), contiguous)
    }
    for name, (circuit, options, kind) in OURS.items():
        layer = AttentionLayer(circuit, options, kind, args.channels, args.heads)
        layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        ei_init_(layer, inside, generator=torch.Generator().manual_seed(0))
        layers[name] = layer, inside
    seconds: dict[str, list[float]] = {name: [] for name in layers}
    for repeat in range(args.repeats + 2):
        for name, (layer, x) in layers.items():
            x = x.detach().requires_grad_()
            start = time.process_time()
            layer(x).sum().backward()
            if repeat >= 2:
                seconds[name].append(time.process_time() - start)
    rows = {
        name: {"fastest_ms": 1e3 * min(found), "median_ms": 1e3 * statistics.median(found), "n": len(found)}
        for name, found in seconds.items()
    }
    for name, row in rows.items():
        print(f"{name}: {row['fastest_ms']:.0f} ms, median {row['median_ms']:.0f} ms")
    if args.output:
        settings = {key: value for key, value in vars(args).items() if key != "output"}
        write_result(args.output, {**provenance(), **settings, "rows": rows})


if __name__ == "__main__":
    main()
