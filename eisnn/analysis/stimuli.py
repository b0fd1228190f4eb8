"""Stimuli of visual physiology as images `[C, H, W]` in [0, 1]; angles in radians, frequencies in cycles a pixel.

The input of an E-I network is an intensity, never negative. So there are two ways to weaken a stimulus:
`scale_intensity` dims all of it, `scale_contrast` brings it towards its mean, as an experimenter does with a grating
on a grey screen.
"""

from math import cos, inf, isfinite, pi, sin
from typing import Any

import torch
from torch import Tensor

from eisnn.functional.checks import check_int


def grating(
    size: int,
    orientation: float,
    frequency: float,
    phase: float = 0.0,
    contrast: float = 1.0,
    *,
    channels: int = 3,
    radius: float | None = None,
    mean: float = 0.5,
) -> Tensor:
    """Sinusoidal grating `[channels, size, size]`: `mean (1 + contrast sin(2 pi frequency u + phase))`.

    Args:
        size: side of the image, pixels, >= 1.
        orientation: of the bars, anticlockwise from horizontal; 0 and pi are the same.
        frequency: cycles a pixel, in [0, 0.5].
        phase: at the centre of the image.
        contrast: Michelson contrast, in [0, 1].
        channels: how many, all alike, >= 1.
        radius: pixels, >= 0; outside this disk about the centre there is the grey `mean`. None fills the image.
        mean: intensity, in [0, 0.5], so that no pixel is above 1.
    Raises: ValueError for values out of range, and angles that are not finite.
    """
    check_int("grating", "size", size)
    check_int("grating", "channels", channels)
    _in_range("frequency", frequency, 0.5)
    _in_range("contrast", contrast, 1)
    _in_range("mean", mean, 0.5)
    _in_range("radius", 0 if radius is None else radius)
    if not (isfinite(orientation) and isfinite(phase)):
        raise ValueError(f"orientation and phase must be finite, got {orientation!r} and {phase!r}")
    at = torch.arange(size) - (size - 1) / 2
    down, right = at[:, None], at[None, :]
    wave = torch.sin(2 * pi * frequency * (right * sin(orientation) + down * cos(orientation)) + phase)
    if radius is not None:
        wave = wave * (down.square() + right.square() <= radius**2)
    return (mean * (1 + contrast * wave)).expand(channels, size, size).clone()


def drifting_grating(
    size: int,
    direction: float,
    frequency: float,
    temporal_frequency: float,
    steps: int,
    dt: float,
    **options: Any,
) -> Tensor:
    """A grating that drifts, `[steps, channels, size, size]`.

    Args:
        size, frequency, options: as in `grating`; `phase` is that of the first frame.
        direction: of the motion at right angles to the bars, radians, anticlockwise from downwards.
        temporal_frequency: periods a second, >= 0, at most half of the frames.
        steps: frames, >= 1.
        dt: milliseconds from one to the next, > 0.
    Raises: ValueError as `grating`, and for values out of range.
    """
    check_int("drifting_grating", "steps", steps)
    if not 0 < dt < inf:
        raise ValueError(f"dt must be a finite number of milliseconds > 0, got {dt!r}")
    _in_range("temporal_frequency", temporal_frequency, 500 / dt)
    start, shift = options.pop("phase", 0.0), 2 * pi * temporal_frequency * dt / 1000
    return torch.stack([grating(size, direction, frequency, start - shift * t, **options) for t in range(steps)])


def plaid(one: Tensor, other: Tensor, mean: float = 0.5) -> Tensor:
    """Two gratings of the same `mean` laid over each other: `one + other - mean`.

    Raises: ValueError if their contrasts add up to more than 1, or a pixel is NaN.
    """
    both = one + other - mean
    if not (float(both.min()) >= -1e-6 and float(both.max()) <= 2 * mean + 1e-6):
        raise ValueError("the contrasts of the two gratings add up to more than 1; give each at most 0.5")
    return both.clamp(0, 2 * mean)


def scale_intensity(images: Tensor, factor: float) -> Tensor:
    """`factor * images`: dimmer for a factor in [0, 1). The paper's circuit cannot tell in its first layer."""
    _in_range("factor", factor)
    return factor * images


def scale_contrast(images: Tensor, contrast: float) -> Tensor:
    """`m + contrast (images - m)` with the mean m of each image and channel; `[..., C, H, W]`, contrast in [0, 1]."""
    _in_range("contrast", contrast, 1)
    mean = images.mean((-2, -1), keepdim=True)
    return mean + contrast * (images - mean)


def add_noise(images: Tensor, deviation: float, generator: torch.Generator | None = None) -> Tensor:
    """Independent Gaussian noise on each pixel, then clipped to [0, 1] (or to the largest of counts above 1), which
    biases dark and bright pixels.

    Args:
        images: in [0, 1], or counts of events.
        deviation: standard deviation, in units of intensity, >= 0.
        generator: on the CPU; None draws with seed 0.
    """
    _in_range("deviation", deviation)
    drawn = torch.Generator().manual_seed(0) if generator is None else generator
    noise = torch.randn(images.shape, generator=drawn).to(images)
    return (images + deviation * noise).clamp(0, max(1.0, float(images.max())))


def _in_range(name: str, value: float, largest: float = inf) -> None:
    if not (0 <= value <= largest and value < inf):
        wanted = f"in [0, {largest:g}]" if largest < inf else "finite and >= 0"
        raise ValueError(f"{name} must be {wanted}, got {value!r}")
