"""Show gratings to a network and see how a layer's neurons are tuned: to orientation, direction, size, and a second
orientation.

Where a network has several positions, the neurons at the centre of the map are measured. `weight_ei` joins I and E
neurons at the same position, so the inhibitory pool sees the same receptive field as the E neuron: a first layer has no
surround beyond it, and its size tuning is flat from there on. Deeper layers have what the layers below give them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, pi

import torch
from torch import Tensor

from eisnn.analysis.measures.tuning import direction_selectivity, orientation_selectivity
from eisnn.analysis.responses import responses, run_for
from eisnn.analysis.stimuli import drifting_grating, grating, plaid
from eisnn.cortex import CorticalLayer
from eisnn.functional.checks import check_int
from eisnn.models import SpikingNetwork
from eisnn.nn import layers_of

ORIENTATIONS = tuple(k * pi / 8 for k in range(8))


@dataclass(frozen=True)
class OrientationTuning:
    """Attributes:
    orientations: `[O]`, radians in [0, pi).
    responses: `[n_E, O]`, mean over phases.
    preferred, selectivity: `[n_E]`, see `orientation_selectivity`.
    """

    orientations: Tensor
    responses: Tensor
    preferred: Tensor
    selectivity: Tensor


def orientation_tuning(
    model: SpikingNetwork,
    layer: str,
    *,
    frequency: float = 0.125,
    orientations: Sequence[float] = ORIENTATIONS,
    phases: int = 8,
    contrast: float = 1.0,
    size: int = 32,
    what: str = "spikes",
) -> OrientationTuning:
    """Responses of a layer's neurons to full-field gratings of many orientations, and how they are tuned.

    Args:
        model: a network for images.
        layer: its name in `model.named_modules()`.
        frequency: cycles a pixel.
        orientations: radians, evenly spaced over pi, at least three.
        phases: gratings of each orientation, evenly spaced over a period, >= 1; responses are their mean.
        contrast: Michelson contrast.
        size: of the images, pixels.
        what: "spikes", or "I_E", which is rectified after averaging over time.
    Raises: ValueError as `grating`, `responses` and `orientation_selectivity`.
    """

    def draw(orientation: float, phase: float) -> Tensor:
        return grating(size, orientation, frequency, phase, contrast, channels=model.in_channels)

    found = _over_phases(model, layer, draw, orientations, phases, what)
    at = torch.tensor(orientations, dtype=torch.float64)
    return OrientationTuning(at, found, *orientation_selectivity(found, at))


@dataclass(frozen=True)
class DirectionTuning:
    """Of the cells of one kind.

    Attributes:
        directions: `[D]`, radians in [0, 2 pi).
        responses: `[n, D]`, Hz; of graded interneurons, which have no spikes, in units of their output.
        osi, dsi: `[n]`, selectivity for orientation and for direction, in [0, 1]; NaN without response.
        rate: `[n]`, mean over directions, Hz; NaN of graded interneurons.
    """

    directions: Tensor
    responses: Tensor
    osi: Tensor
    dsi: Tensor
    rate: Tensor


def direction_tuning(
    model: SpikingNetwork,
    layer: str,
    *,
    frequency: float = 0.125,
    temporal_frequency: float = 2.0,
    directions: int = 8,
    contrast: float = 0.8,
    size: int = 32,
    duration: float = 1000.0,
) -> dict[str, DirectionTuning]:
    """Responses of all kinds of cells of a cortical layer to full-field drifting gratings, by kind.

    Args:
        model: a network for images.
        layer: name of a cortical layer in `model.named_modules()`.
        frequency, contrast, size: as in `orientation_tuning`.
        temporal_frequency: periods a second.
        directions: how many, evenly spaced over 2 pi, an even number >= 6.
        duration: of each grating, ms; the first of its steps count too.
    Raises: ValueError for a layer that is not cortical, and values out of range.
    """
    found = layers_of(model).get(layer)
    if not isinstance(found, CorticalLayer):
        raise ValueError(f"direction_tuning needs the name of a cortical layer, got {layer!r}")
    check_int("direction_tuning", "directions", directions, 6)
    if directions % 2:
        raise ValueError(f"directions must be even, so that each orientation has two, got {directions}")
    dt = found.options.dt
    if not (0 < duration < inf and 2 * dt <= duration and abs(duration / dt - round(duration / dt)) < 1e-6):
        raise ValueError(f"duration must be a multiple of {dt:g} ms, of two steps at least, got {duration!r}")
    steps = round(duration / dt)
    if not 0 < temporal_frequency < 500 / dt:
        raise ValueError(
            f"temporal_frequency must be above 0 and below {500 / dt:g} Hz, half of the steps a second, so that "
            f"directions differ; got {temporal_frequency!r}"
        )
    at = torch.arange(directions, dtype=torch.float64) * 2 * pi / directions
    like = next(model.parameters())
    drawn = [
        drifting_grating(
            size, float(theta), frequency, temporal_frequency, steps, dt, contrast=contrast, channels=model.in_channels
        )
        for theta in at
    ]
    gratings, tuned = torch.stack(drawn, 1).to(like), {}
    for kind in found.populations():
        with run_for(model, steps):
            shown = responses(model, gratings, layer, "spikes" if kind == "E" else f"s_{kind}").T.double()
        spiking = kind == "E" or found.options.spiking
        quantum = 1.0 if kind == "E" or not spiking else float(getattr(found, f"quantum_{kind}"))
        shown = shown / quantum * (1000 / dt if spiking else 1)
        rate = shown.mean(1) if spiking else torch.full((len(shown),), torch.nan, dtype=torch.float64)
        both = shown.unflatten(1, (2, directions // 2)).mean(1)  # of the two directions of each orientation
        osi = orientation_selectivity(both, at[: directions // 2])[1]
        tuned[kind] = DirectionTuning(at, shown, osi, direction_selectivity(shown, at)[1], rate)
    return tuned


def size_tuning(
    model: SpikingNetwork,
    layer: str,
    radii: Sequence[float],
    *,
    orientation: float = 0.0,
    frequency: float = 0.125,
    phases: int = 8,
    contrast: float = 1.0,
    size: int = 32,
    what: str = "spikes",
) -> Tensor:
    """Responses `[n_E, R]` to a grating in disks of growing radius (pixels) about the centre of a grey image.

    Args: as `orientation_tuning`, but for one orientation, and `radii`, at least one.
    Raises: ValueError as `grating` and `responses`, and without a radius. See `suppression_index`.
    """

    def draw(radius: float, phase: float) -> Tensor:
        return grating(size, orientation, frequency, phase, contrast, channels=model.in_channels, radius=radius)

    return _over_phases(model, layer, draw, radii, phases, what)


def cross_orientation_suppression(
    model: SpikingNetwork,
    layer: str,
    *,
    frequency: float = 0.125,
    orientations: Sequence[float] = ORIENTATIONS,
    phases: int = 8,
    contrast: float = 0.5,
    size: int = 32,
    what: str = "spikes",
) -> Tensor:
    """How much a second grating at right angles weakens the response to the best one: `1 - R(both) / R(best)`, `[n_E]`.

    1 where it silences the neuron, 0 without effect, negative where it helps, NaN without response (DeAngelis et al.
    1992). The contrast of each grating is at most 0.5. Phases of the two move together.

    Args: as `orientation_tuning`; one orientation will do.
    Raises: ValueError as `grating`, `plaid` and `responses`, and without an orientation.
    """

    def alone(orientation: float, phase: float) -> Tensor:
        return grating(size, orientation, frequency, phase, contrast, channels=model.in_channels)

    def both(orientation: float, phase: float) -> Tensor:
        return plaid(alone(orientation, phase), alone(orientation + pi / 2, phase))

    single = _over_phases(model, layer, alone, orientations, phases, what)
    double = _over_phases(model, layer, both, orientations, phases, what)
    best, which = single.max(1)
    return 1 - torch.where(best > 0, double.gather(1, which[:, None])[:, 0] / best, torch.nan)


def _over_phases(
    model: SpikingNetwork,
    layer: str,
    draw: Callable[[float, float], Tensor],
    values: Sequence[float],
    phases: int,
    what: str,
) -> Tensor:
    """Rectified responses `[n_E, values]` of the neurons at the centre to `draw(value, phase)`, mean over phases."""
    check_int("tuning", "phases", phases)
    if len(values) == 0:
        raise ValueError("tuning needs at least one orientation or radius, got none")
    like = next(model.parameters())
    images = torch.stack([draw(value, 2 * pi * k / phases) for value in values for k in range(phases)]).to(like)
    found = responses(model, images, layer, what).clamp_min(0)
    return found.unflatten(0, (len(values), phases)).mean(1).T
