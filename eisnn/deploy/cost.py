"""What a network costs to run: operations by layer and pathway, state, memory traffic, energy, counted on real input.

Energy is a model, not a measurement. Arithmetic at 45 nm, 32 bits, and reads of a memory that is as large as the layer
needs (Horowitz, ISSCC 2014): a multiply-add 4.6 pJ, an addition 0.9 pJ, a division as 4 multiply-adds (our assumption);
a word of 32 bits out of 8 KB 5 pJ, out of 32 KB 10 pJ, out of 1 MB 50 pJ, beyond that out of DRAM 640 pJ. Nothing is
reused: each synaptic operation reads its weight, and reads and writes the sum it adds to; each update of a neuron reads
and writes its potential. Dense operations are charged the same way.

What all E neurons of a layer share is done once: a pooled divisive current, and where nothing in the divisor is a
neuron's own (no `sigma`, or the same one) the division too, whose result then multiplies the current of each. The
constant part of the divisor is an addition, once for each divisor.
"""

from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from eisnn import ops
from eisnn.nn import Pathway, SpikingLayer, layers_of

MAC, AC = 4.6, 0.9  # pJ
DIVISION = 4 * MAC
WORD = ((8 << 10, 5.0), (32 << 10, 10.0), (1 << 20, 50.0))  # bytes of a memory, pJ for a word of 32 bits out of it
DRAM = 640.0
BYTES = 4  # of a weight, a potential, a sum


@dataclass(frozen=True)
class PathwayCost:
    """Of one pathway of one layer, or of a product of activities, which has no synapses.

    Args:
        layer: its name.
        pathway: such as "E->I", or "K^T V".
        synapses: weights, each counted once.
        zeros: how many of them are 0.
        dense: multiply-adds an image over all time steps; where a kernel reaches beyond the map there are none.
        effective: those of them where neither source nor weight is 0, the ones an event-driven machine does.
        accumulates: all sources are 0 or 1: each operation is an addition.
    """

    layer: str
    pathway: str
    synapses: int
    zeros: int
    dense: float
    effective: float
    accumulates: bool

    def memory_accesses(self, effective: bool) -> float:
        """Words read and written."""
        return 3 * (self.effective if effective else self.dense)


@dataclass(frozen=True)
class LayerCost:
    """Of one layer, an image over all time steps.

    Args:
        layer: its name.
        pathways: its projections.
        neurons: how many; 0 of a readout.
        updates: of membranes.
        divisions: of currents, or of 1 by a divisor that all E neurons at a position share.
        scalings: multiply-adds of gains and biases, and multiplications by what was divided for all.
        outputs, spikes: values that it gives, and how many of them are not 0.
        parameters: numbers that it holds.
    """

    layer: str
    pathways: tuple[PathwayCost, ...]
    neurons: int
    updates: float
    divisions: float
    scalings: float
    outputs: float
    spikes: float
    parameters: int

    @property
    def parameter_bytes(self) -> int:
        """In float32."""
        return BYTES * self.parameters

    @property
    def state_bytes(self) -> int:
        """Of the potentials, in float32."""
        return BYTES * self.neurons

    def operations(self, effective: bool) -> tuple[float, float]:
        """Multiply-adds and additions: of synapses, of gains, of decay, and of resets."""
        synaptic = [(p.effective if effective else p.dense, p.accumulates and effective) for p in self.pathways]
        macs = sum(count for count, adds in synaptic if not adds) + self.scalings + self.updates
        return macs, sum(count for count, adds in synaptic if adds) + (self.spikes if effective else self.updates)

    def memory_accesses(self, effective: bool) -> float:
        """Words read and written, by pathways and of potentials."""
        return sum(p.memory_accesses(effective) for p in self.pathways) + self.potential_accesses

    @property
    def potential_accesses(self) -> float:
        """Words of potentials read and written."""
        return 2 * self.updates

    def energy(self, effective: bool) -> tuple[float, float]:
        """pJ of arithmetic and of memory, by the model above."""
        macs, acs = self.operations(effective)
        word = next((pj for size, pj in WORD if self.parameter_bytes + self.state_bytes <= size), DRAM)
        return MAC * macs + AC * acs + DIVISION * self.divisions, word * self.memory_accesses(effective)


@dataclass(frozen=True)
class Cost:
    """Of a network: its layers, in the order in which they run."""

    layers: tuple[LayerCost, ...]

    @property
    def pathways(self) -> list[PathwayCost]:
        """Of all layers."""
        return [pathway for layer in self.layers for pathway in layer.pathways]

    def operations(self) -> dict[str, dict[str, tuple[float, float]]]:
        """By layer and pathway, dense and effective synaptic operations."""
        return {layer.layer: {p.pathway: (p.dense, p.effective) for p in layer.pathways} for layer in self.layers}

    def neurobench(self) -> dict[str, Any]:
        """The totals under the names of NeuroBench: an image over all time steps; bytes of float32."""
        synapses, hidden = sum(p.synapses for p in self.pathways), [layer for layer in self.layers if layer.neurons]
        effective = [(p.effective, p.accumulates) for p in self.pathways]
        return {
            "footprint": sum(layer.parameter_bytes + layer.state_bytes for layer in self.layers),
            "connection_sparsity": sum(p.zeros for p in self.pathways) / max(synapses, 1),
            "activation_sparsity": 1 - sum(s.spikes for s in hidden) / max(sum(s.outputs for s in hidden), 1),
            "synaptic_operations": {
                "Effective_MACs": sum(count for count, adds in effective if not adds),
                "Effective_ACs": sum(count for count, adds in effective if adds),
                "Dense": sum(p.dense for p in self.pathways),
            },
            "membrane_updates": sum(layer.updates for layer in self.layers),
            "neuron_operations": {
                "divisions": sum(layer.divisions for layer in self.layers),
                "MACs": sum(layer.scalings + layer.updates for layer in self.layers),
                "ACs": sum(layer.spikes for layer in hidden),
            },
        }

    def memory_accesses(self, effective: bool) -> float:
        """Words read and written."""
        return sum(layer.memory_accesses(effective) for layer in self.layers)

    def energy(self, effective: bool) -> tuple[float, float]:
        """pJ of arithmetic and of memory, by the model above."""
        each = [layer.energy(effective) for layer in self.layers]
        return sum(a for a, _ in each), sum(m for _, m in each)

    def json(self) -> dict[str, Any]:
        """All of it: NeuroBench's totals, each layer and pathway, memory, and energy in pJ by the stated model."""
        kinds = {"dense": False, "effective": True}

        def accesses(of: "Cost | LayerCost | PathwayCost") -> dict[str, float]:
            return {kind: of.memory_accesses(effective) for kind, effective in kinds.items()}

        def energy(of: "Cost | LayerCost") -> dict[str, dict[str, float]]:
            parts = {kind: of.energy(effective) for kind, effective in kinds.items()}
            return {kind: {"arithmetic": a, "memory": m} for kind, (a, m) in parts.items()}

        rows = [
            {
                "layer": layer.layer,
                "neurons": layer.neurons,
                "membrane_updates": layer.updates,
                "divisions": layer.divisions,
                "firing_rate": layer.spikes / layer.outputs if layer.neurons else None,
                "parameter_bytes": layer.parameter_bytes,
                "state_bytes": layer.state_bytes,
                "memory_accesses": accesses(layer),
                "pathways": [asdict(p) | {"memory_accesses": accesses(p)} for p in layer.pathways],
                "energy_pJ": energy(layer),
            }
            for layer in self.layers
        ]
        return self.neurobench() | {"memory_accesses": accesses(self), "energy_pJ": energy(self), "layers": rows}

    def table(self) -> str:
        """As Markdown: thousands of operations an image, of words that effective ones and updates read and write, and
        nJ."""

        def row(*cells: str | float) -> str:
            return f"| {' | '.join(c if isinstance(c, str) else f'{c / 1e3:,.1f}' for c in cells)} |"

        of_pathways = "layer", "pathway", "synapses, k", "dense, k", "effective, k", "kind", "accesses, k"
        of_layers = "divisions, k", "updates, k", "accesses of potentials, k", "state, kB", "rate, %", "nJ"
        names = *of_pathways, *of_layers
        lines = [row(*names), "|" + "---|" * len(names)]
        for layer in self.layers:
            rate = f"{100 * layer.spikes / layer.outputs:.1f}" if layer.neurons else ""
            potentials = layer.potential_accesses, layer.state_bytes
            own: tuple[str | float, ...] = layer.divisions, layer.updates, *potentials, rate, sum(layer.energy(True))
            for p in layer.pathways:
                counts = p.synapses, p.dense, p.effective, "AC" if p.accumulates else "MAC", p.memory_accesses(True)
                lines.append(row(layer.layer, p.pathway, *counts, *own))
                own = ("",) * len(own)
        sums = [sum(getattr(p, name) for p in self.pathways) for name in ("synapses", "dense", "effective")]
        accesses = sum(p.memory_accesses(True) for p in self.pathways)
        ends = "divisions", "updates", "potential_accesses", "state_bytes"
        own_sums = [sum(getattr(layer, name) for layer in self.layers) for name in ends]
        return "\n".join([*lines, row("all", "", *sums, "", accesses, *own_sums, "", sum(self.energy(True)))])


@torch.no_grad()
def cost(model: nn.Module, batch: Tensor) -> Cost:
    """Count what `model` does on `batch`, by brute force: each connection is run on ones.

    What is computed once for a static input counts once.

    Args:
        model: any module with spiking layers, initialised; folded or not.
        batch: what `model(batch)` takes; rates and effective operations are those on it.
    """
    found: list[LayerCost] = []

    def hook(name: str) -> Any:
        def count(layer: SpikingLayer, args: Any, kwargs: Any, out: Any) -> None:
            x = args[0] if args else kwargs["x"]
            found.append(_layer(name, layer, x, out[0] if isinstance(out, tuple) else out))

        return count

    modes = {module: module.training for module in model.modules()}
    try:
        with ExitStack() as hooks:
            for name, layer in layers_of(model).items():
                hooks.enter_context(layer.register_forward_hook(hook(name), with_kwargs=True))
            model.eval()(batch)
    finally:
        for module, training in modes.items():
            module.training = training
    return Cost(tuple(found))


def _layer(name: str, layer: SpikingLayer, x: Tensor, out: Tensor) -> LayerCost:
    batch, fires = x.shape[1], layer.neuron is not None
    paths, interneurons = _once(layer), _interneurons(layer, x, out)
    neurons = sum(population[0, 0].numel() for population in (out, *interneurons.values())) if fires else 0
    sources = {"E": out, **interneurons}
    if not interneurons and (inhibitory := _inhibitory(paths, x, out.shape[2])) is not None:
        sources |= {"I": inhibitory, "tonic": torch.ones_like(inhibitory[:, :, :1], dtype=x.dtype)}
    steps = len(out) if interneurons else len(x)  # what has no dynamics of its own is computed once for a static input
    products = (PathwayCost(name, p.name, 0, 0, p.dense / batch, p.effective / batch, True) for p in layer.products(x))
    divided, divisors = 0, 0
    if "I_div" in layer.quantities():
        of_divisors = [len(p.weight) for p in paths if p.name.endswith("divisive")]
        divided = out[0, 0].numel() * steps
        divisors = max(of_divisors, default=1 if _lateral(layer.pathways()) else out.shape[2])
    own = divisors == out.shape[2]  # each E neuron divides by itself
    return LayerCost(
        name,
        (*(_pathway(name, pathway, x, sources) for pathway in paths), *products),
        neurons,
        updates=float(neurons * len(out)),
        divisions=float(divided * divisors // out.shape[2]),
        scalings=float(divided if own else 2 * divided),
        outputs=out.numel() / batch,
        spikes=float((out != 0).sum()) / batch,
        parameters=sum(t.numel() for t in (*layer.parameters(), *layer.buffers())),
    )


def _lateral(paths: list[Pathway]) -> list[Pathway]:
    return [p for p in paths if p.connection is None]


def _once(layer: SpikingLayer) -> list[Pathway]:
    """The pathways of `layer`, but for what is no operation or done once: the pooled current of a folded circuit
    divides as the kernel gives it; the constant part of the divisor is a pathway from "tonic", of one row if all E
    neurons share the divisor."""
    tonic, constant = getattr(layer, "tonic", False), getattr(layer.synapses(), "sigma", None)
    found, shared = [], False
    for name, weight, connection in layer.pathways():
        if tonic and connection is not None:
            weight = weight[:-1]  # its row is 0
        elif tonic:
            weight, constant = weight[:, :-1], weight[:, -1]
        pooled = connection is None and weight.shape[1] == 1 and bool((weight == 1).all())
        shared = shared or pooled or (name.endswith("divisive") and len(weight) == 1)
        if not pooled:
            found.append(Pathway(name, weight, connection))
    if constant is not None and bool((constant != 0).any()):
        shared = shared and bool((constant == constant[0]).all())
        found.append(Pathway("tonic->E, divisive", constant[: 1 if shared else None, None], None))
    return found


def _interneurons(layer: SpikingLayer, x: Tensor, out: Tensor) -> dict[str, Tensor]:
    """Output of each kind of interneuron with dynamics of its own, `[T, B, n, ...]`: the quantities `s_...` of a
    layer."""
    kinds = [name for name in layer.quantities() if name.startswith("s_")]
    measured = layer.measure(x, out) if kinds else {}
    return {name.removeprefix("s_"): measured[name] for name in kinds}


def _inhibitory(paths: list[Pathway], x: Tensor, n_e: int) -> Tensor | None:
    """Which I neurons are active `[T or 1, B, n_I, ...]`, the sources of lateral pathways; None without any."""
    connection = paths[0].connection if _lateral(paths) else None
    if connection is None:
        return None
    onto = next((p.weight for p in paths[1:] if p.name == "E->I"), paths[0].weight[n_e:])
    return _run(connection, x, onto) != 0


def _pathway(layer: str, pathway: Pathway, x: Tensor, sources: dict[str, Tensor]) -> PathwayCost:
    """Of one pathway; `sources` are the populations of the layer, for those between them."""
    weight, batch, connection = pathway.weight, x.shape[1], pathway.connection
    connected = (weight != 0).to(x)
    if connection is not None:
        dense = float(_run(connection, torch.ones_like(x), torch.ones_like(weight[:1])).double().sum()) * len(weight)
        fan_out = connected.sum(0, keepdim=True)  # of each input to all neurons: one channel instead of all of them
        effective = float(_run(connection, (x != 0).to(x), fan_out).double().sum())
        adds = bool(((x == 0) | (x == 1)).all())
    else:
        values = sources[pathway.name.split("->")[0]]
        source, adds = values != 0, values.dtype.is_floating_point and bool(((values == 0) | (values == 1)).all())
        dense = float(source.numel() // source.shape[2] * weight.numel())
        by_source = source.double().sum(tuple(a for a in range(source.ndim) if a != 2))
        fan_outs = connected.double().transpose(0, 1).flatten(1).sum(1)  # through all taps of a kernel
        effective = float((by_source * fan_outs).sum())
    zeros = weight.numel() - int(connected.sum())
    return PathwayCost(layer, pathway.name, weight.numel(), zeros, dense / batch, effective / batch, adds)


def _run(connection: ops.Connection, x: Tensor, weight: Tensor) -> Tensor:
    return connection.feedforward(x, weight.detach())
