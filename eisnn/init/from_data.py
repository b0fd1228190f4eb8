"""E-I Init: exponential weights, balanced on average, with gains that make the divisive current the standard
deviation of the excitatory one. Section 2 of the method; eqs. (16)-(21), (40)-(41), (53)-(54).

    d, n_I    fan-in, number of I neurons
    scale     1/lambda, mean of the exponential weights
"""

import warnings
from collections.abc import Iterable
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor, distributed, nn

from eisnn.init.gradients import even_gradients_
from eisnn.init.statistics import (
    InputStatistics,
    bernoulli_statistics,
    inhibitory_gain,
    mean_over,
    measure_input,
    scale_for_rate,
    standard_deviation,
    weight_scale,
)
from eisnn.nn import EICircuit, EILayer, SpikingLayer, layers_of
from eisnn.nn.dale import require_plain
from eisnn.nn.layer import check_dtype, check_floating
from eisnn.nn.neurons import run_neuron


def exponential_weights(shape: torch.Size, scale: float, generator: torch.Generator | None) -> Tensor:
    """Exponential weights of mean `scale`, `[n, ...]`, drawn on the CPU in float64."""
    return torch.empty(shape, dtype=torch.float64).exponential_(generator=generator).mul_(scale)


@singledispatch
def fill_(
    layer: SpikingLayer, statistics: InputStatistics, generator: torch.Generator | None = None, group: Any = None
) -> None:
    """Fill a layer that is not initialised, for inputs with these statistics; a kind of layer registers its own way
    (`@fill_.register`).

    Weights are drawn on the CPU in float64, so that they are the same on any device and in any dtype, and come from
    the first process of `group`.
    """
    raise TypeError(f"E-I Init does not know how to fill a {type(layer).__name__}: register its way in fill_")


@fill_.register
@torch.no_grad()
def _(
    layer: EICircuit, statistics: InputStatistics, generator: torch.Generator | None = None, group: Any = None
) -> None:
    """`W_EE, W_IE ~ Exponential(1/lambda)`, `W_EI = 1/n_I`, `g_I` by (54), `g_E = 1`, `b_E = 0`. A circuit may have a
    `draw_weights` of its own."""
    d = layer.fan_in
    scale = weight_scale(statistics, d)
    draw = getattr(layer, "draw_weights", None) or exponential_weights
    for weight in (layer.weight_ee, layer.weight_ie):
        weight.copy_(draw(weight.shape, scale, generator))
        if group is not None:
            distributed.broadcast(weight, group=group, group_src=0)
    layer.weight_ei.fill_(1 / layer.n_i)
    layer.start_(scale, inhibitory_gain(statistics, d), statistics.mean)
    layer.initialized = True


@singledispatch
def adjust_(layer: SpikingLayer, x: Tensor, group: Any = None, time_steps: int | None = None) -> None:
    """What else a layer that is filled sets by its first input `x` `[T, B, ...]`, or a static one `[1, B, ...]` that
    is seen for `time_steps`; by default nothing."""


@adjust_.register
def _(layer: EILayer, x: Tensor, group: Any = None, time_steps: int | None = None) -> None:
    """Unit variance (M13), or the firing rate of the start."""
    if layer.options.unit_variance:
        layer.scale_division_(standard_deviation(layer.integrated(x), group))
    if layer.options.start_rate:
        current = layer.integrated(x)

        def rate(scale: float) -> float:
            return mean_over(run_neuron(layer.neuron, current * scale, time_steps, None, False)[0], group)

        layer.scale_division_(1 / scale_for_rate(rate, layer.options.start_rate))


def _require_nothing_measured(layers: dict[str, SpikingLayer]) -> None:
    """Raise ValueError if an option of `layers` takes data that the theoretical form has not."""
    for name, layer in layers.items():
        if layer.measured:
            raise ValueError(
                f"{name} has {', '.join(layer.measured)}, measured from data, which a firing_probability does not "
                "give: give a first_batch instead"
            )


def _require_own_weights(layers: dict[str, SpikingLayer]) -> None:
    """Raise ValueError if two of `layers` share a parameter or its memory, or one is not a layer's own: the second fill
    would overwrite the first."""
    owners: dict[tuple[int, int], str] = {}
    for name, layer in layers.items():
        require_plain(layer, name)
        for own, parameter in layer.named_parameters():
            place = parameter.untyped_storage().data_ptr(), int(parameter.storage_offset())
            if parameter.numel() and (other := owners.setdefault(place, name)) != name:
                raise ValueError(
                    f"E-I Init: {other} and {name} share the parameter {own}, so filling one would overwrite the "
                    "other; use one layer twice, or share weights after ei_init_"
                )


class _Snapshot:
    """What E-I Init may change: parameters of `circuits` and whether they are initialised, and all buffers of `model`
    (batch norms count and average what they see), as they are now. Widths of surrogates are set last, when nothing can
    fail any more."""

    def __init__(self, model: nn.Module, circuits: Iterable[SpikingLayer]) -> None:
        self._circuits = [(m, m.initialized, [p.detach().clone() for p in m.parameters()]) for m in circuits]
        self._buffers = [
            (m, dict(m._buffers), {key: b.clone() for key, b in m._buffers.items() if b is not None})
            for m in model.modules()
        ]

    @torch.no_grad()
    def restore(self) -> None:
        """Put all of it back."""
        for circuit, initialized, values in self._circuits:
            circuit.initialized = initialized
            for parameter, value in zip(circuit.parameters(), values, strict=True):
                parameter.copy_(value)
        for module, tensors, copies in self._buffers:
            for key, buffer in tensors.items():
                setattr(module, key, buffer)  # the module may have put another tensor in its place
                if buffer is not None:
                    buffer.copy_(copies[key])


def _require_group(group: Any) -> None:
    """Raise ValueError if other processes would fill the same model by themselves."""
    if (
        group is None
        and distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    ):
        raise ValueError(
            f"torch.distributed runs {distributed.get_world_size()} processes, and without a process_group each would "
            "draw and measure by itself; give process_group=torch.distributed.group.WORLD on every rank (for a model "
            "of this process alone a group of it: torch.distributed.new_group([rank], use_local_synchronization=True))"
        )


def ei_init_(
    model: nn.Module,
    first_batch: Tensor | None = None,
    *,
    firing_probability: float | None = None,
    generator: torch.Generator | None = None,
    redraw: bool = False,
    process_group: Any = None,
) -> dict[str, InputStatistics]:
    """E-I Init of every circuit in `model`, in place: from data, eqs. (53)-(54), or from a firing probability.

    With `first_batch` one forward pass of the model fills each circuit just before it runs, so each sees the output
    of the circuits below that are already initialised, also through residual blocks. If anything fails, parameters and
    buffers of the model are left as they were.

    Args:
        model: the bare model (not wrapped for autocast: statistics are taken in full precision).
        first_batch: the tensor that `model(first_batch)` takes, values >= 0, of the dtype of the parameters: images of
            the first training batch.
        firing_probability: p in (0, 1); the theoretical form for Bernoulli(p) inputs, instead of a batch.
        generator: of `torch.device("cpu")`; None is torch's global one. The same state gives the same weights on any
            device and in any number of processes.
        redraw: initialise circuits again that already are; otherwise they are left alone.
        process_group: of `torch.distributed` (e.g. `torch.distributed.group.WORLD`); every rank must call with its
            part of the batch, statistics are those of the joint batch. None does not communicate.
    Returns: the input statistics of each circuit that was filled, by name. If there are circuits and all of them are
        initialised already, nothing is changed, and a warning says so.
    Raises: ValueError if a layer's input is all-zero, constant, negative or not finite, if a circuit is never reached,
        or for wrong arguments; TypeError for a batch, a dtype or a generator of another type.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"ei_init_ takes a model and then its first batch, got {type(model).__name__} as the model")
    if (first_batch is None) == (firing_probability is None):
        raise ValueError("ei_init_ takes either a first_batch or a firing_probability")
    if firing_probability is not None and not 0 < firing_probability < 1:
        raise ValueError(f"firing_probability must lie between 0 and 1, got {firing_probability}")
    if first_batch is not None and not isinstance(first_batch, Tensor):
        raise TypeError(
            f"first_batch must be the tensor that model(first_batch) takes, got {type(first_batch).__name__}; of a "
            "batch (images, labels) give the images"
        )
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(
            f"generator must be a torch.Generator on the CPU, e.g. torch.Generator().manual_seed(3), got {generator!r}"
        )
    if generator is not None and generator.device.type != "cpu":
        raise ValueError(
            f"the generator must live on the CPU, so that every device gives the same weights; it is on "
            f"{generator.device}"
        )
    _require_group(process_group)
    todo = {
        name or type(m).__name__: m
        for name, m in layers_of(model).items()
        if m.data_driven and (redraw or not m.initialized)
    }
    if not todo and (done := [name for name, m in layers_of(model).items() if m.data_driven]):
        warnings.warn(
            f"ei_init_ changed nothing: all {len(done)} circuits of this {type(model).__name__} are initialised "
            "already, by an earlier call or by weights that were loaded. ei_init_(..., redraw=True) draws them anew",
            stacklevel=2,
        )
    _require_own_weights(todo)
    if firing_probability is not None:
        _require_nothing_measured(todo)
    seen: dict[str, InputStatistics] = {}

    def fill(name: str, layer: SpikingLayer, statistics: InputStatistics) -> None:
        fill_(layer, statistics, generator, process_group)
        seen[name] = statistics

    def hook(name: str) -> Any:
        def before_forward(layer: SpikingLayer, args: Any, kwargs: Any) -> None:
            if name in seen:  # a layer used twice keeps its first initialisation
                return
            x = args[0] if args else kwargs["x"]
            check_floating(x, f"E-I Init: {name}")
            check_dtype(x, layer.dtype, name)
            time_steps = args[1] if len(args) > 1 else kwargs.get("time_steps")
            repeats = time_steps if time_steps is not None and x.shape[0] == 1 else 1
            fill(name, layer, measure_input(x, repeats, name, process_group))
            adjust_(layer, x, process_group, time_steps if repeats > 1 else None)

        return before_forward

    uneven = [m for m in todo.values() if "even_gradients" in m.measured]
    for layer in uneven:
        layer.surrogate  # noqa: B018 - ValueError, before anything is changed, if its neuron has none
    before = _Snapshot(model, todo.values())
    handles = []
    try:
        if firing_probability is not None:
            for name, layer in todo.items():
                fill(name, layer, bernoulli_statistics(firing_probability))
        elif todo:
            handles = [m.register_forward_pre_hook(hook(name), with_kwargs=True) for name, m in todo.items()]
            with torch.no_grad():
                model(first_batch)
        unreached = [name for name in todo if name not in seen]
        if unreached:
            raise ValueError(f"E-I Init: the first batch never reached {', '.join(unreached)}")
        while handles:
            handles.pop().remove()
        if uneven and first_batch is not None:
            buffers = _Snapshot(model, ())
            even_gradients_(model, first_batch, uneven, process_group)
            buffers.restore()
    except BaseException:
        before.restore()
        raise
    finally:
        for handle in handles:
            handle.remove()
    return seen
