"""What a perturbation does to a network: accuracy and activity before, during and after, over doses and seeds."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean, stdev
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eisnn.analysis.layers import available, evaluated, names_of, spiking_layers
from eisnn.analysis.perturb import Perturbation, UndefinedDivision, perturb
from eisnn.analysis.record import RunningStatistics, running_statistics
from eisnn.functional.checks import check_int

DOSES = ("activity", "fraction", "subtractive", "divisive", "gain_i", "lesion_ee", "lesion_ie", "lesion_ei", "inject_e",
         "inject_i")  # fmt: skip


@torch.no_grad()
def assess(
    model: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 100, what: str | Iterable[str] | None = None
) -> dict[str, Any]:
    """Accuracy of `model` on some images, and how active each hidden layer is.

    Args:
        model: returns logits `[B, classes]`; it is evaluated, and left in the mode it was in.
        images: `[N, C, H, W]` or `[T, N, C, H, W]`, as the model takes them; a tensor, or a NumPy array, as `labels`.
        labels: `[N]`, int64.
        batch_size: images at a time.
        what: which of `spikes`, `I_E` and `undivided` to look at; None takes those that every layer has, `()` leaves
            accuracy and loss, which are several times faster.
    Returns: what JSON takes: `accuracy` (%), `loss` (cross-entropy, nats) and, by name under `layers`, of each layer
        `rate` (spikes a neuron and step), `silent` and `saturated` (part of the neurons that never fire, or at every
        step), `current_mean` and `current_std` (of `I_E` over neurons, images and steps; units of the threshold) and,
        of circuits, `undivided` (part of the currents that nothing divides, see `record`).
    Raises: ValueError if images and labels do not match, or there are none.
    """
    check_int("assess", "batch_size", batch_size)
    images, labels = torch.as_tensor(images), torch.as_tensor(labels)
    axis = images.ndim - 4
    if images.ndim not in (4, 5) or labels.shape != images.shape[axis : axis + 1] or len(labels) == 0:
        raise ValueError(
            f"assess takes images [N, C, H, W] or [T, N, C, H, W] and N labels, N >= 1, got {list(images.shape)} and "
            f"{list(labels.shape)}"
        )
    loss = correct = 0.0
    wanted = _assessed(model) if what is None else names_of(what)
    with evaluated(model), running_statistics(model, None if wanted else [], wanted) as found:
        for part, right in zip(images.split(batch_size, axis), labels.split(batch_size), strict=True):
            logits = model(part)
            loss += float(F.cross_entropy(logits.double(), right, reduction="sum"))
            correct += int((logits.argmax(-1) == right).sum())
    layers = {name: _activity(quantities) for name, quantities in found.items()}
    return {"accuracy": 100 * correct / len(labels), "loss": loss / len(labels), "layers": layers}


def _activity(found: Mapping[str, RunningStatistics]) -> dict[str, float]:
    activity = {}
    if "spikes" in found:
        spikes = found["spikes"]
        activity["rate"] = float(spikes.mean.mean())
        activity["silent"] = float((spikes.maximum == 0).double().mean())
        activity["saturated"] = float((spikes.minimum == 1).double().mean())
    if "I_E" in found:
        current = found["I_E"]
        activity["current_mean"] = float(current.mean.mean())
        activity["current_std"] = float((current.variance.mean() + current.mean.var(correction=0)).sqrt())
    if "undivided" in found:
        activity["undivided"] = float(found["undivided"].mean.mean())
    return activity


def _assessed(model: nn.Module) -> list[str]:
    """Of the quantities that are wanted, those that every layer has."""
    layers = spiking_layers(model).values()
    return [quantity for quantity in ("spikes", "I_E", "undivided") if all(quantity in available(m) for m in layers)]


@dataclass(frozen=True)
class DoseResponse:
    """What `dose_response` measured; `asdict` of it is what JSON takes.

    Attributes:
        dose: the field of `Perturbation` that was varied.
        doses, seeds: its values, and the seeds of each.
        before, after: of the intact network, as `assess` gives it; they are equal.
        during: one entry for each dose and seed: `dose`, `seed`, `undefined` (why the network has no response, or
            None) and what `assess` gives (absent where undefined).
    """

    dose: str
    doses: list[float]
    seeds: list[int]
    before: dict[str, Any]
    during: list[dict[str, Any]]
    after: dict[str, Any]

    def __repr__(self) -> str:
        return f"DoseResponse({self.dose!r}, doses={self.doses}, seeds={self.seeds})"

    def curve(
        self, value: str | Callable[[dict[str, Any]], float] = "accuracy"
    ) -> tuple[list[float], list[float], list[float]]:
        """Doses at which the response is defined for every seed, mean over seeds and standard deviation (0 for one).

        Args:
            value: a key of `assess`, or a function of what it returns.
        """
        of = value if callable(value) else lambda entry: float(entry[value])
        doses, means, deviations = [], [], []
        for dose in self.doses:
            entries = [entry for entry in self.during if entry["dose"] == dose]
            if any(entry["undefined"] for entry in entries):
                continue
            values = [of(entry) for entry in entries]
            doses.append(dose)
            means.append(fmean(values))
            deviations.append(stdev(values) if len(values) > 1 else 0.0)
        return doses, means, deviations

    def as_dict(self) -> dict[str, Any]:
        """All of it, as JSON takes it."""
        return asdict(self)


def dose_response(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    dose: str,
    doses: Sequence[float],
    seeds: Sequence[int] = (0,),
    *,
    base: Perturbation = Perturbation(),  # noqa: B008 - frozen
    layers: str | Iterable[str] | None = None,
    batch_size: int = 100,
    what: str | Iterable[str] | None = None,
) -> DoseResponse:
    """Response of `model` to growing doses of one perturbation, each with several seeds.

    To silence I neurons, vary the part of them: `dose_response(model, images, labels, "fraction", [0, 0.25, 0.5],
    seeds=range(5), base=Perturbation(activity=0))`. Doses without a random choice give the same for every seed.

    Args:
        model, images, labels, batch_size, what: as in `assess`.
        dose: which field of `Perturbation` is varied, one of `DOSES`.
        doses: its values, all different, at least one.
        seeds: of the random choices, likewise.
        base: the other fields.
        layers: as in `perturb`.
    Returns: `DoseResponse`. Where nothing divides any more the response is undefined, and is said to be.
    Raises: as `perturb` and `assess`; ValueError for an unknown dose, for doses or seeds that are none or repeated.
    """
    if dose not in DOSES:
        raise ValueError(
            f"dose must be a field of Perturbation with a strength, one of {', '.join(DOSES)}; got {dose!r}"
        )
    for name, given in (("doses", doses), ("seeds", seeds)):
        if not 0 < len(set(given)) == len(given):
            raise ValueError(f"{name} must be at least one and all different, got {list(given)}")
    names = layers if layers is None or isinstance(layers, str) else list(layers)
    quantities = what if what is None else names_of(what)

    def measure() -> dict[str, Any]:
        return assess(model, images, labels, batch_size, quantities)

    before, during = measure(), []
    for strength in doses:
        for seed in seeds:
            change = replace(base, **{dose: strength}, seed=seed)  # type: ignore[arg-type]
            entry: dict[str, Any] = {"dose": float(strength), "seed": int(seed), "undefined": None}
            try:
                with perturb(model, change, names):
                    entry |= measure()
            except UndefinedDivision as error:
                entry["undefined"] = str(error)
            during.append(entry)
    return DoseResponse(dose, [float(d) for d in doses], [int(s) for s in seeds], before, during, measure())
