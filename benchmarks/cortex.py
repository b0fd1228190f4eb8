"""A recurrent cortical layer beside the recurrent containers of SpikingJelly and snnTorch, and what each option costs.

512 inputs that fire at random at 20 Hz onto 512 neurons, T = 100 steps of 2 ms, batch 32, fp32; forward and backward
pass. Processor time of this process (`time.process_time`), medians of alternating steps in one run. All project 512 ->
512 from below and 512 -> 512 within the layer; ours has 128 PV cells besides.

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
from eisnn.cortex import CorticalLinear, CorticalOptions
from eisnn.process import keep_memory
from eisnn.provenance import provenance, write_result

N, T, B, DT = 512, 100, 32, 2.0
PLAIN: dict[str, Any] = {"dt": DT, "delay": 2.0, "recurrence": 0.2}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no recurrence": {"recurrence": 0.0},
    "delay of 3 steps": {"delay": 6.0},
    "synaptic filters": {"tau_ampa": 3.0, "tau_gaba": 6.0},
    "PV-PV": {"pv_pv": 0.5},
    "SST": {"sst": 0.1},
    "SST and VIP": {"sst": 0.1, "vip": 0.2},
    "spiking interneurons": {"spiking": True, "tau_gaba": 6.0},
    "windows of 25 steps": {"window": 25},
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


def input_spikes(dt: float) -> Tensor:
    return (torch.rand(T, B, N, generator=torch.Generator().manual_seed(0)) < 20 * dt / 1000).float()


def cortical(options: dict[str, Any], x: Tensor) -> CorticalLinear:
    layer = CorticalLinear(N, N, options=CorticalOptions(**options))
    eisnn.ei_init_(layer, x, generator=torch.Generator().manual_seed(1))
    return layer


def subjects(names: list[str]) -> dict[str, tuple[nn.Module, Tensor]]:
    """Networks and their inputs, by name."""
    made: dict[str, tuple[nn.Module, Tensor]] = {}
    for name in names:
        options = PLAIN | OPTIONS[name]
        x = input_spikes(options["dt"])
        made[name] = cortical(options, x), x
    x = input_spikes(DT)
    return made | {"SpikingJelly": (SpikingJelly(), x), "snnTorch": (SnnTorch(), x)}


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
    made = subjects(args.only)
    seen: dict[str, list[tuple[float, float, float]]] = {name: [] for name in made}
    for repeat in range(args.repeats + 1):
        for name, (module, x) in made.items():
            result = step(module, x)
            if repeat:
                seen[name].append(result)
    rows = {}
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
            f"{name:21} {1000 * rows[name]['step_seconds']:6.0f} ms, forward {1000 * forward:5.0f}, kept "
            f"{rows[name]['saved_bytes'] / 2**20:4.0f} MiB, {rate:.3f} spikes a step"
        )
    if args.output:
        write_result(args.output, {**provenance(), "n": args.repeats, "networks": rows})


if __name__ == "__main__":
    main()
