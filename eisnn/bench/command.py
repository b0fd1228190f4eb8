"""`eisnn bench`: all networks measured in turn, and what is printed and written of it."""

import multiprocessing
import statistics
import time
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch

from eisnn.bench.floor import Floor
from eisnn.bench.memory import peak_memory
from eisnn.bench.subjects import FORMATS, NETWORKS, PEER, Subject
from eisnn.files import require_writable
from eisnn.functional import LIFConstants
from eisnn.nn import fold
from eisnn.ops.population.torch import POPULATIONS
from eisnn.provenance import provenance, write_result


def bench(
    model: str = "vgg8",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    batch_size: int = 32,
    time_steps: int = 4,
    precision: Literal["32", "bf16"] = "32",
    repeats: int = 9,
    floor: bool = False,
    inference: bool = False,
    compile: bool = False,
    cuda_graph: bool = True,
    output: Path | None = None,
) -> dict[str, Any]:
    """Compare an E-I network with its batch-norm twin: step time, forward time, peak memory, bytes kept for backward.

    Args:
        model: Architecture, see `eisnn list`; images are 32x32.
        device: Where to run; auto takes the GPU if there is one.
        batch_size: Images a step.
        time_steps: T.
        precision: 32, or bf16 for mixed precision.
        repeats: Timed steps of each network and memory format, in turn, after one warm-up.
        floor: Also time the bare convolutions of the two networks.
        inference: Also time the two networks with folded weights and merged batch norms (`eisnn.fold`).
        compile: Also time the folded networks after `torch.compile` (with `inference`); it builds for some seconds.
        cuda_graph: On a GPU time training steps that are recorded once and replayed. (Training records all but the
            optimizer's step.)
        output: Also write the numbers to this JSON file.
    Returns: the numbers that are printed and written; times in seconds (medians), memory in bytes.
    """
    if repeats < 1 or batch_size < 1:
        raise ValueError(f"repeats and batch_size must be >= 1, got {repeats} and {batch_size}")
    if compile and not inference:
        raise ValueError("compile is measured at inference only: ask for inference as well (--inference)")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is cuda, but torch sees no CUDA device; use --device cpu")
    common: dict[str, Any] = {
        "model": model,
        "batch_size": batch_size,
        "time_steps": time_steps,
        "precision": precision,
        "device": device,
    }
    if output is not None:
        require_writable(output)
    networks = (*NETWORKS, PEER) if find_spec("spikingjelly") else NETWORKS
    subjects: dict[tuple[str, str], Any] = {
        (network, layout): Subject(network=network, memory_format=layout, **common)
        for network in networks
        for layout in FORMATS
    }
    if floor:
        subjects |= {
            (f"{network}_floor", layout): Floor(subjects[network, layout])
            for network in ("ei", "bn")
            for layout in FORMATS
        }
    if device == "cuda" and cuda_graph:
        for (network, _), subject in subjects.items():
            if network != PEER:  # whose kernels cannot all be recorded
                subject.record()
    samples: dict[str, dict[tuple[str, str], list[float]]] = {
        kind: {key: [] for key in subjects} for kind in ("step", "step_cpu", "forward")
    }
    for repeat in range(repeats + 1):
        for key, subject in subjects.items():
            cpu, start = time.process_time(), time.perf_counter()
            subject.step()
            step, step_cpu = time.perf_counter() - start, time.process_time() - cpu
            start = time.perf_counter()
            subject.forward()
            if repeat:
                for kind, value in [("step", step), ("step_cpu", step_cpu), ("forward", time.perf_counter() - start)]:
                    samples[kind][key].append(value)
    medians = {kind: {key: statistics.median(v) for key, v in values.items()} for kind, values in samples.items()}

    rows = {}
    spawn = multiprocessing.get_context("spawn")
    for network in networks:
        layout = min(FORMATS, key=lambda name: medians["step"][network, name])
        arguments = {"network": network, "memory_format": layout, **common}
        measured = arguments, torch.get_num_threads()
        if device == "cuda":
            peak = peak_memory(*measured)
        else:
            with spawn.Pool(1) as pool:
                peak = pool.apply(peak_memory, measured)
        rows[network] = {
            "memory_format": layout,
            "step_seconds": medians["step"][network, layout],
            "step_cpu_seconds": medians["step_cpu"][network, layout],
            "step_seconds_all": samples["step"][network, layout],
            "forward_seconds": min(medians["forward"][network, name] for name in FORMATS),
            "peak_bytes": peak,
            "saved_bytes": subjects[network, layout].saved_bytes(),
        }
    for network in dict.fromkeys(name for name, _ in subjects if name.endswith("_floor")):
        kinds = ("step", "step_cpu", "forward")
        best = {kind: min(medians[kind][network, layout] for layout in FORMATS) for kind in kinds}
        rows[network] = {f"{kind}_seconds": value for kind, value in best.items()}
    ei, bn = rows["ei"], rows["bn"]
    numbers = ("step_seconds", "step_cpu_seconds", "forward_seconds", "peak_bytes", "saved_bytes")
    result = {
        **provenance(),
        **common,
        "repeats": repeats,
        "kernels": POPULATIONS.name(subjects["ei", "contiguous"].images[None], LIFConstants()),
        "cuda_graph": device == "cuda" and cuda_graph,
        "tf32": {
            "convolutions": torch.backends.cudnn.allow_tf32,
            "products": torch.backends.cuda.matmul.allow_tf32,
        },
        "networks": rows,
        "ei_over_bn": {name: ei[name] / bn[name] for name in numbers},
    }
    if inference:
        result["inference"] = _inference(subjects, batch_size, repeats, compile)
    _show(result)
    if output is not None:
        write_result(output, result)
    return result


def _inference(subjects: dict[tuple[str, str], Any], batch_size: int, repeats: int, compile: bool) -> dict[str, float]:
    """Images a second of the networks in evaluation mode, as they are, folded, and compiled, in turn; medians, faster
    format."""
    models = {}
    for network in ("ei", "bn"):
        for layout in FORMATS:
            subject = subjects[network, layout]
            models[network, layout] = subject, subject.model.eval()
            models[f"{network}, folded", layout] = subject, fold(subject.model)
            if compile:
                models[f"{network}, folded, compiled", layout] = subject, torch.compile(fold(subject.model))
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in models}
    frozen: Any = nullcontext()
    if compile:
        from torch._inductor import config

        frozen = config.patch(freezing=True)  # weights in the order that oneDNN likes best, once
    for repeat in range(repeats + 1):
        for key, (subject, model) in models.items():
            start = time.perf_counter()
            with torch.no_grad(), frozen, torch.autocast(subject.device, torch.bfloat16, subject.precision == "bf16"):
                model(subject.images)
            if subject.device == "cuda":
                torch.cuda.synchronize()
            if repeat:
                seconds[key].append(time.perf_counter() - start)
    names = dict.fromkeys(name for name, _ in models)
    return {n: batch_size / min(statistics.median(seconds[n, layout]) for layout in FORMATS) for n in names}


def _show(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    title = "{model}, batch {batch_size}, T = {time_steps}, {precision}, {device}".format(**result)
    table = Table("", "step ms", "CPU ms", "forward ms", "peak MiB", "kept MiB", "format", title=title)
    for name, row in result["networks"].items():
        times = [f"{1000 * row[k]:.1f}" for k in ("step_seconds", "step_cpu_seconds", "forward_seconds")]
        memory = [f"{row[k] / 2**20:.0f}" if k in row else "" for k in ("peak_bytes", "saved_bytes")]
        table.add_row(name, *times, *memory, row.get("memory_format", ""))
    table.add_row("ei / bn", *(f"{ratio:.2f}" for ratio in result["ei_over_bn"].values()), "")
    console = Console()
    console.width = max(console.width, 100)  # a pipe has 80
    console.print(table)
    for name, speed in result.get("inference", {}).items():
        console.print(f"inference, {name}: {speed:.0f} images/s", highlight=False)
    console.print("kept: what autograd keeps from the forward pass for the backward pass", highlight=False)
