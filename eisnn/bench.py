"""`eisnn bench`: what an E-I network costs beside its batch-norm twin, and that twin beside stock operators.

All networks run in turn, step by step, so that a machine whose speed drifts treats them alike; each is reported in its
own faster memory format. `stock` is Conv2d, BatchNorm2d and an LIF written as a loop over T in plain autograd: it
shows that the twin is not a slow baseline.
"""

import gc
import multiprocessing
import statistics
import threading
import time
from pathlib import Path
from typing import Any, Literal

import psutil
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eisnn.functional import LIFConstants, lif_reference
from eisnn.init import ei_init_
from eisnn.models import create_model
from eisnn.provenance import provenance, write_result

NETWORKS = ("ei", "bn", "stock")
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


class LoopLIF(nn.Module):
    """LIF as a loop over T in plain autograd, for the stock baseline."""

    def forward(self, current: Tensor) -> Tensor:
        """`[T, B, ...]` -> spikes `[T, B, ...]`."""
        return lif_reference(current, LIFConstants())[0]


class Subject:
    """One network in one memory format, ready to be timed."""

    def __init__(
        self,
        network: str,
        memory_format: str,
        model: str,
        batch_size: int,
        time_steps: int,
        precision: str,
        device: str,
    ) -> None:
        torch.manual_seed(0)
        images = torch.rand(batch_size, 3, 32, 32)
        self.labels = torch.randint(10, (batch_size,)).to(device)
        neuron = LoopLIF() if network == "stock" else None
        circuit = "ei" if network == "ei" else "bn"
        self.model = create_model(model, time_steps=time_steps, circuit=circuit, neuron=neuron)
        if circuit == "ei":
            ei_init_(self.model, images, generator=torch.Generator().manual_seed(0))
        layout = FORMATS[memory_format]
        self.model = self.model.to(device).to(memory_format=layout)  # type: ignore[call-overload]
        self.images = images.to(device).contiguous(memory_format=layout)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3, momentum=0.9)
        self.device, self.precision = device, precision

    def loss(self) -> Tensor:
        with torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16"):
            logits = self.model(self.images)
        return F.cross_entropy(logits.float(), self.labels)

    def forward(self) -> None:
        """One forward pass without gradients."""
        with torch.no_grad():
            self.loss()
        self._wait()

    def step(self) -> None:
        """One training step: forward, backward, SGD."""
        self.loss().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self._wait()

    def saved_bytes(self) -> int:
        """Bytes that autograd keeps from the forward pass for the backward pass, parameters not counted."""
        own = {p.untyped_storage().data_ptr() for p in self.model.parameters()}
        kept: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = self.loss()
        del loss
        return sum(kept.values())

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def _peak_memory(arguments: dict[str, Any], threads: int) -> int:
    """Bytes that training steps need beyond the built network, in a process of its own."""
    torch.set_num_threads(threads)
    subject = Subject(**arguments)
    if subject.device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        for _ in range(3):
            subject.step()
        return torch.cuda.max_memory_allocated() - before
    with ResidentMemory() as memory:
        for _ in range(3):
            subject.step()
    return memory.growth


class ResidentMemory:
    """Growth of the resident memory of this process inside a `with` block, sampled every millisecond.

    `getrusage` cannot say it: its peak includes what building the network and importing torch needed once.
    """

    def __enter__(self) -> "ResidentMemory":
        gc.collect()
        self._process = psutil.Process()
        self._before = self._peak = self._process.memory_info().rss
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def _sample(self) -> None:
        while not self._done.wait(0.001):
            self._peak = max(self._peak, self._process.memory_info().rss)

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()

    @property
    def growth(self) -> int:
        """Bytes by which the peak lay above the beginning."""
        return self._peak - self._before


def bench(
    model: str = "vgg8",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    batch_size: int = 32,
    time_steps: int = 4,
    precision: Literal["32", "bf16"] = "32",
    repeats: int = 9,
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
        output: Also write the numbers to this JSON file.
    Returns: the numbers that are printed and written; times in seconds (medians), memory in bytes.
    """
    if repeats < 1 or batch_size < 1:
        raise ValueError(f"repeats and batch_size must be >= 1, got {repeats} and {batch_size}")
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
    subjects = {
        (network, layout): Subject(network=network, memory_format=layout, **common)
        for network in NETWORKS
        for layout in FORMATS
    }
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
    for network in NETWORKS:
        layout = min(FORMATS, key=lambda name: medians["step"][network, name])
        arguments = {"network": network, "memory_format": layout, **common}
        with spawn.Pool(1) as pool:
            peak = pool.apply(_peak_memory, (arguments, torch.get_num_threads()))
        rows[network] = {
            "memory_format": layout,
            "step_seconds": medians["step"][network, layout],
            "step_cpu_seconds": medians["step_cpu"][network, layout],
            "step_seconds_all": samples["step"][network, layout],
            "forward_seconds": min(medians["forward"][network, name] for name in FORMATS),
            "peak_bytes": peak,
            "saved_bytes": subjects[network, layout].saved_bytes(),
        }
    ei, bn = rows["ei"], rows["bn"]
    numbers = ("step_seconds", "step_cpu_seconds", "forward_seconds", "peak_bytes", "saved_bytes")
    result = {
        **provenance(),
        **common,
        "repeats": repeats,
        "networks": rows,
        "ei_over_bn": {name: ei[name] / bn[name] for name in numbers},  # type: ignore[operator]
    }
    _show(result)
    if output is not None:
        write_result(output, result)
    return result


def _show(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    title = "{model}, batch {batch_size}, T = {time_steps}, {precision}, {device}".format(**result)
    table = Table("", "step ms", "CPU ms", "forward ms", "peak MiB", "kept MiB", "format", title=title)
    for name, row in result["networks"].items():
        times = [f"{1000 * row[k]:.1f}" for k in ("step_seconds", "step_cpu_seconds", "forward_seconds")]
        memory = [f"{row[k] / 2**20:.0f}" for k in ("peak_bytes", "saved_bytes")]
        table.add_row(name, *times, *memory, row["memory_format"])
    table.add_row("ei / bn", *(f"{ratio:.2f}" for ratio in result["ei_over_bn"].values()), "")
    console = Console()
    console.width = max(console.width, 100)  # a pipe has 80
    console.print(table)
    console.print("kept: what autograd keeps from the forward pass for the backward pass", highlight=False)
