"""Record what happens inside a network while it runs: currents, potentials, spikes and gradients of each layer.

Hooks do it: layers know nothing of it, what a model returns is untouched, and nothing is left behind.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from eisnn.analysis.layers import available, choose_layers, current_gradient, membrane, names_of
from eisnn.functional.checks import check_int
from eisnn.nn import LIF, SpikingLayer


class Recording(Mapping[str, dict[str, Tensor]]):
    """What was recorded: `recording[layer][quantity]`, on the model's device; several passes are joined along B.

    Attributes:
        neurons: by layer, which neurons were sampled, `[k]`: indices into the flattened `n_E * H * W` of its map.
            Empty where all were kept.
    """

    def __init__(self, layers: Iterable[str]) -> None:
        self._parts: dict[str, dict[str, dict[int, Tensor]]] = {name: {} for name in layers}
        self.neurons: dict[str, Tensor] = {}

    @classmethod
    def of(cls, values: Mapping[str, Mapping[str, Tensor]], neurons: Mapping[str, Tensor]) -> "Recording":
        """A recording of these values, as it was read from a file."""
        made = cls(values)
        made.neurons.update(neurons)
        for layer, quantities in values.items():
            for quantity, tensor in quantities.items():
                made.add(layer, quantity, 0, tensor)
        return made

    def add(self, layer: str, quantity: str, turn: int, values: Tensor) -> None:
        """Keep `values` of a pass; passes are joined in the order of `turn`, whenever their values come."""
        self._parts[layer].setdefault(quantity, {})[turn] = values

    def __getitem__(self, layer: str) -> dict[str, Tensor]:
        if not self._parts[layer]:
            raise ValueError(
                f"nothing was recorded of {layer or 'this layer'}: no pass inside the `with` block reached it "
                "(gradients come with a backward pass of that)"
            )
        return {quantity: self._joined(layer, quantity) for quantity in self._parts[layer]}

    def _joined(self, layer: str, quantity: str) -> Tensor:
        turns = self._parts[layer][quantity]
        values = [turns[k] for k in sorted(turns)]
        if len({(len(v), *v.shape[2:]) for v in values}) > 1:
            shapes = ", ".join(str(list(v.shape)) for v in values)
            raise ValueError(f"passes of {layer} with different steps or maps cannot be joined along B: {shapes}")
        return torch.cat(values, 1)

    def __repr__(self) -> str:
        shown = ", ".join(f"{layer}: {'/'.join(self._parts[layer]) or 'nothing yet'}" for layer in self)
        return f"Recording({shown})"

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


class RunningStatistics:
    """Count, mean, variance, smallest and largest value of each neuron over all steps and images, in one map each."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = self.minimum = self.maximum = torch.tensor(0.0)
        self._squares = torch.tensor(0.0)

    def update(self, values: Tensor) -> None:
        """Take in `values` `[T, B, n_E, ...]`, by the pairwise rule of Chan, Golub and LeVeque (1983)."""
        rows = values.flatten(0, 1).to(torch.promote_types(values.dtype, torch.float32))
        strided = rows.ndim == 4 and not rows.is_contiguous()  # channels last: many times faster along the memory
        rows = rows.movedim(1, -1) if strided else rows
        new, mean = len(rows), rows.mean(0)
        measured = mean, (rows - mean).square().sum(0), rows.amin(0), rows.amax(0)
        mean, squares, smallest, largest = (m.movedim(-1, 0) if strided else m for m in measured)
        if self.count == 0:
            self.count, self.mean, self._squares, self.minimum, self.maximum = new, mean, squares, smallest, largest
            return
        total, apart = self.count + new, mean - self.mean
        self.mean = self.mean + apart * (new / total)
        self._squares = self._squares + squares + apart.square() * (self.count * new / total)
        self.minimum, self.maximum = self.minimum.minimum(smallest), self.maximum.maximum(largest)
        self.count = total

    @property
    def variance(self) -> Tensor:
        """Unbiased variance over steps and images; NaN for a single value."""
        return self._squares / (self.count - 1) if self.count > 1 else torch.full_like(self._squares, torch.nan)


@contextmanager
def record(
    model: nn.Module,
    layers: str | Iterable[str] | None = None,
    what: str | Iterable[str] | None = None,
    *,
    neurons: int | None = None,
    images: int | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[Recording]:
    """Collect currents, potentials, spikes or gradients of hidden layers from every pass inside the `with` block.

    What the model returns, and its gradients, stay as they are. Passes of another T or image size are recorded by
    themselves. To record a perturbed network, perturb it first: `with perturb(model, change), record(model) as r:`.

    Args:
        model: any module that holds E-I layers (folded and perturbed ones included) or those they are compared with.
        layers: one name or several, as in `model.named_modules()`; None takes every hidden layer.
        what: one or several of
            `I_EE` (feedforward excitation), `I_sub` and `I_div` (subtractive and divisive inhibition), eqs. (9)-(13);
            `I_E` (integrated current, in units of the threshold), eq. (14); in a layer without a circuit the current
            that its neurons integrate, of batch norm the normalized one;
            of cortical layers also `I_rec` (from E cells of the layer), the parts `I_sub_PV`, `I_sub_SST` and
            `I_div_PV`, `s_PV`, `s_SST`, `s_VIP` (the output of interneurons) and `top_down` (onto VIP cells), so that
            `I_E = g_E (I_EE + I_rec - I_sub_PV - I_sub_SST) / (sigma + I_div_PV) + b_E`, and what is injected;
            `undivided` (1 where nothing divides a current, `I_div = 0` and `I_EE != I_sub`, so that `I_E` is what
            adaptive stabilisation makes of it, else 0: lesions and clamped weights bring it about);
            `membrane` (the potential `H[t]` that meets the threshold, eq. (2)); `spikes` (0 or 1; `s_E`);
            `gradient` (`dL/dI_E` at each step, by the surrogate; it comes with the backward pass, and leaves out a loss
            that hangs on a returned state).
            None takes the currents that each layer has.
        neurons: keep so many neurons of each layer, drawn at random and the same in every pass; None keeps all. Of
            interneurons all are kept.
        images: keep the first so many images; None keeps all.
        generator: of the draw, on the CPU; None draws with seed 0.
    Yields: a `Recording`; its tensors are `[T or 1, B, n_E, ...]`, `[T or 1, B, k]` with `neurons=k`. Currents of a
        static input have one time step, as they are the same at each.
    Raises: ValueError for a name that does not exist, a quantity that a layer does not have, or limits below 1.
    """
    for name, limit in [("neurons", neurons), ("images", images)]:
        if limit is not None:
            check_int("record", name, limit)
    recording = Recording(choose_layers(model, layers))
    drawn = torch.Generator().manual_seed(0) if generator is None else generator
    counts: dict[str, int] = {}

    def sample(layer: str, values: Tensor, before: int, of_e: bool = True) -> Tensor | None:
        if images is not None:
            values = values[:, : max(images - before, 0)]
        if values.shape[1] == 0:
            return None
        if neurons is None or not of_e:
            return values.clone()
        flat = values.flatten(2)
        if layer not in recording.neurons:
            counts[layer] = flat.shape[2]
            chosen = torch.randperm(flat.shape[2], generator=drawn)[:neurons].sort().values
            recording.neurons[layer] = chosen.to(values.device)
        if flat.shape[2] != counts[layer]:
            raise ValueError(
                f"{layer} has {flat.shape[2]} neurons in this pass and had {counts[layer]} in the first, of which some "
                "were drawn; record images of another size by themselves"
            )
        return flat[:, :, recording.neurons[layer]]

    with _observed(model, layers, what, recording.add, sample):
        yield recording


@contextmanager
def running_statistics(
    model: nn.Module, layers: str | Iterable[str] | None = None, what: str | Iterable[str] | None = None
) -> Iterator[dict[str, dict[str, RunningStatistics]]]:
    """Mean, variance and range of each neuron over every pass inside the `with` block, in memory that does not grow.

    Args: `model`, `layers`, `what` as in `record`.
    Yields: `{layer: {quantity: RunningStatistics}}`, each a few maps `[n_E, ...]`.
    Raises: as `record`.
    """
    found: dict[str, dict[str, RunningStatistics]] = {name: {} for name in choose_layers(model, layers)}

    def add(layer: str, quantity: str, turn: int, values: Tensor) -> None:
        found[layer].setdefault(quantity, RunningStatistics()).update(values)

    with _observed(model, layers, what, add, lambda layer, values, *_: values):
        yield found


class _Add(Protocol):
    def __call__(self, layer: str, quantity: str, turn: int, values: Tensor, /) -> None: ...


class _Sample(Protocol):
    def __call__(self, layer: str, values: Tensor, before: int, of_e: bool = True, /) -> Tensor | None: ...


@contextmanager
def _observed(
    model: nn.Module, layers: str | Iterable[str] | None, what: str | Iterable[str] | None, add: _Add, sample: _Sample
) -> Iterator[None]:
    """Inside the block every pass hands what was asked for to `add`, after `sample` has chosen from it."""
    chosen = choose_layers(model, layers)
    wanted = _wanted(chosen, what)
    owners: dict[nn.Module, str] = {}
    observers: list[_Observer] = []
    for name, layer in chosen.items():
        if (other := owners.setdefault(layer.watched, name)) != name:
            raise ValueError(
                f"{other} and {name} share one neuron, so their currents cannot be told apart: give each a copy"
            )
    with ExitStack() as hooks:
        for name, layer in chosen.items():
            observer = _Observer(name, layer, wanted[name], add, sample)
            hooks.enter_context(observer.watched.register_forward_hook(observer.see, with_kwargs=True))
            observers.append(observer)
        yield
    if chosen and not any(observer.turn for observer in observers):
        raise RuntimeError(
            f"nothing was recorded: no hidden layer of this {type(model).__name__} ran inside the `with` block; call "
            "the model in there (itself, not a copy of it or what torch.compile made of it)"
        )


def is_recorded(layer: nn.Module) -> bool:
    """Whether a recorder watches this layer."""
    return any(isinstance(getattr(hook, "__self__", None), _Observer) for hook in layer._forward_hooks.values())


def _wanted(layers: Mapping[str, SpikingLayer], what: str | Iterable[str] | None) -> dict[str, list[str]]:
    """What to record of each layer."""
    if what is None:
        return {name: [q for q in available(layer) if q.startswith("I_")] for name, layer in layers.items()}
    asked = names_of(what)
    for name, layer in layers.items():
        if missing := [quantity for quantity in asked if quantity not in available(layer)]:
            raise ValueError(
                f"{name or 'this layer'}, a {type(layer).__name__}, has no {', '.join(missing)}; it has: "
                f"{', '.join(available(layer))}"
            )
    return dict.fromkeys(layers, asked)


class _Observer:
    """The hook of one layer, on the module that the layer says shows its activity (`SpikingLayer.watched`)."""

    def __init__(self, name: str, layer: SpikingLayer, wanted: list[str], add: _Add, sample: _Sample) -> None:
        self.name, self.layer, self.wanted, self.add, self.sample = name, layer, wanted, add, sample
        self.turn = self.images = 0
        self.watched = layer.watched

    def see(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        x = args[0] if args else kwargs["x"]
        state = args[2] if len(args) > 2 else kwargs.get("state")
        out: Tensor = output[0] if isinstance(output, tuple) else output
        before, turn = self.images, self.turn
        self.images, self.turn = before + x.shape[1], turn + 1
        values = {"spikes": out.detach()}
        if set(self.wanted) - {"spikes"}:
            values |= self.layer.measure(x, out)
        kept = {
            key: self.sample(self.name, values[key], before, values[key].shape[2:] == out.shape[2:])
            for key in values
            if key in {*self.wanted, "I_E"}
        }
        i_e, neuron, potentials = kept.get("I_E"), self.layer.neuron, None
        if i_e is not None and isinstance(neuron, LIF) and {"membrane", "gradient"} & set(self.wanted):
            v = None if state is None else self.sample(self.name, self.layer.potential(state)[None], before)
            potentials = membrane(i_e, neuron, out.shape[0], None if v is None else v[0])
            kept["membrane"] = potentials
        for quantity in self.wanted:
            if (value := kept.get(quantity)) is not None:
                self.add(self.name, quantity, turn, value)
        if "gradient" in self.wanted and out.requires_grad and i_e is not None:
            out.register_hook(lambda grad: self._gradient(grad, potentials, before, turn))

    def _gradient(self, grad: Tensor, potentials: Tensor | None, before: int, turn: int) -> None:
        kept = self.sample(self.name, grad, before)
        assert kept is not None
        if potentials is not None:
            assert isinstance(self.layer.neuron, LIF)
            kept = current_gradient(potentials, kept, self.layer.neuron)
        self.add(self.name, "gradient", turn, kept)
