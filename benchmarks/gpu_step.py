"""Where the time of a training step on a GPU goes: kernels of a recorded step, and the optimizer's step of `-plus`.

python benchmarks/gpu_step.py benchmarks/results/h200_step_vgg8_bf16.json
python benchmarks/gpu_step.py benchmarks/results/h200_step_vgg8_bf16.json --table
"""

import argparse
import json
import re
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from eisnn.bench import Subject
from eisnn.provenance import provenance, write_result
from eisnn.train import recipe
from eisnn.train.optim import make_optimizer

KINDS = {  # of kernels, by their names; the first that fits
    "population and pooling": r"^(forward|backward|smallest)_kernel$",
    "rows of weights": r"^(share|fold|through_\w+)_kernel$",
    "convolutions": r"cudnn|convolve|implicit",
    "products": r"nvjet|cutlass|gem[mv]|cublas|splitK",
    "batch norm": r"batch_norm",
    "sums": r"reduce_kernel",
    "elementwise": r"elementwise|multi_tensor|Cat",
    "copies": r"mem(cpy|set)|Mem",
}
REPEATS = 200


def milliseconds(launch: Callable[[], Any]) -> tuple[float, float]:
    """Of one `launch`: until the device is done, and of the host alone."""
    launch()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(REPEATS):
        launch()
    host = time.perf_counter() - start
    torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start) / REPEATS, 1000 * host / REPEATS


def kernels(launch: Callable[[], Any], steps: int = 5) -> dict[str, Any]:
    """Time and number of the kernels of one `launch`, by kind."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(steps):
            launch()
        torch.cuda.synchronize()
    found: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for event in profile.events() or ():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            kind = next((kind for kind, pattern in KINDS.items() if re.search(pattern, event.name)), "other")
            found[kind][0] += event.device_time / steps
            found[kind][1] += 1 / steps
    us, number = (sum(values[k] for values in found.values()) for k in (0, 1))
    return {"microseconds": us, "kernels": number, "kinds": dict(found)}


def measure(model: str, batch_size: int, precision: str) -> dict[str, Any]:
    common: dict[str, Any] = {
        "memory_format": "channels_last", "model": model, "batch_size": batch_size, "time_steps": 4,
        "precision": precision, "device": "cuda",
    }  # fmt: skip
    result: dict[str, Any] = {"networks": {}}
    for network in ("ei", "plus", "bn"):
        subject = Subject(network, **common)
        subject.record()
        result["networks"][network] = {"ms": milliseconds(subject.step)[0], **kernels(subject.step)}
    plus = Subject("plus", **common)
    optimizer = make_optimizer(plus.model, recipe("cifar10-vgg8-plus").optimization, recordable=True)
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            plus.loss().backward()
            optimizer.step()
        result["optimizer"] = {"ms": milliseconds(optimizer.step), **kernels(optimizer.step)}
        with torch.cuda.graph(graph, stream=stream):
            optimizer.step()
        result["optimizer, recorded"] = {"ms": milliseconds(graph.replay)}
    return result


def table(result: dict[str, Any]) -> str:
    names = [*KINDS, "other"]
    lines = ["| us a step (kernels) | ei | plus | bn |", "|---|---|---|---|"]
    for kind in names:
        cells = [result["networks"][n]["kinds"].get(kind, (0, 0)) for n in ("ei", "plus", "bn")]
        lines.append(f"| {kind} | {' | '.join(f'{us:.0f} ({number:.0f})' for us, number in cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--model", default="vgg8")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--precision", choices=["32", "bf16"], default="bf16")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    args = parser.parse_args()
    if not args.table:
        asked = {"model": args.model, "batch_size": args.batch_size, "precision": args.precision}
        write_result(args.output, {**provenance(), **asked, **measure(**asked)})
    print(table(json.loads(args.output.read_text())))


if __name__ == "__main__":
    main()
