"""What each option of a cortical layer costs, beside the paper's circuit; and beside the recurrent containers of
SpikingJelly and snnTorch.

Dense layers: 512 inputs that fire at random at 20 Hz onto 512 neurons, T = 100 steps of 2 ms, batch 32. Maps: 32
channels onto 32 by 3x3 kernels, on 16x16 positions, T = 20, batch 8. fp32, forward and backward pass, processor time of
this process (`time.process_time`), medians of alternating steps in one run. A peer has no interneurons; ours has a PV
cell for each four neurons, and half as many SST and VIP cells.

    python benchmarks/cortex.py --output benchmarks/results/cortex.json

SpikingJelly's `LinearRecurrentContainer` has both projections in one matrix. snnTorch's `RLeaky` follows a `Linear`.
"""

import argparse
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import eisnn
from eisnn.bench import saved_bytes
from eisnn.cortex import CorticalConv2d, CorticalLinear, CorticalOptions
from eisnn.process import keep_memory
from eisnn.provenance import provenance, write_result

N, T, B, DT = 512, 100, 32, 2.0
CHANNELS, SIZE, MAP_STEPS, MAP_BATCH = 32, 16, 20, 8
PAPER = "the paper's circuit"
PLAIN: dict[str, Any] = {"dt": DT, "delay": 2.0, "recurrence": 0.1}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no recurrence": {"recurrence": 0.0},
    "delay of 3 steps": {"delay": 6.0},
    "synaptic filters": {"tau_ampa": 3.0, "tau_gaba": 6.0},
    "PV-PV": {"pv_pv": 0.5},
    "SST": {"sst": 0.1},
    "SST and VIP": {"sst": 0.1, "vip": 0.2},
    "spiking interneurons": {"spiking": True, "tau_gaba": 6.0},
    "a window of a quarter of the steps": {"window": 25},
    "steps of 10 ms": {"dt": 10.0, "delay": 10.0},
}


class SpikingJelly(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        from spikingjelly.activation_based import functional, layer, neuron, surrogate

        cell = neuron.LIFNode(tau=20 / DT, decay_input=False, surrogate_function=surrogate.Sigmoid(), detach_reset=True)
        self.layer = layer.LinearRecurrentContainer(cell, in_features=N, out_features=N, step_mode="m")
        self.reset = functional.reset_net

    def forward(self, x: Tensor) -> Tensor:
        self.reset(self.layer)
        return self.layer(x)


class SnnTorch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        import snntorch

        self.project = nn.Linear(N, N)
        self.cell = snntorch.RLeaky(beta=1 - DT / 20, linear_features=N)

    def forward(self, x: Tensor) -> Tensor:
        spikes, v = self.cell.init_rleaky()
        out = []
        for current in self.project(x):
            spikes, v = self.cell(current, spikes, v)
            out.append(spikes)
        return torch.stack(out)


def cortical(options: dict[str, Any] | None, maps: bool) -> tuple[nn.Module, Tensor]:
    """A layer and its input; of the paper's circuit without options."""
    dt = (options or PLAIN)["dt"]
    shape = (MAP_STEPS, MAP_BATCH, CHANNELS, SIZE, SIZE) if maps else (T, B, N)
    x = (torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 20 * dt / 1000).float()
    layer: nn.Module
    if options is None:
        neuron = eisnn.LIF(20 / dt)
        layer = (
            eisnn.EIConv2d(CHANNELS, CHANNELS, 3, padding=1, neuron=neuron)
            if maps
            else eisnn.EILinear(N, N, neuron=neuron)
        )
    else:
        given = CorticalOptions(**options | {"window": options.get("window", 0) and len(x) // 4})
        layer = (
            CorticalConv2d(CHANNELS, CHANNELS, 3, padding=1, options=given)
            if maps
            else CorticalLinear(N, N, options=given)
        )
    if maps:
        layer = layer.to(memory_format=torch.channels_last)
        x = x.movedim(2, -1).contiguous().movedim(-1, 2)
    eisnn.ei_init_(layer, x, generator=torch.Generator().manual_seed(1))
    return layer, x


def subjects(names: list[str], maps: bool) -> dict[str, tuple[nn.Module, Tensor]]:
    """Layers and their inputs, by name."""
    made = {PAPER: cortical(None, maps)} | {name: cortical(PLAIN | OPTIONS[name], maps) for name in names}
    if not maps:
        x = made[PAPER][1]
        made |= {"SpikingJelly": (SpikingJelly(), x), "snnTorch": (SnnTorch(), x)}
    return made


def step(module: nn.Module, x: Tensor) -> tuple[float, float, float]:
    """CPU seconds of the forward and of the backward pass, and the rate of the spikes."""
    module.zero_grad(set_to_none=True)
    start = time.process_time()
    spikes = module(x)
    forward = time.process_time()
    spikes.square().sum().backward()
    return forward - start, time.process_time() - forward, float(spikes.detach().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(OPTIONS), choices=list(OPTIONS), metavar="OPTION")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    keep_memory()
    results = {kind: measured(subjects(args.only, kind == "maps"), args.repeats) for kind in ("networks", "maps")}
    if args.output:
        write_result(args.output, {**provenance(), "n": args.repeats, **results})


def measured(made: dict[str, tuple[nn.Module, Tensor]], repeats: int) -> dict[str, dict[str, float]]:
    """Medians over alternating steps, by name."""
    seen: dict[str, list[tuple[float, float, float]]] = {name: [] for name in made}
    for repeat in range(repeats + 1):
        for name, (module, x) in made.items():
            result = step(module, x)
            if repeat:
                seen[name].append(result)
    rows: dict[str, dict[str, float]] = {}
    for name, (module, x) in made.items():
        forward, backward, rate = (statistics.median(values) for values in zip(*seen[name], strict=True))
        rows[name] = {
            "step_seconds": statistics.median(f + b for f, b, _ in seen[name]),
            "forward_seconds": forward,
            "backward_seconds": backward,
            "spikes_per_step": rate,
            "saved_bytes": saved_bytes(module, partial(module, x)),
        }
        print(
            f"{name:34} {1000 * rows[name]['step_seconds']:6.0f} ms, forward {1000 * forward:5.0f}, kept "
            f"{rows[name]['saved_bytes'] / 2**20:4.0f} MiB, {rate:.3f} spikes a step"
        )
    return rows


if __name__ == "__main__":
    main()
