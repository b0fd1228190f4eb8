"""Show gratings to a network and see how a layer's neurons are tuned: to orientation, size, and a second orientation.

Where a network has several positions, the neurons at the centre of the map are measured. `weight_ei` joins I and E
neurons at the same position, so the inhibitory pool sees the same receptive field as the E neuron: a first layer has no
surround beyond it, and its size tuning is flat from there on. Deeper layers have what the layers below give them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor

from eisnn.analysis.measures.tuning import orientation_selectivity
from eisnn.analysis.responses import responses
from eisnn.analysis.stimuli import grating, plaid
from eisnn.functional.checks import check_int
from eisnn.models import SpikingNetwork

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
