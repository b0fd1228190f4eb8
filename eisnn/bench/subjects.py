"""What is timed: a network in one memory format, ready for its steps."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eisnn import functional
from eisnn.functional import LIFConstants
from eisnn.init import ei_init_
from eisnn.models import create_model
from eisnn.nn import PLUS, ProjectionLayer, enforce_dale

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
        return saved_bytes(self.model, self.loss)


def saved_bytes(model: nn.Module, forward: Callable[[], Tensor]) -> int:
    """Bytes that autograd keeps from `forward()` for the backward pass, the parameters of `model` not counted."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = forward()
    del out
    return sum(kept.values())
