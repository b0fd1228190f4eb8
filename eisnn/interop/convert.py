"""`eisnn.convert`: a spiking network of another library, or of plain torch, with E-I circuits for its projections.

The network runs once on a sample under hooks, which show what each projection receives and where its output goes. No
library is imported here: their neurons are known by class name.
"""

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

from eisnn.init import ei_init_
from eisnn.nn import LIF, PAPER, CircuitOptions, EICircuit, EIConv2d, EILinear, EIReadout, SpikingLayer
from eisnn.nn.options import check_options

NORMS = (_BatchNorm, nn.GroupNorm, nn.LayerNorm)
POOLS = (nn.MaxPool2d, nn.AdaptiveMaxPool2d)
AXES = {"Conv2d": (4, 5), "Linear": (2, 3)}  # without and with the axis of time
SURROGATES = {"Sigmoid": "sigmoid", "ATan": "atan", "PiecewiseQuadratic": "triangle"}  # SpikingJelly's name: ours
Run = Callable[[nn.Module, Any], Any]


class Part(NamedTuple):
    """What became of one module: its name in the model, the change, and why."""

    name: str
    fate: Literal["replaced", "kept", "refused"]
    what: str
    why: str = ""


@dataclass(frozen=True)
class Report:
    """What `convert` did, in the order in which the network runs; `print` it."""

    parts: tuple[Part, ...]

    def of(self, fate: Literal["replaced", "kept", "refused"]) -> list[Part]:
        """The parts of this fate."""
        return [part for part in self.parts if part.fate == fate]

    def __str__(self) -> str:
        width = max((len(part.name) for part in self.parts), default=0)
        return "\n".join(
            f"{part.fate:<9} {part.name:<{width}}  {part.what}{'; ' if part.why else ''}{part.why}"
            for part in self.parts
        )


class Stepwise(nn.Module):
    """A circuit where the network calls its projection without an axis of time: `[B, ...]` -> `[B, ...]`."""

    def __init__(self, circuit: SpikingLayer) -> None:
        super().__init__()
        self.circuit = circuit

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.circuit(x[None])
        return out[0]


@dataclass
class Seen:
    """What one module did in the run of the sample.

    Attributes:
        calls: how often it was called.
        axes: numbers of axes of its inputs.
        smallest: the smallest value among its inputs.
        output: shape of one output.
        sources: modules whose outputs it received unchanged; "" is any other origin.
        readers: modules that received its outputs unchanged; "" is a function or the model's own code.
    """

    calls: int = 0
    axes: set[int] = field(default_factory=set)
    smallest: float = inf
    output: tuple[int, ...] = ()
    sources: set[str] = field(default_factory=set)
    readers: set[str] = field(default_factory=set)


class _Watch(TorchFunctionMode):
    """Writes down who makes and who reads each tensor."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        # A neuron has a surrogate inside: what is not a container, and a child of one, is one part.
        self.names = _parts(model)
        self.seen: dict[str, Seen] = defaultdict(Seen)
        self.made: dict[int, tuple[Tensor, str]] = {}  # holds the tensor, so that no other one takes its id
        self.inside: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") != "__get__":
            for x in _tensors((args, kwargs or {})):
                self._read(x, self.inside[0] if self.inside else "")
        return func(*args, **(kwargs or {}))

    def _read(self, x: Tensor, reader: str) -> str:
        maker = self.made[id(x)][1] if id(x) in self.made else ""
        if maker and maker != reader:
            self.seen[maker].readers.add(reader)
        return maker

    def before(self, name: str, inputs: tuple[Any, ...]) -> None:
        self.inside.append(name)
        x = next(_tensors(inputs), None)
        if len(self.inside) > 1 or x is None:
            return
        seen = self.seen[name]
        seen.calls += 1
        seen.axes.add(x.ndim)
        with torch._C.DisableTorchFunction():
            if x.numel() and isinstance(self.names[name], nn.Linear | _ConvNd):
                seen.smallest = min(seen.smallest, float(x.min()))
        seen.sources.add(self._read(x, name))

    def after(self, name: str, output: Any) -> None:
        self.inside.pop()
        x = next(_tensors(output), None)
        if self.inside or x is None:
            return
        self.seen[name].output = tuple(x.shape)
        self.made[id(x)] = (x, name)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _parts(model: nn.Module) -> dict[str, nn.Module]:
    """Projections, norms, poolings and neurons of `model` by name; what lies in a neuron is not looked at."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        if any(name.startswith(f"{outer}.") for outer in found):
            continue
        leaf = isinstance(module, (nn.Linear, _ConvNd, *NORMS, *POOLS, SpikingLayer)) or is_neuron(module)
        if name and (leaf or not any(module.children())):
            found[name] = module
    return found


def is_neuron(module: nn.Module) -> bool:
    """Whether `module` is a spiking neuron of SpikingJelly, snnTorch or this package."""
    names = [f"{c.__module__}.{c.__name__}" for c in type(module).__mro__]
    library = any(name.startswith("spikingjelly.") and name.endswith("BaseNode") for name in names)
    library |= any(name.startswith("snntorch.") and name.endswith("SpikingNeuron") for name in names)
    return library or any(c.__module__ == "eisnn.nn.neurons" for c in type(module).__mro__)


def reset(model: nn.Module) -> None:
    """Forget the potentials that neurons of SpikingJelly and snnTorch keep."""
    for module in model.modules():
        forget = getattr(module, "reset_mem", None) or getattr(module, "reset", None)
        if callable(forget) and (is_neuron(module) or hasattr(module, "_memories")):
            forget()


def lif_of(neuron: nn.Module) -> LIF | str:
    """The `LIF` that spikes exactly as this neuron, called with a whole sequence; or why there is none.

    That a `LIFNode` may divide its input by tau (`decay_input`) is left out: E-I Init scales the current.
    """
    if type(neuron) is LIF:
        return LIF(**{name: getattr(neuron.constants, name) for name in _CONSTANTS})
    kind = type(neuron).__name__
    if not (type(neuron).__module__.startswith("spikingjelly.") and kind in ("LIFNode", "IFNode")):
        return f"{kind} keeps its own dynamics"
    n: Any = neuron
    if n.step_mode != "m":
        return "it is called step by step and holds its potential itself"
    if n.v_reset not in (None, 0):
        return f"it resets to {n.v_reset}, an eisnn.LIF to 0 or by its threshold"
    if n.store_v_seq:
        return "it stores its potentials"
    surrogate = type(n.surrogate_function).__name__
    if surrogate not in SURROGATES or not n.surrogate_function.spiking:
        return f"no surrogate of eisnn.LIF is {surrogate}"
    leaky = kind == "LIFNode"
    return LIF(
        tau=float(n.tau) if leaky else inf,
        theta=float(n.v_threshold),
        reset="soft" if n.v_reset is None else "hard",
        surrogate=SURROGATES[surrogate],
        alpha=float(n.surrogate_function.alpha),
        detach_reset=bool(n.detach_reset),
    )


_CONSTANTS = ("tau", "theta", "reset", "surrogate", "alpha", "detach_reset")


def refusal(projection: nn.Module, seen: Seen) -> str:
    """Why a circuit cannot take the place of this projection; "" if it can."""
    if not isinstance(projection, nn.Conv2d | nn.Linear):
        return f"circuits are Linear and Conv2d, this is {type(projection).__name__}"
    if isinstance(projection, nn.Conv2d):
        if projection.groups != 1:
            return f"a circuit's I neurons see all channels; this has groups={projection.groups}"
        if projection.padding_mode != "zeros" or isinstance(projection.padding, str):
            return f"padding={projection.padding!r}, padding_mode={projection.padding_mode!r}: give zeros, by a number"
    if seen.smallest < 0:
        return (
            f"its input reaches {seen.smallest:.3g}, and a circuit takes values >= 0 (mean-subtracted data: give "
            "pixels in [0, 1])"
        )
    axes = AXES["Conv2d" if isinstance(projection, nn.Conv2d) else "Linear"]
    if len(seen.axes) != 1 or not seen.axes <= set(axes):
        return f"its input has {sorted(seen.axes)} axes; {axes[0]}, or {axes[1]} with time in front, would be right"
    return ""


def convert(
    model: nn.Module,
    sample: Any,
    *,
    options: CircuitOptions = PAPER,
    ei_ratio: int = 4,
    run: Run | None = None,
    generator: torch.Generator | None = None,
) -> tuple[nn.Module, Report]:
    """A copy of `model` in which E-I circuits stand for its projections and their norms, filled by E-I Init.

    Each `Conv2d` or `Linear` and the norm behind it become one circuit of the same geometry, the last `Linear` an
    `EIReadout`. Weights are new: signed ones cannot be taken over. A SpikingJelly neuron in step mode "m" goes into
    the circuit, with its constants, where `eisnn.LIF` spikes exactly as it; any other neuron stays where it is, with
    its constants, and receives the circuit's current. Either no longer divides its input by tau (`decay_input` of
    SpikingJelly): E-I Init scales the current.

    Args:
        model: written with SpikingJelly, snnTorch or torch. It is not changed, but the potentials that its
            neurons keep are reset.
        sample: what `model(sample)` takes, values >= 0: inputs of a training batch.
        options: of the circuits, such as `eisnn.PLUS`. Where neurons are not in the circuits, `even_gradients` and
            `start_rate`, which are of neurons, are left out.
        ei_ratio: E neurons for each I neuron.
        run: `run(model, sample)` instead of `model(sample)`, for a network whose loop over time stands outside.
        generator: of E-I Init.
    Returns: the new model, and a `Report` of what was replaced, kept and refused, and why.
    Raises: TypeError for what is no module; ValueError if nothing can be replaced, with the reasons, and where E-I
        Init fails, e.g. on a layer that receives no spike.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"convert takes a model and a sample, got {type(model).__name__} as the model")
    run = run or (lambda network, x: network(x))
    reset(model)
    check_options(options)
    model = copy.deepcopy(model)
    for module in filter(is_neuron, model.modules()):
        if isinstance(known := getattr(module, "instances", None), list):
            known.append(module)  # snnTorch's utils.reset finds its neurons there
    training = {module: module.training for module in model.modules()}
    for module, mode in training.items():
        module.training = mode and isinstance(module, NORMS)  # a norm that was not trained has no statistics to use
    seen = _watch(model, sample, run)
    circuits, report = _replace(model, seen, options, ei_ratio)
    if not circuits:
        raise ValueError(f"convert found nothing that it can replace:\n{report}" if report.parts else NOTHING)
    _fill(model, circuits, sample, run, generator)
    for module, mode in training.items():
        module.training = mode
    return model, report


NOTHING = "convert found no torch.nn.Conv2d and no torch.nn.Linear that the sample reaches"


@torch.no_grad()
def _watch(model: nn.Module, sample: Any, run: Run) -> dict[str, Seen]:
    watch = _Watch(model)
    with ExitStack() as hooks:
        for name, module in watch.names.items():
            before = module.register_forward_pre_hook(lambda _, x, name=name: watch.before(name, x))
            after = module.register_forward_hook(lambda _, x, out, name=name: watch.after(name, out))
            hooks.callback(before.remove)
            hooks.callback(after.remove)
        with watch:
            run(model, sample)
    reset(model)
    return dict(watch.seen)


def _replace(
    model: nn.Module, seen: dict[str, Seen], options: CircuitOptions, ei_ratio: int
) -> tuple[dict[SpikingLayer, Seen], Report]:
    """Put circuits, not filled, into `model`: those, in the order of the run, with what their projections did."""
    parts: list[Part] = []
    circuits: dict[SpikingLayer, Seen] = {}
    gone: set[str] = set()
    modules = {name: model.get_submodule(name) for name in seen}
    projections = [name for name, module in modules.items() if isinstance(module, nn.Linear | _ConvNd)]
    for name, module in modules.items():
        if name in gone:
            continue
        kind = type(module).__name__
        if name not in projections:
            if is_neuron(module):
                parts.append(Part(name, "kept", kind, "it receives not only the output of one projection replaced"))
            elif isinstance(module, NORMS):
                parts.append(Part(name, "kept", kind, "it does not follow a projection that was replaced"))
            elif isinstance(module, POOLS):
                parts.append(Part(name, "kept", kind, "max pooling stays >= 0 on spikes"))
            continue
        if why := refusal(module, seen[name]):
            parts.append(Part(name, "refused", kind, why))
            continue
        norm = _only_reader(name, seen, modules, lambda m: isinstance(m, NORMS))
        neuron = _only_reader(norm or name, seen, modules, is_neuron)
        last = name == projections[-1] and isinstance(module, nn.Linear)
        inner: LIF | str = "the readout has no neuron" if last else "nothing"
        if neuron and not last:
            inner = lif_of(modules[neuron])
            if isinstance(inner, LIF) and (seen[name].calls > 1 or seen[name].axes != {_axes(module)}):
                inner = "it is called step by step"
        lif = inner if isinstance(inner, LIF) else None
        circuit = _circuit(module, lif, last, options, ei_ratio)
        circuits[circuit] = seen[name]
        _put(model, name, circuit if seen[name].axes == {_axes(module)} else Stepwise(circuit))
        also = [kind, *(type(modules[n]).__name__ for n in (norm, neuron if lif else None) if n)]
        parts.append(
            Part(
                name,
                "replaced",
                f"{' + '.join(also)} -> {type(circuit).__name__}",
                f"neuron {lif.extra_repr()}" if lif else "",
            )
        )
        for other in (norm, neuron if lif else None):
            if other:
                gone.add(other)
                _put(model, other, nn.Identity())
        if neuron and not lif:
            gone.add(neuron)
            if getattr(modules[neuron], "decay_input", False):
                modules[neuron].decay_input = False  # type: ignore[assignment]
                inner = f"{inner}; decay_input=False now, as E-I Init scales the current"
            parts.append(Part(neuron, "kept", type(modules[neuron]).__name__, str(inner)))
    return circuits, Report(tuple(parts))


def _only_reader(
    name: str, seen: dict[str, Seen], modules: dict[str, nn.Module], fits: Callable[[nn.Module], bool]
) -> str | None:
    """The one module that reads what `name` makes, if it reads nothing else and fits."""
    readers = seen[name].readers
    reader = next(iter(readers), "")
    if len(readers) == 1 and reader in modules and fits(modules[reader]) and seen[reader].sources == {name}:
        return reader
    return None


def _axes(projection: nn.Module) -> int:
    return AXES["Conv2d" if isinstance(projection, nn.Conv2d) else "Linear"][1]


def _circuit(projection: nn.Module, lif: LIF | None, last: bool, options: CircuitOptions, ei_ratio: int) -> EICircuit:
    if lif is None:
        options = replace(options, even_gradients=False, start_rate=0.0)
    p: Any = projection
    common = {"ei_ratio": ei_ratio, "options": options, "device": p.weight.device, "dtype": p.weight.dtype}
    if last:
        return EIReadout(p.in_features, p.out_features, **common)
    if isinstance(p, nn.Linear):
        return EILinear(p.in_features, p.out_features, neuron=lif, **common)
    return EIConv2d(p.in_channels, p.out_channels, p.kernel_size, p.stride, p.padding, p.dilation, neuron=lif, **common)


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    """Replace what `name` names, under all its names."""
    old = model.get_submodule(name)
    for known, found in list(model.named_modules(remove_duplicate=False)):
        if found is old:
            parent, _, own = known.rpartition(".")
            setattr(model.get_submodule(parent), own, module)


@contextmanager
def _standing_in(circuits: dict[SpikingLayer, Seen], inputs: dict[SpikingLayer, list[Tensor]]) -> Iterator[None]:
    """Circuits that are not filled give currents of 0 and keep their inputs."""

    def stand_in(circuit: EICircuit, seen: Seen) -> Callable[..., Tensor]:
        def forward(x: Tensor) -> Tensor:
            inputs[circuit].append(x)
            return x.new_zeros(*x.shape[:2], *seen.output[-1 - circuit.connection.spatial :])

        return forward

    waiting = [circuit for circuit in circuits if not circuit.initialized]
    for circuit in waiting:
        circuit.forward = stand_in(circuit, circuits[circuit])  # type: ignore[method-assign,arg-type]
    try:
        yield
    finally:
        for circuit in waiting:
            del circuit.forward


@torch.no_grad()
def _fill(
    model: nn.Module, circuits: dict[SpikingLayer, Seen], sample: Any, run: Run, generator: torch.Generator | None
) -> None:
    """E-I Init by the sample: by one pass where each circuit sees all steps at once, else circuit by circuit, each from
    its inputs at all steps."""
    if all(seen.calls == 1 for seen in circuits.values()) and isinstance(sample, Tensor):
        ei_init_(_Run(model, run), sample, generator=generator)
        reset(model)
        return
    for circuit in circuits:
        inputs: dict[SpikingLayer, list[Tensor]] = defaultdict(list)
        with _standing_in(circuits, inputs):
            run(model, sample)
        reset(model)
        ei_init_(circuit, torch.cat(inputs[circuit]), generator=generator)


class _Run(nn.Module):
    """`run(model, x)` as a module, which is what E-I Init takes."""

    def __init__(self, model: nn.Module, run: Run) -> None:
        super().__init__()
        self.model, self.run = model, run

    def forward(self, x: Any) -> Any:
        reset(self.model)
        return self.run(self.model, x)
