"""The yardstick: an E-I network as the paper writes it, beside ours.

Five products for each circuit, no fused operation, plain autograd through every time step, and maps that are permuted
between time-major and batch-major order at each layer, as programs do that keep the batch first.

    python benchmarks/naive.py --model vgg8 --batch-size 32
"""

import argparse
import statistics
import time
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from eisnn import functional as EF
from eisnn.bench import FORMATS, Subject
from eisnn.nn import EILayer, EIReadout
from eisnn.process import keep_memory
from eisnn.provenance import provenance, write_result


def naive_layer(self: EILayer, x: Tensor, time_steps: int | None = None) -> Tensor:
    """`[B, T, ...]` in memory, each step a copy of a static input; eqs. (9)-(15) one after the other."""
    x = x.expand(time_steps or x.shape[0], *x.shape[1:])
    x = x.transpose(0, 1).contiguous().transpose(0, 1).contiguous()  # batch-major, and back to time-major
    connection = EF.Conv(**vars(self.connection)) if isinstance(self.connection, EF.Conv) else self.connection
    i_ee, i_sub, i_div = EF.ei_currents(x, self.weight_ee, self.weight_ie, self.weight_ei, self.gain_i, connection)
    i_e = EF.integrate(i_ee - i_sub, i_div, self.gain_e, self.bias)
    return EF.lif(i_e, self.neuron.constants)[0]


def naive_readout(self: EIReadout, x: Tensor, time_steps: int | None = None) -> Tensor:
    return EF.ei_readout(x, self.weight_ee, self.weight_ie, self.weight_ei, self.connection)


def as_written(model: nn.Module) -> nn.Module:
    """`model` itself, its circuits in the naive form from now on."""
    for module in model.modules():
        if isinstance(module, EILayer):
            module.forward = MethodType(naive_layer, module)  # type: ignore[method-assign]
        elif isinstance(module, EIReadout):
            module.forward = MethodType(naive_readout, module)  # type: ignore[method-assign]
    return model


def naive(**common: Any) -> Subject:
    subject = Subject(network="ei", **common)
    as_written(subject.model)
    return subject


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vgg8")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    keep_memory()
    common = {
        "model": args.model,
        "batch_size": args.batch_size,
        "device": args.device,
        "time_steps": 4,
        "precision": "32",
    }
    subjects = {
        (name, layout): make(memory_format=layout, **common)
        for name, make in (("naive", naive), ("ours", lambda **k: Subject(network="ei", **k)))
        for layout in FORMATS
    }
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in subjects}
    for repeat in range(args.repeats + 1):
        for key, subject in subjects.items():
            start = time.perf_counter()
            subject.step()
            if repeat:
                seconds[key].append(time.perf_counter() - start)
    rows = {}
    for name in ("naive", "ours"):
        layout = min(FORMATS, key=lambda layout: statistics.median(seconds[name, layout]))
        rows[name] = {
            "memory_format": layout,
            "step_seconds": statistics.median(seconds[name, layout]),
            "saved_bytes": subjects[name, layout].saved_bytes(),
        }
    ratio = rows["naive"]["step_seconds"] / rows["ours"]["step_seconds"]
    if args.output:
        write_result(
            args.output, {**provenance(), **common, "n": args.repeats, "networks": rows, "naive_over_ours": ratio}
        )
    for name, row in rows.items():
        kept = row["saved_bytes"] / 2**20
        print(f"{name:6} {1000 * row['step_seconds']:7.0f} ms  {kept:6.0f} MiB kept  {row['memory_format']}")
    print(f"naive / ours: {ratio:.2f}")


if __name__ == "__main__":
    main()
