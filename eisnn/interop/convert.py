"""`eisnn.convert`: a spiking network of another library, or of plain torch, with E-I circuits for its projections.

The network runs once on a sample, watched; no library is imported here.
"""

import copy
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import inf
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from eisnn.init import ei_init_
from eisnn.interop.watch import NORMS, Seen, has_weights, is_neuron, parts_of, tensors, watch
from eisnn.nn import LIF, PAPER, CircuitOptions, EICircuit, EIConv2d, EILinear, EIReadout, SpikingLayer
from eisnn.nn.options import check_options

FORMS = {nn.Conv2d: ("[B, C, H, W]", 4), nn.Conv1d: ("[B, C, L]", 3), nn.Linear: ("[B, F]", 2)}  # one time step
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.Sigmoid, nn.Tanh)
LARGE = 10.0  # an input above it looks like pixels up to 255
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
    """What `convert` did, in the order in which the network runs; `print` it. `note` is of the network as a whole."""

    parts: tuple[Part, ...]
    note: str = ""

    def of(self, fate: Literal["replaced", "kept", "refused"]) -> list[Part]:
        """The parts of this fate."""
        return [part for part in self.parts if part.fate == fate]

    def __str__(self) -> str:
        width = max((len(part.name) for part in self.parts), default=0)
        lines = [
            f"{part.fate:<9} {part.name:<{width}}  {part.what}{'; ' if part.why else ''}{part.why}"
            for part in self.parts
        ]
        return "\n".join([*lines, *([f"note: {self.note}"] if self.note else [])])


class Adapted(nn.Module):
    """A circuit that is called as the projection was whose place it takes.

    Args:
        circuit: called with `[T, B, ...]`.
        stepwise: the network calls it without the axis of time.
        line: with one axis of space in place of two.
        tokens: with axes between that of images and that of features, such as `[T, B, N, C]`.
    """

    def __init__(self, circuit: SpikingLayer, stepwise: bool, line: bool, tokens: bool = False) -> None:
        super().__init__()
        self.circuit, self.stepwise, self.line, self.tokens = circuit, stepwise, line, tokens

    def forward(self, x: Tensor) -> Tensor:
        if self.tokens:
            out: Tensor = self.circuit(x.flatten(1, -2))
            return out.unflatten(1, x.shape[1:-1])
        x = x[None] if self.stepwise else x
        out = self.circuit(x[..., None]).squeeze(-1) if self.line else self.circuit(x)
        return out[0] if self.stepwise else out

    def extra_repr(self) -> str:
        return f"stepwise={self.stepwise}, line={self.line}, tokens={self.tokens}"


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
    if not isinstance(projection, tuple(FORMS)):
        return f"no circuit is like {type(projection).__name__}: its signed weights stay"
    if not seen.calls:
        return "the sample did not reach it, so its signed weights stay: give a sample that takes every way"
    if isinstance(projection, nn.Conv1d | nn.Conv2d):
        if projection.groups != 1:
            return f"a circuit's I neurons see all channels; this has groups={projection.groups}"
        if projection.padding_mode != "zeros" or isinstance(projection.padding, str):
            return f"padding={projection.padding!r}, padding_mode={projection.padding_mode!r}: give zeros, by a number"
    if seen.smallest < 0:
        return (
            f"its input reaches {seen.smallest:.3g}, and a circuit takes values >= 0 (mean-subtracted data: give "
            "pixels in [0, 1])"
        )
    form, axes = _form(projection)
    if seen.axes not in ({axes}, {axes + 1}) and not _has_tokens(projection, seen):
        found = " and ".join(map(str, sorted(seen.axes)))
        return f"its input has {found} axes; {form}, or [T, {form[1:]} with time in front, would be right"
    return ""


def _has_tokens(projection: nn.Module, seen: Seen) -> bool:
    """Whether a `Linear` acts on tokens, `[T, B, N, C]`."""
    return isinstance(projection, nn.Linear) and len(seen.axes) == 1 and max(seen.axes) > 3


def _form(projection: nn.Module) -> tuple[str, int]:
    """Its input without time: the axes, and their number."""
    return next(form for kind, form in FORMS.items() if isinstance(projection, kind))


def convert(
    model: nn.Module,
    sample: Any,
    *,
    options: CircuitOptions = PAPER,
    ei_ratio: int = 4,
    run: Run | None = None,
    keep: Collection[str] = (),
    generator: torch.Generator | None = None,
) -> tuple[nn.Module, Report]:
    """A copy of `model` in which E-I circuits stand for its projections and their norms, filled by E-I Init.

    Each `Conv1d`, `Conv2d` or `Linear` (also on tokens, `[T, B, N, C]`) and the norm behind it become one circuit of
    the same geometry, the last `Linear` an `EIReadout`. Weights are new: signed ones cannot be taken over. A neuron of
    SpikingJelly in step mode "m" goes into the circuit, with its constants, where `eisnn.LIF` spikes exactly as it; any
    other neuron stays where it is, with its constants, and receives the circuit's current. Either no longer divides its
    input by tau (`decay_input` of SpikingJelly): E-I Init scales the current. Neurons behind a projection that stays
    divide as before.

    Args:
        model: written with SpikingJelly, snnTorch, Norse or torch. It is not changed, but the potentials that its
            neurons keep are reset.
        sample: what `model(sample)` takes, values >= 0: inputs of a training batch, which E-I Init scales the circuits
            to. Only what it reaches is replaced.
        options: of the circuits, such as `eisnn.PLUS`. Where neurons are not in the circuits, `even_gradients` and
            `start_rate`, which are of neurons, are left out.
        ei_ratio: E neurons for each I neuron.
        run: `run(model, sample)` instead of `model(sample)`, for a network whose loop over time stands outside.
        keep: names of projections that stay as they are.
        generator: of E-I Init.
    Returns: the new model, and a `Report` of what was replaced, kept and refused, and why.
    Raises: TypeError for what is no module, and for a sample that is no floats; ValueError if the sample is empty, if
        nothing can be replaced, with the reasons, and where E-I Init fails, e.g. on a layer that receives no spike.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"convert takes a model and a sample, got {type(model).__name__} as the model")
    if next(tensors(sample), None) is None and run is None:
        kind = type(sample).__name__
        raise TypeError(f"sample must be what model(sample) takes, a batch of images as a tensor, got {kind}")
    if isinstance(keep, str):
        raise TypeError(f"keep must be a collection of names, such as keep=[{keep!r}], got the string {keep!r}")
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
    seen = watch(model, lambda: run(model, sample))
    reset(model)
    circuits, report = _replace(model, seen, options, ei_ratio, keep)
    if not circuits:
        raise ValueError(f"convert found nothing that it can replace:\n{report}" if report.parts else NOTHING)
    try:
        _fill(model, circuits, sample, run, generator)
    except ValueError as error:
        what = str(error).replace("of model.", "of ").replace(".circuit", "")
        raise ValueError(f"{what}; or leave it as it is: convert(..., keep=[NAME])") from error
    for module, mode in training.items():
        module.training = mode
    return model, report


NO_SPIKES = (
    "no spiking neuron of SpikingJelly, snnTorch, Norse or eisnn was found. Unless something else in it spikes, the "
    "new network does not either: its circuits hand on their currents. Put a neuron behind each projection first, such "
    "as eisnn.LIF()"
)
NOTHING = "convert found no torch.nn.Conv2d, Conv1d and Linear"


def _replace(
    model: nn.Module, seen: dict[str, Seen], options: CircuitOptions, ei_ratio: int, keep: Collection[str]
) -> tuple[dict[SpikingLayer, Seen], Report]:
    """Put circuits, not filled, into `model`: those, in the order of the run, with what their projections did."""
    parts: list[Part] = []
    circuits: dict[SpikingLayer, Seen] = {}
    unconverted = list(model.modules())
    gone: set[str] = set()
    as_before: set[str] = set()  # what hands on spikes, or currents that no circuit makes
    unseen = {name: module for name, module in parts_of(model).items() if name not in seen and has_weights(module)}
    modules = {name: model.get_submodule(name) for name in seen} | unseen
    projections = [name for name in seen if isinstance(modules[name], nn.Linear | _ConvNd)]
    if unknown := sorted(set(keep) - set(projections)):
        raise ValueError(f"keep has {', '.join(unknown)}; the projections are {', '.join(projections)}")
    for name, module in modules.items():
        kind = type(module).__name__
        if name in gone or isinstance(module, SpikingLayer):
            continue
        sources = seen[name].sources if name in seen else set()
        driven = bool(circuits) and not (sources and sources <= as_before)
        if is_neuron(module) or not (driven or name in projections):
            as_before.add(name)
        if is_neuron(module) or isinstance(module, NORMS):
            parts.append(Part(name, "kept", kind, _and(_outside(name, seen), _kept(module, seen[name], kind, driven))))
            continue
        if name not in projections and not has_weights(module):
            if isinstance(module, ACTIVATIONS):
                parts.append(Part(name, "kept", kind, "its units do not spike"))
            continue
        if why := "it is in keep" if name in keep else refusal(module, seen.get(name, Seen())):
            parts.append(Part(name, "refused", kind, why))
            as_before.add(name)
            continue
        norm = _only_reader(name, seen, modules, lambda m: isinstance(m, NORMS))
        neuron = _only_reader(norm or name, seen, modules, is_neuron)
        last = name == projections[-1] and isinstance(module, nn.Linear)
        stepwise = seen[name].axes == {_form(module)[1]}
        inner: LIF | str = "the readout has no neuron" if last else "nothing"
        if neuron and not last:
            inner = lif_of(modules[neuron])
            if isinstance(inner, LIF) and (seen[name].calls > 1 or stepwise):
                inner = "it is called step by step"
        lif = inner if isinstance(inner, LIF) else None
        circuit = _circuit(module, lif, last, options, ei_ratio)
        line, tokens = isinstance(module, nn.Conv1d), _has_tokens(module, seen[name])
        circuits[circuit] = replace(seen[name], output=(*seen[name].output, 1)) if line else seen[name]
        adapted = stepwise or line or tokens
        _put(model, name, Adapted(circuit, stepwise, line, tokens) if adapted else circuit)
        also = [kind, *(type(modules[n]).__name__ for n in (norm, neuron if lif else None) if n)]
        about = _and(f"neuron {lif.extra_repr()}" if lif else "", _scaled(seen[name]))
        parts.append(Part(name, "replaced", f"{' + '.join(also)} -> {type(circuit).__name__}", about))
        for other in (norm, neuron if lif else None):
            if other:
                gone.add(other)
                _put(model, other, nn.Identity())
        if neuron and not lif:
            gone.add(neuron)
            kind = type(modules[neuron]).__name__
            parts.append(Part(neuron, "kept", kind, _and(str(inner), _kept(modules[neuron], seen[neuron], kind, True))))
        as_before |= {neuron} if neuron else set()
    spiking = any(is_neuron(module) or isinstance(module, SpikingLayer) for module in unconverted)
    return circuits, Report(tuple(parts), "" if spiking else NO_SPIKES)


def _and(*sentences: str) -> str:
    return "; ".join(filter(None, sentences))


def _outside(name: str, seen: dict[str, Seen]) -> str:
    """Why a norm or a neuron is no part of a circuit."""
    sources = sorted(seen[name].sources)
    if sources == [""] or not sources:
        return "its input comes from a function or a sum, not from one projection"
    if len(sources) > 1:
        return (
            f"its inputs come from {', '.join(source or 'a function' for source in sources)}, not from one projection"
        )
    if len(seen[sources[0]].readers) > 1:
        return f"something else reads the output of {sources[0]} too"
    return f"it reads {sources[0]}, which is no projection that was replaced"


def _kept(module: nn.Module, seen: Seen, kind: str, driven: bool) -> str:
    """What else to say of a neuron that stays; where a circuit drives it, its division of the current by tau is
    switched off."""
    said = []
    if driven and getattr(module, "decay_input", False) and seen.smallest < 0:
        module.decay_input = False  # type: ignore[assignment]
        said.append("decay_input=False now, as E-I Init scales the current")
    if is_neuron(module) and any(p.ndim > 1 for p in module.parameters()):
        said.append(f"the weights in {kind} stay signed")
    return _and(*said)


def _scaled(seen: Seen) -> str:
    if seen.largest <= LARGE:
        return ""
    return f"its input reaches {seen.largest:.3g} and it is scaled to that: train on the same range, or give [0, 1]"


def _only_reader(
    name: str, seen: dict[str, Seen], modules: dict[str, nn.Module], fits: Callable[[nn.Module], bool]
) -> str | None:
    """The one module that reads what `name` makes, if it reads nothing else and fits."""
    readers = seen[name].readers
    reader = next(iter(readers), "")
    if len(readers) == 1 and reader in modules and fits(modules[reader]) and seen[reader].sources == {name}:
        return reader
    return None


def _circuit(projection: nn.Module, lif: LIF | None, last: bool, options: CircuitOptions, ei_ratio: int) -> EICircuit:
    if lif is None:
        options = replace(options, even_gradients=False, start_rate=0.0)
    p: Any = projection
    common = {"ei_ratio": ei_ratio, "options": options, "device": p.weight.device, "dtype": p.weight.dtype}
    if last:
        return EIReadout(p.in_features, p.out_features, **common)
    if isinstance(p, nn.Linear):
        return EILinear(p.in_features, p.out_features, neuron=lif, **common)
    size, stride, padding, dilation = p.kernel_size, p.stride, p.padding, p.dilation
    if isinstance(p, nn.Conv1d):
        size, stride, padding, dilation = (*size, 1), (*stride, 1), (*padding, 0), (*dilation, 1)
    return EIConv2d(p.in_channels, p.out_channels, size, stride, padding, dilation, neuron=lif, **common)


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
    names = {module: name for name, module in model.named_modules()}
    for circuit in circuits:
        inputs: dict[SpikingLayer, list[Tensor]] = defaultdict(list)
        with _standing_in(circuits, inputs):
            run(model, sample)
        reset(model)
        try:
            ei_init_(circuit, torch.cat(inputs[circuit]), generator=generator)
        except ValueError as error:
            raise ValueError(f"{names[circuit]}: {error}") from error


class _Run(nn.Module):
    """`run(model, x)` as a module, which is what E-I Init takes."""

    def __init__(self, model: nn.Module, run: Run) -> None:
        super().__init__()
        self.model, self.run = model, run

    def forward(self, x: Any) -> Any:
        reset(self.model)
        return self.run(self.model, x)
