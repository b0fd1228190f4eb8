"""`eisnn bench`: what an E-I network costs beside its batch-norm twin, and that twin beside stock operators.

All networks run in turn, step by step, so that a machine whose speed drifts treats them alike; each is reported in its
own faster memory format.

ei, bn         the E-I network and its batch-norm twin
stock          Conv2d, BatchNorm2d and an LIF written as a loop over T in plain autograd: is the twin a slow baseline?
spikingjelly   Conv2d, BatchNorm2d and SpikingJelly's multi-step LIF neuron, where that package is installed
ei_floor, ...  the bare convolutions of a network, as the network computes them, and by a stock operator the lateral 1x1
               one of circuits: what is left is the cost of all the rest
"""

import copy
import gc
import multiprocessing
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import psutil
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eisnn import functional, ops
from eisnn.deploy import quantize
from eisnn.files import require_writable
from eisnn.functional import LIFConstants
from eisnn.init import ei_init_
from eisnn.models import create_model
from eisnn.nn import PLUS, ProjectionLayer, SpikingLayer, enforce_dale, fold, layers_of
from eisnn.process import release_memory
from eisnn.provenance import provenance, write_result

NETWORKS = ("ei", "plus", "bn", "stock")
PEER = "spikingjelly"
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


class LoopLIF(nn.Module):
    """LIF as a loop over T in plain autograd, for the stock baseline."""

    def forward(self, current: Tensor) -> Tensor:
        """`[T, B, ...]` -> spikes `[T, B, ...]`."""
        return functional.lif(current, LIFConstants())[0]


def spikingjelly_neuron() -> nn.Module:
    """The same neuron by SpikingJelly, over all steps at once."""
    from spikingjelly.activation_based import neuron, surrogate

    return neuron.LIFNode(
        tau=2.0,
        decay_input=False,
        v_reset=None,
        surrogate_function=surrogate.Sigmoid(alpha=4.0),
        detach_reset=True,
        step_mode="m",
    )


def use_stock_convolutions(model: nn.Module) -> None:
    """Replace the convolutions of `model`, the twin, by `nn.Conv2d`."""
    for layer in model.modules():
        if isinstance(layer, ProjectionLayer) and isinstance(p := layer.projection, nn.Conv2d):
            geometry = p.kernel_size, p.stride, p.padding, p.dilation
            layer.projection = nn.Conv2d(p.in_channels, p.out_channels, *geometry, bias=False)  # type: ignore[arg-type]
            layer.projection.weight = p.weight


class Timed:
    """A step that can be timed; on a GPU it may be recorded as a CUDA graph first."""

    device: str
    _graph: torch.cuda.CUDAGraph | None = None

    def launch(self) -> None:
        """The step; on a GPU it is queued when this returns."""
        raise AttributeError(f"{type(self).__name__} defines no launch()")

    def step(self) -> None:
        """The step, to its end."""
        if self._graph is None:
            self.launch()
        else:
            self._graph.replay()
        self._wait()

    def record(self) -> None:
        """From here on the step is a replayed CUDA graph."""
        stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.launch()
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(graph, stream=stream):
            self.launch()
        self._graph = graph

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


class Subject(Timed):
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
        neurons: dict[str, Callable[[], nn.Module]] = {"stock": LoopLIF, PEER: spikingjelly_neuron}
        neuron = neurons[network]() if network in neurons else None
        circuit = "ei" if network in ("ei", "plus") else "bn"
        options = PLUS if network == "plus" else None
        layout = FORMATS[memory_format]
        self.model = create_model(model, time_steps=time_steps, circuit=circuit, neuron=neuron, circuit_options=options)
        if network in neurons:
            use_stock_convolutions(self.model)
        self.model = self.model.to(device).to(memory_format=layout)  # type: ignore[call-overload]
        self.images = images.to(device).contiguous(memory_format=layout)
        if circuit == "ei":
            # E-I Init measures how images differ.
            several = torch.cat([self.images, torch.rand_like(self.images)]) if batch_size == 1 else self.images
            ei_init_(self.model, several, generator=torch.Generator().manual_seed(0))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3, momentum=0.9)
        enforce_dale(self.optimizer, self.model)
        self.device, self.precision = device, precision
        self.stateful = network == PEER

    def loss(self) -> Tensor:
        with torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16"):
            if self.stateful:
                for module in self.model.modules():
                    if callable(reset := getattr(module, "reset", None)):
                        reset()
            logits = self.model(self.images)
        return F.cross_entropy(logits.float(), self.labels)

    def forward(self) -> None:
        """One forward pass without gradients."""
        with torch.no_grad():
            self.loss()
        self._wait()

    def launch(self) -> None:
        """One training step: forward, backward, SGD, Dale's law."""
        self.loss().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

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


class Floor(Timed):
    """The convolutions of a network alone, forward and backward; of a circuit the one with the stacked kernel and, by a
    stock operator, the lateral 1x1."""

    def __init__(self, subject: Subject) -> None:
        self.device = subject.device
        self.calls: list[tuple[Tensor, Tensor, Tensor | None, Any]] = []

        def hook(layer: SpikingLayer, args: Any) -> None:
            x = args[0].detach().to(torch.bfloat16 if subject.precision == "bf16" else torch.float32)
            x = x.flatten(0, 1).clone().requires_grad_(len(self.calls) > 0)  # the images need no gradient
            with torch.no_grad():
                forward, *lateral = copy.deepcopy(layer).folded().pathways()
            if forward.weight.ndim == 4:
                weights = [p.weight.detach().to(x.dtype, copy=True).requires_grad_() for p in (forward, *lateral)]
                self.calls.append((x, weights[0], weights[1] if lateral else None, forward.connection))

        layers = [layer for layer in layers_of(subject.model).values() if layer.hidden]
        handles = [m.register_forward_pre_hook(hook) for m in layers]
        subject.forward()
        for handle in handles:
            handle.remove()

    def launch(self) -> None:
        """All forward passes, then all backward passes."""
        outputs = [self._outputs(*call) for call in self.calls]
        for y in outputs:
            torch.autograd.backward(y, [torch.ones_like(part) for part in y])
        for x, kernel, lateral, _ in self.calls:
            x.grad = kernel.grad = None
            if lateral is not None:
                lateral.grad = None

    def forward(self) -> None:
        with torch.no_grad():
            for call in self.calls:
                self._outputs(*call)
        self._wait()

    @staticmethod
    def _outputs(x: Tensor, kernel: Tensor, lateral: Tensor | None, geometry: Any) -> list[Tensor]:
        y = geometry.feedforward(x[None], kernel)[0]
        if lateral is None:
            return [y]
        n_e = lateral.shape[0]
        return [y[:, :n_e], F.conv2d(y[:, n_e:], lateral[:, :, None, None])]


def peak_memory(arguments: dict[str, Any], threads: int) -> int:
    """Bytes that training steps need beyond the built network. On a CPU to be called in a process of its own; a GPU's
    memory is counted, and not seen from outside."""
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

    `getrusage` cannot say it: its peak includes what building the network and importing torch needed once. What was
    freed before is given back first: used again, it would not show.
    """

    def __enter__(self) -> "ResidentMemory":
        gc.collect()
        release_memory()
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
    floor: bool = False,
    inference: bool = False,
    compile: bool = False,
    int8: bool = False,
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
        int8: Also time the folded networks with int8 weights, on a CPU (with `inference`; `eisnn.deploy.quantize`).
        cuda_graph: On a GPU time training steps that are recorded once and replayed. (Training records all but the
            optimizer's step.)
        output: Also write the numbers to this JSON file.
    Returns: the numbers that are printed and written; times in seconds (medians), memory in bytes.
    """
    if repeats < 1 or batch_size < 1:
        raise ValueError(f"repeats and batch_size must be >= 1, got {repeats} and {batch_size}")
    for name, asked in [("compile", compile), ("int8", int8)]:
        if asked and not inference:
            raise ValueError(f"{name} is measured at inference only: ask for inference as well (--inference)")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is cuda, but torch sees no CUDA device; use --device cpu")
    if int8 and (device != "cpu" or precision != "32"):
        raise ValueError(f"int8 replaces float32 on a CPU, got precision {precision} on {device}")
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
    if int8:  # what cannot be quantized says so before anything is measured
        quantize(subjects["ei", "contiguous"].model, subjects["ei", "contiguous"].images)
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
        "kernels": ops.backends.backend(subjects["ei", "contiguous"].images[None]),
        "cuda_graph": device == "cuda" and cuda_graph,
        "tf32": {
            "convolutions": torch.backends.cudnn.allow_tf32,
            "products": torch.backends.cuda.matmul.allow_tf32,
        },
        "networks": rows,
        "ei_over_bn": {name: ei[name] / bn[name] for name in numbers},
    }
    if inference:
        result["inference"] = _inference(subjects, batch_size, repeats, compile, int8)
    _show(result)
    if output is not None:
        write_result(output, result)
    return result


def _inference(
    subjects: dict[tuple[str, str], Any], batch_size: int, repeats: int, compile: bool, int8: bool
) -> dict[str, float]:
    """Images a second of the networks in evaluation mode, as they are, folded, compiled, and in int8, in turn;
    medians, faster format."""
    models = {}
    for network in ("ei", "bn"):
        for layout in FORMATS:
            subject = subjects[network, layout]
            models[network, layout] = subject, subject.model.eval()
            models[f"{network}, folded", layout] = subject, fold(subject.model)
            if compile:
                models[f"{network}, folded, compiled", layout] = subject, torch.compile(fold(subject.model))
            if int8:
                models[f"{network}, folded, int8", layout] = subject, quantize(subject.model, subject.images)
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
