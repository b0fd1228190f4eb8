"""E-I Init: exponential weights, balanced on average, with gains that make the divisive current the standard
deviation of the excitatory one. Section 2 of the method; eqs. (16)-(21), (40)-(41), (53)-(54).

    d, n_I    fan-in, number of I neurons
    scale     1/lambda, mean of the exponential weights
"""

from math import sqrt
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed, nn

from eisnn.functional import conserve
from eisnn.nn import EICircuit, EILayer, EIReadout
from eisnn.nn.layer import check_floating


class InputStatistics(NamedTuple):
    """Statistics of one layer's input: `E[x]`, `E[x^2]`, and `Var x` (unbiased over the merged T*B axis at each
    position, averaged over positions)."""

    mean: float
    square: float
    variance: float


def bernoulli_statistics(p: float) -> InputStatistics:
    """Of inputs that are 1 with probability `p`: the theoretical form, eqs. (19)-(21) and (40)-(41)."""
    return InputStatistics(p, p, p * (1 - p))


def weight_scale(statistics: InputStatistics, d: int) -> float:
    """`1/lambda = sqrt(Var x / (d (E[x^2] + Var x)))`, eq. (53): makes `std(I_EE) = std(x)`."""
    return sqrt(statistics.variance / (d * (statistics.square + statistics.variance)))


def inhibitory_gain(statistics: InputStatistics, d: int) -> float:
    """`g_I = sqrt(E[x^2] + Var x) / (sqrt(d) E[x])`, eq. (54): makes `E[I_div] = std(I_EE)`."""
    return sqrt(statistics.square + statistics.variance) / (sqrt(d) * statistics.mean)


def measure_input(x: Tensor, repeats: int, layer: str, group: Any = None) -> InputStatistics:
    """Statistics of `x` `[T, B, ...]`, summed over the processes of `group` in float64.

    Args:
        x: input sequence of one layer; for a static one `[1, B, ...]`, shown `repeats` times.
        layer: its name, for errors.
    Raises: ValueError naming the layer if the input is not finite, negative, zero everywhere, or constant in time and
        over images.
    """
    x = x.detach().double().flatten(0, 1)
    bad = torch.stack([(~x.isfinite()).sum(), (x < 0).sum()]).double()
    totals = torch.cat([x.sum(0).flatten(), bad, x.new_tensor([x.shape[0]])])
    _sum(totals, group)
    *_, not_finite, negative, images = totals[-3:].tolist()
    if not_finite or negative:
        what = f"{not_finite:.0f} values that are not finite" if not_finite else f"{negative:.0f} negative values"
        raise ValueError(f"E-I Init: the input of {layer} has {what}; the circuit takes finite inputs >= 0")
    mean_map = totals[:-3] / images
    deviations = torch.stack([((x - mean_map.view(x.shape[1:])) ** 2).sum(), (x * x).sum()])
    _sum(deviations, group)
    squared_deviation, square = (deviations / mean_map.numel()).tolist()
    n = images * repeats
    mean = float(mean_map.mean())
    variance = squared_deviation * repeats / (n - 1) if n > 1 else 0.0
    if mean == 0:
        raise ValueError(f"E-I Init: the input of {layer} is zero everywhere; give a batch that drives it")
    if not variance > 1e-24 * mean * mean:
        raise ValueError(
            f"E-I Init: the input of {layer} does not vary over the {n:.0f} images and time steps of the first batch "
            f"(every input is constant, mean {mean:.3g}); give a batch of different images"
        )
    return InputStatistics(mean, square / images, variance)


def standard_deviation(i_e: Tensor, group: Any = None) -> float:
    """Of all entries of `I_E`, over the processes of `group`; layer-sequential unit variance (P4) divides by it."""
    wide = i_e.double()
    sums = torch.stack([wide.new_tensor(wide.numel()), wide.sum(), wide.square().sum()])
    _sum(sums, group)
    n, total, squares = sums.tolist()
    return sqrt(max(squares / n - (total / n) ** 2, 1e-24))


def _check_dtype(x: Any, dtype: torch.dtype, layer: str) -> None:
    """Raise TypeError unless the input of a layer has the dtype of its weights, or autocast will give it one."""
    check_floating(x, f"E-I Init: {layer}")
    if x.dtype != dtype and not torch.is_autocast_enabled(x.device.type):
        raise TypeError(
            f"E-I Init: the input of {layer} is {x.dtype}, its weights are {dtype}; give the batch in the dtype of the "
            f"parameters: batch.to({dtype})"
        )


def _sum(values: Tensor, group: Any) -> None:
    if group is not None:
        distributed.all_reduce(values, group=group)


def exponential_weights(shape: torch.Size, scale: float, generator: torch.Generator | None) -> Tensor:
    """Exponential weights of mean `scale`, `[n, ...]`, drawn on the CPU in float64."""
    return torch.empty(shape, dtype=torch.float64).exponential_(generator=generator).mul_(scale)


def fill_circuit_(
    circuit: EICircuit, statistics: InputStatistics, generator: torch.Generator | None = None, group: Any = None
) -> None:
    """Fill one circuit: `W_EE, W_IE ~ Exponential(1/lambda)`, `W_EI = 1/n_I`, `g_I` by (54), `g_E = 1`, `b_E = 0`.
    With `options.balanced` the rows of `W_EE` and `W_IE` are then scaled to the sum `d / lambda`.

    Weights are drawn on the CPU in float64, so that they are the same on any device and in any dtype, and come from
    the first process of `group`. A circuit may have a `draw_weights` of its own.
    """
    d = circuit.fan_in
    scale = weight_scale(statistics, d)
    draw = getattr(circuit, "draw_weights", None) or exponential_weights
    balanced = isinstance(circuit, EILayer | EIReadout) and circuit.options.balanced
    with torch.no_grad():
        for weight in (circuit.weight_ee, circuit.weight_ie):
            drawn = draw(weight.shape, scale, generator)
            weight.copy_(conserve(drawn, d * scale) if balanced else drawn)
            if group is not None:
                distributed.broadcast(weight, group=group, group_src=0)
        circuit.weight_ei.fill_(1 / circuit.n_i)
    if isinstance(circuit, EILayer):  # a readout has neither gains nor bias
        circuit.start_(scale, inhibitory_gain(statistics, d), statistics.mean)
    elif isinstance(circuit, EIReadout) and circuit.options.conserved:
        circuit.balance_()
    circuit.initialized = True


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
    Returns: the input statistics of each circuit that was filled, by name.
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
    circuits = {name or type(m).__name__: m for name, m in model.named_modules() if isinstance(m, EICircuit)}
    todo = {name: m for name, m in circuits.items() if redraw or not m.initialized}
    seen: dict[str, InputStatistics] = {}

    def fill(name: str, circuit: EICircuit, statistics: InputStatistics) -> None:
        fill_circuit_(circuit, statistics, generator, process_group)
        seen[name] = statistics

    def hook(name: str) -> Any:
        def before_forward(circuit: EICircuit, args: Any, kwargs: Any) -> None:
            if name in seen:  # a circuit used twice keeps its first initialisation
                return
            x = args[0] if args else kwargs["x"]
            _check_dtype(x, circuit.weight_ee.dtype, name)
            time_steps = args[1] if len(args) > 1 else kwargs.get("time_steps")
            repeats = time_steps if time_steps is not None and x.shape[0] == 1 else 1
            fill(name, circuit, measure_input(x, repeats, name, process_group))
            if isinstance(circuit, EILayer) and circuit.options.unit_variance:
                circuit.scale_division_(standard_deviation(circuit.integrated(x), process_group))

        return before_forward

    before = {name: ({k: v.clone() for k, v in m.state_dict().items()}, m.initialized) for name, m in todo.items()}
    buffers = [  # batch norms count and average what they see
        (m, dict(m._buffers), {key: b.clone() for key, b in m._buffers.items() if b is not None})
        for m in model.modules()
    ]
    handles = []
    try:
        if firing_probability is not None:
            for name, circuit in todo.items():
                fill(name, circuit, bernoulli_statistics(firing_probability))
        elif todo:
            handles = [m.register_forward_pre_hook(hook(name), with_kwargs=True) for name, m in todo.items()]
            with torch.no_grad():
                model(first_batch)
        unreached = [name for name in todo if name not in seen]
        if unreached:
            raise ValueError(f"E-I Init: the first batch never reached {', '.join(unreached)}")
    except BaseException:
        for name, circuit in todo.items():
            state, circuit.initialized = before[name]
            with torch.no_grad():
                for key, parameter in circuit.named_parameters():
                    parameter.copy_(state[key])
        for module, tensors, values in buffers:
            for key, buffer in tensors.items():
                setattr(module, key, buffer)  # the module may have put another tensor in its place
                if buffer is not None:
                    buffer.copy_(values[key])
        raise
    finally:
        for handle in handles:
            handle.remove()
    return seen
