"""What `eisnn explore` computes: the response of a network to one setting of its controls."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

from eisnn.analysis import Perturbation, perturb, record, spiking_layers
from eisnn.analysis.stimuli import add_noise, scale_contrast
from eisnn.cortex.layer import CorticalLayer
from eisnn.cortex.stimulation import stimulate
from eisnn.functional.checks import chosen_neurons
from eisnn.functional.cortex import Stimulus

BINS, NEURONS = 60, 500  # of a histogram; whose currents it counts in each layer
SHOWN, RASTER = 8, 60  # images that are looked at one by one; neurons whose spikes are drawn


@dataclass(frozen=True)
class Setting:
    """What is changed; the default is the network and the images as they are.

    Args:
        subtractive, divisive: factors on the two effects of inhibition, >= 0.
        silenced: part of the I neurons of each layer that is silent, in [0, 1].
        contrast: of the images, relative to their own, in [0, 1].
        noise: standard deviation of Gaussian noise on the pixels, whose range is 0 to 1.
        layer: the one whose inhibition changes; None is every layer.
        neurons: I neurons of `layer` that are silent besides, by index.
        silent_e: E neurons (channels) of `layer` that are silent, by index: none of their spikes leaves the layer.
        cells: factors on the output of cells of cortical layers, by kind ("PV", "SST", "VIP"), >= 0.
    """

    subtractive: float = 1.0
    divisive: float = 1.0
    silenced: float = 0.0
    contrast: float = 1.0
    noise: float = 0.0
    layer: str | None = None
    neurons: tuple[int, ...] = ()
    silent_e: tuple[int, ...] = ()
    cells: Mapping[str, float] = field(default_factory=dict)

    @property
    def perturbation(self) -> Perturbation:
        """What happens to the circuits."""
        return Perturbation(activity=0.0, fraction=self.silenced, subtractive=self.subtractive, divisive=self.divisive)


@dataclass(frozen=True)
class Response:
    """What a network does at a setting.

    Attributes:
        accuracy: %.
        rates: spikes a neuron and time step, by layer.
        currents: part of the values of `I_E` in each bin between `Laboratory.edges`, by layer; what lies beyond is
            counted in the outermost bins.
        seen: images `Laboratory.shown` as the network sees them, `[SHOWN, C, H, W]`, or frames `[T, SHOWN, 2, H, W]`.
        answers: the class that it takes each of them for, `[SHOWN]`.
        spikes: of sampled neurons for them, `[T, SHOWN, RASTER]` by layer, 0 or 1.
    """

    accuracy: float
    rates: dict[str, float]
    currents: dict[str, list[float]]
    seen: Tensor = field(compare=False)
    answers: Tensor = field(compare=False)
    spikes: dict[str, Tensor] = field(compare=False)


class Laboratory:
    """A network, a batch of images, and the experiments that controls stand for.

    Args:
        model: trained, in evaluation mode.
        images: `[N, C, H, W]` in [0, 1], or frames `[T, N, 2, H, W]`.
        labels: `[N]`.
    Attributes:
        layers: names of its hidden layers.
        inhibited: number of I neurons by layer, of layers whose circuit can be perturbed.
        cells: kinds of interneurons of its cortical layers.
        shown: which images are looked at one by one, evenly chosen, `[SHOWN]`.
        labels: of those, `[SHOWN]`.
        edges: `[BINS + 1]` by layer, in units of the threshold: the range of `I_E` of the intact network, and a margin.
        intact: the response to the default setting.
    """

    def __init__(self, model: nn.Module, images: Tensor, labels: Tensor) -> None:
        self._model, self._images, self._labels = model, images, labels
        self.shown = torch.linspace(0, len(labels) - 1, min(SHOWN, len(labels))).round().long()
        self.labels = labels[self.shown]
        self._lock = Lock()  # a perturbation changes the model while it lasts
        found = spiking_layers(model)
        self.layers = list(found)
        circuits = {name: layer for name, layer in found.items() if layer.synapses() is not None}
        self.inhibited = {name: layer.populations()["I"] for name, layer in circuits.items()}
        self._excited = {name: layer.populations()["E"] for name, layer in circuits.items()}
        kinds = {name: layer.populations() for name, layer in found.items() if isinstance(layer, CorticalLayer)}
        self._cells = {name: [kind for kind in has if kind != "E"] for name, has in kinds.items()}
        self.cells = list(dict.fromkeys(kind for has in self._cells.values() for kind in has))
        self.edges = {name: _edges(values["I_E"]) for name, values in self._run(images)[1].items()}
        self.intact = self.respond(Setting())

    def respond(self, setting: Setting) -> Response:
        """The response to a setting; two requests at a time wait for each other.

        Raises: UndefinedDivision where nothing divides any more and the circuit has no semisaturation; ValueError for
            neurons that `layer` has not.
        """
        images = scale_contrast(self._images, setting.contrast)
        images = add_noise(images, setting.noise)  # the same noise in every request
        with self._lock, ExitStack() as changed:
            self._change(setting, changed)
            logits, recorded = self._run(images)
        correct = (logits.argmax(-1) == self._labels).float().mean()
        return Response(
            accuracy=100 * float(correct),
            rates={name: float(values["spikes"].mean()) for name, values in recorded.items()},
            currents={name: _counts(values["I_E"], self.edges[name]) for name, values in recorded.items()},
            seen=images.index_select(-4, self.shown),
            answers=logits.argmax(-1)[self.shown],
            spikes={name: values["spikes"][:, self.shown, :RASTER] for name, values in recorded.items()},
        )

    def _change(self, setting: Setting, changed: ExitStack) -> None:
        """Perturb the model until `changed` is closed."""
        if self.inhibited and setting.perturbation != Setting().perturbation:
            changed.enter_context(perturb(self._model, setting.perturbation, setting.layer))
        if setting.layer is None and (setting.neurons or setting.silent_e):
            raise ValueError("neurons are those of one layer: choose it under 'Inhibition changes in'")
        if setting.neurons and setting.layer is not None:
            lesion = Perturbation(activity=0.0, neurons={setting.layer: setting.neurons})
            changed.enter_context(perturb(self._model, lesion, setting.layer))
        if setting.silent_e and setting.layer is not None:
            count = self._excited[setting.layer]
            silent = chosen_neurons(setting.layer, setting.silent_e, count, "E neurons (channels)")
            watched = spiking_layers(self._model)[setting.layer].watched  # that of the perturbed layer, if it is
            changed.callback(watched.register_forward_hook(_silencer(silent)).remove)
        if setting.cells:
            for name, has in self._cells.items():
                acting = {kind: Stimulus(factor) for kind, factor in setting.cells.items() if kind in has}
                changed.enter_context(stimulate(self._model, {name: acting}))

    @torch.no_grad()
    def _run(self, images: Tensor) -> tuple[Tensor, dict[str, dict[str, Tensor]]]:
        with record(self._model, what=["I_E", "spikes"], neurons=NEURONS) as recorded:
            logits = self._model(images)
        return logits, dict(recorded)


def _silencer(silent: Tensor) -> Callable[[nn.Module, Any, Any], Any]:
    """A hook that takes the spikes `[T, B, n_E, ...]` of the neurons (channels) of a mask `[n_E]` away."""

    def hook(layer: nn.Module, args: Any, output: Any) -> Any:
        spikes: Tensor = output[0] if isinstance(output, tuple) else output
        kept = spikes.movedim(2, -1).masked_fill(silent.to(spikes.device), 0).movedim(-1, 2)
        return (kept, *output[1:]) if isinstance(output, tuple) else kept

    return hook


def indices(text: str | None) -> tuple[int, ...]:
    """Neurons as they are typed: "3", "0, 2, 5-8"; nothing is none.

    Raises: ValueError for anything else.
    """
    found: set[int] = set()
    for part in (text or "").replace(" ", ",").split(","):
        first, _, last = part.partition("-")
        if not part:
            continue
        if not first.isdecimal() or not (last or first).isdecimal() or part.endswith("-"):
            raise ValueError(f"neurons are given as 3 or 0, 2, 5-8; got {text!r}")
        found.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(found))


def _edges(values: Tensor) -> Tensor:
    """Bins over the middle 99 % of the values, with a quarter of their range on each side, and the threshold 1."""
    flat = values.flatten().double()
    low, high = (float(flat.kthvalue(max(1, round(p * flat.numel()))).values) for p in (0.005, 0.995))
    margin = 0.25 * max(high - low, 0.1)
    return torch.linspace(min(low - margin, 0), max(high + margin, 1.5), BINS + 1, dtype=torch.float64)


def _counts(values: Tensor, edges: Tensor) -> list[float]:
    inside = values.flatten().double().clamp(float(edges[0]), float(edges[-1]))
    counts = torch.histogram(inside, edges).hist
    return (counts / counts.sum()).tolist()
