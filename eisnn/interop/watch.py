"""A network watched while it runs: what each module receives, and where its output goes.

Hooks see the modules, and a mode of torch functions what lies between them. No library is imported: neurons are known
by the names of their classes.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import inf
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

from eisnn.nn import SpikingLayer

NORMS = (_BatchNorm, nn.GroupNorm, nn.LayerNorm)


@dataclass
class Seen:
    """What one module did in the run of the sample.

    Attributes:
        calls: how often it was called.
        axes: numbers of axes of its inputs.
        smallest, largest: values among its inputs.
        output: shape of one output.
        sources: modules whose outputs it received unchanged; "" is any other origin.
        readers: modules that received its outputs unchanged; "" is a function or the model's own code.
    """

    calls: int = 0
    axes: set[int] = field(default_factory=set)
    smallest: float = inf
    largest: float = -inf
    output: tuple[int, ...] = ()
    sources: set[str] = field(default_factory=set)
    readers: set[str] = field(default_factory=set)


class _Watch(TorchFunctionMode):
    """Writes down who makes and who reads each tensor."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        # A neuron has a surrogate inside: what is not a container, and a child of one, is one part.
        self.names = parts_of(model)
        self.seen: dict[str, Seen] = defaultdict(Seen)
        self.made: dict[int, tuple[Tensor, str]] = {}  # holds the tensor, so that no other one takes its id
        self.inside: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") != "__get__":
            for x in tensors((args, kwargs or {})):
                self._read(x, self.inside[0] if self.inside else "")
        return func(*args, **(kwargs or {}))

    def _read(self, x: Tensor, reader: str) -> str:
        maker = self.made[id(x)][1] if id(x) in self.made else ""
        if maker and maker != reader:
            self.seen[maker].readers.add(reader)
        return maker

    def before(self, name: str, inputs: tuple[Any, ...]) -> None:
        self.inside.append(name)
        x = next(tensors(inputs), None)
        if len(self.inside) > 1 or x is None:
            return
        seen = self.seen[name]
        seen.calls += 1
        seen.axes.add(x.ndim)
        with torch._C.DisableTorchFunction():
            if isinstance(self.names[name], nn.Linear | _ConvNd):
                _check_input(x, name)
            seen.smallest, seen.largest = min(seen.smallest, float(x.min())), max(seen.largest, float(x.max()))
        seen.sources.add(self._read(x, name))

    def after(self, name: str, output: Any) -> None:
        self.inside.pop()
        x = next(tensors(output), None)
        if self.inside or x is None:
            return
        self.seen[name].output = tuple(x.shape)
        self.made[id(x)] = (x, name)


def _check_input(x: Tensor, name: str) -> None:
    """Raise for what no projection takes."""
    if not x.is_floating_point():
        raise TypeError(f"{name} receives {x.dtype} from the sample; give floats, of images pixels in [0, 1]: x / 255")
    if not x.numel():
        raise ValueError(f"{name} receives an empty tensor, {list(x.shape)}, from the sample; give a training batch")


def tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors(item)
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))


def parts_of(model: nn.Module) -> dict[str, nn.Module]:
    """Projections, norms, neurons and all modules without children, by name; what lies in a neuron is not looked at."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        if any(name.startswith(f"{outer}.") for outer in found):
            continue
        leaf = isinstance(module, (nn.Linear, _ConvNd, *NORMS, SpikingLayer)) or is_neuron(module)
        if name and (leaf or not any(module.children()) or has_weights(module)):
            found[name] = module
    return found


def has_weights(module: nn.Module) -> bool:
    """Of its own; matrices and kernels, not scales and biases."""
    return any(p.ndim > 1 for p in module.parameters(recurse=False))


NEURONS = (("spikingjelly.", "BaseNode"), ("snntorch.", "SpikingNeuron"), ("norse.", "SNN"), ("norse.", "SNNCell"),
           ("norse.", "SNNRecurrent"), ("norse.", "SNNRecurrentCell"))  # fmt: skip


def is_neuron(module: nn.Module) -> bool:
    """Whether `module` is a spiking neuron of SpikingJelly, snnTorch, Norse or this package."""
    kinds = type(module).__mro__
    return any(
        c.__module__ == "eisnn.nn.neurons"
        or any(c.__module__.startswith(library) and c.__name__.endswith(base) for library, base in NEURONS)
        for c in kinds
    )


@torch.no_grad()
def watch(model: nn.Module, run: Callable[[], Any]) -> dict[str, Seen]:
    """What the parts of `model` do while `run` runs it, in the order of their first calls."""
    seen = _Watch(model)
    with ExitStack() as hooks:
        for name, module in seen.names.items():
            before = module.register_forward_pre_hook(lambda _, x, name=name: seen.before(name, x))
            after = module.register_forward_hook(lambda _, x, out, name=name: seen.after(name, out))
            hooks.callback(before.remove)
            hooks.callback(after.remove)
        with seen:
            run()
    return dict(seen.seen)
