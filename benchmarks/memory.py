"""Memory of a training step on a CPU: what it needs at its peak, and what autograd keeps for the backward pass.

Each network in a process of its own, which has given back what building and initialising the network needed.

    python benchmarks/memory.py benchmarks/results/cpu_memory.json
"""

import argparse
import json
import statistics
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from eisnn.bench import Subject, peak_memory
from eisnn.provenance import provenance, write_result

MIB = 1 << 20


def measure(network: str, model: str, batch_size: int, repeats: int) -> dict[str, Any]:
    """Bytes of one network: the median peak of `repeats` processes, and what is kept."""
    arguments = {
        "network": network, "memory_format": "channels_last", "model": model, "batch_size": batch_size,
        "time_steps": 4, "precision": "32", "device": "cpu",
    }  # fmt: skip
    peaks = []
    for _ in range(repeats):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            peaks.append(pool.submit(peak_memory, arguments, 1).result())
    return {"peak_bytes": statistics.median(peaks), "peaks": peaks, "saved_bytes": Subject(**arguments).saved_bytes()}


def table(result: dict[str, Any]) -> str:
    """As Markdown, with ratios to the batch-norm twin."""
    lines = [
        "| network | batch | peak, MiB: E-I, plus, BN | ratios | kept, MiB: E-I, plus, BN | ratios |",
        "|---" * 6 + "|",
    ]
    for name, rows in result["networks"].items():
        model, batch = name.split(", ")
        cells = []
        for what in ("peak_bytes", "saved_bytes"):
            ei, plus, bn = (rows[n][what] / MIB for n in ("ei", "plus", "bn"))
            cells += [f"{ei:.0f}, {plus:.0f}, {bn:.0f}", f"{ei / bn:.2f}, {plus / bn:.2f}"]
        lines.append(f"| {model} | {batch} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--models", nargs="+", default=["vgg8", "vgg16", "resnet18"])
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[32, 16])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--table", action="store_true", help="only print what is there")
    args = parser.parse_args()
    if not args.table:
        networks = {
            f"{model}, {batch}": {n: measure(n, model, batch, args.repeats) for n in ("ei", "plus", "bn", "stock")}
            for model in args.models
            for batch in args.batch_sizes
        }
        write_result(args.output, {**provenance(), "repeats": args.repeats, "networks": networks})
    print(table(json.loads(args.output.read_text())))


if __name__ == "__main__":
    main()
