"""What else might make an E-I network faster on a CPU: bf16 autocast and `torch.compile`.

CPU time on one thread, medians of alternating calls; float32 as it is comes first in each group.

    python benchmarks/variants.py --output benchmarks/results/cpu_variants_vgg8.json
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch._inductor.config
from torch import Tensor

from eisnn.bench import Subject
from eisnn.nn import fold
from eisnn.provenance import provenance, write_result


def milliseconds(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """CPU time of each call, after two that warm up."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(repeats + 2):
        for name, call in calls.items():
            start = time.process_time()
            call()
            if repeat > 1:
                spent[name].append(1000 * (time.process_time() - start))
    return {name: statistics.median(values) for name, values in spent.items()}


def measure(model: str, batch_size: int, repeats: int) -> dict[str, Any]:
    """CPU time of a training step and of inference, each in its variants; and how far the logits of random images are
    from those in float32, over their standard deviation."""
    torch._dynamo.reset()
    common: dict[str, Any] = {
        "network": "ei",
        "memory_format": "channels_last",
        "model": model,
        "batch_size": batch_size,
        "time_steps": 4,
        "device": "cpu",
    }
    subjects = {precision: Subject(precision=precision, **common) for precision in ("32", "bf16")}
    steps: dict[str, Callable[[], object]] = {precision: subject.step for precision, subject in subjects.items()}
    found = {"training step": milliseconds(steps, repeats)}

    subject = Subject(precision="32", **common)
    folded = fold(subject.model.eval())
    networks = {
        "32": folded,
        "bf16": folded,
        "compiled": torch.compile(copy.deepcopy(folded)),
    }

    def infer(name: str) -> Tensor:
        frozen = torch._inductor.config.patch(freezing=True)  # compiled: weights in the order that oneDNN likes best
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=name == "bf16"), frozen:
            return networks[name](subject.images)

    expected = infer("32")
    errors = {name: float((infer(name) - expected).std() / expected.std()) for name in networks}
    found["inference"] = milliseconds({name: lambda name=name: infer(name) for name in networks}, repeats)
    return {"cpu_milliseconds": found, "logit_error_over_std": errors}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vgg8")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[16, 32])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = {size: measure(args.model, size, args.repeats) for size in args.batch_sizes}
    for size, result in results.items():
        for group, times in result["cpu_milliseconds"].items():
            cells = (f"{name} {ms:.1f} ({times['32'] / ms:.2f}x)" for name, ms in times.items())
            print(f"batch {size}, {group}, CPU ms: {', '.join(cells)}")
        errors = (f"{name} {error:.2g}" for name, error in result["logit_error_over_std"].items())
        print(f"batch {size}, error of the logits / their standard deviation: {', '.join(errors)}")
    if args.output:
        about = {"model": args.model, "time_steps": 4, "n": args.repeats}
        write_result(args.output, {**provenance(), **about, "batch_sizes": results})


if __name__ == "__main__":
    main()
