"""What `eisnn explore` computes: the response of a network to one setting of its sliders."""

from dataclasses import dataclass
from threading import Lock

import torch
from torch import Tensor, nn

from eisnn.analysis import Perturbation, perturb, record, spiking_layers
from eisnn.analysis.stimuli import add_noise, scale_contrast

BINS, NEURONS = 60, 500  # of a histogram; whose currents it counts in each layer


@dataclass(frozen=True)
class Setting:
    """Where the sliders stand; the default is the network and the images as they are.

    Args:
        subtractive, divisive: factors on the two effects of inhibition, >= 0.
        silenced: part of the I neurons of each layer that is silent, in [0, 1].
        contrast: of the images, relative to their own, in [0, 1].
        noise: standard deviation of Gaussian noise on the pixels, whose range is 0 to 1.
    """

    subtractive: float = 1.0
    divisive: float = 1.0
    silenced: float = 0.0
    contrast: float = 1.0
    noise: float = 0.0

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
    """

    accuracy: float
    rates: dict[str, float]
    currents: dict[str, list[float]]


class Laboratory:
    """A network, a batch of images, and the experiments that sliders stand for.

    Args:
        model: trained, in evaluation mode.
        images: `[N, C, H, W]` in [0, 1], or frames `[T, N, 2, H, W]`.
        labels: `[N]`.
    Attributes:
        layers: names of its hidden layers.
        has_inhibition: whether there are circuits to perturb.
        edges: `[BINS + 1]` by layer, in units of the threshold: the range of `I_E` of the intact network, and a margin.
        intact: the response to the default setting.
    """

    def __init__(self, model: nn.Module, images: Tensor, labels: Tensor) -> None:
        self._model, self._images, self._labels = model, images, labels
        self._lock = Lock()  # a perturbation changes the model while it lasts
        found = spiking_layers(model)
        self.layers = list(found)
        self.has_inhibition = any(layer.synapses() is not None for layer in found.values())
        self.edges = {name: _edges(values["I_E"]) for name, values in self._run(images)[1].items()}
        self.intact = self.respond(Setting())

    def respond(self, setting: Setting) -> Response:
        """The response to a setting; two requests at a time wait for each other.

        Raises: UndefinedDivision where nothing divides any more and the circuit has no semisaturation.
        """
        images = scale_contrast(self._images, setting.contrast)
        images = add_noise(images, setting.noise)  # the same noise in every request
        with self._lock:
            if self.has_inhibition and setting.perturbation != Setting().perturbation:
                with perturb(self._model, setting.perturbation):
                    logits, recorded = self._run(images)
            else:
                logits, recorded = self._run(images)
        correct = (logits.argmax(-1) == self._labels).float().mean()
        rates = {name: float(values["spikes"].mean()) for name, values in recorded.items()}
        currents = {name: _counts(values["I_E"], self.edges[name]) for name, values in recorded.items()}
        return Response(100 * float(correct), rates, currents)

    @torch.no_grad()
    def _run(self, images: Tensor) -> tuple[Tensor, dict[str, dict[str, Tensor]]]:
        with record(self._model, what=["I_E", "spikes"], neurons=NEURONS) as recorded:
            logits = self._model(images)
        return logits, dict(recorded)


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
