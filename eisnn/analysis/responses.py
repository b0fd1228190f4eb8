"""Responses of a layer to images or sequences of frames, as an electrode at one place of its map would see them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from eisnn.analysis.layers import evaluated
from eisnn.analysis.record import record
from eisnn.analysis.stimuli import add_noise
from eisnn.functional.checks import check_int
from eisnn.models import SpikingNetwork

Position = Literal["centre", "mean", "all"]


@contextmanager
def run_for(model: SpikingNetwork, time_steps: int) -> Iterator[None]:
    """Show static images for `time_steps` >= 1 steps inside the `with` block, rather than the model's own T.

    For inter-spike intervals and finer rates take 100 and more; the network was trained for its own T.
    """
    check_int("run_for", "time_steps", time_steps)
    before, model.time_steps = model.time_steps, time_steps
    try:
        yield
    finally:
        model.time_steps = before


@torch.no_grad()
def responses(
    model: nn.Module,
    images: Tensor,
    layer: str,
    what: str = "spikes",
    position: Position = "centre",
    batch_size: int = 100,
) -> Tensor:
    """Mean response of each neuron of a layer to each image, over the time steps.

    Args:
        model: any module that holds the layer; evaluated, and left in the mode it was in.
        images: static, `[B, C, H, W]`, or sequences of frames, `[T, B, C, H, W]`; at least one.
        layer: its name in `model.named_modules()`.
        what: a quantity of `record`: "spikes" gives rates (spikes a step), "I_E" the integrated current.
        position: "centre" takes the neurons at the middle of the map, "mean" averages over its positions, "all" keeps
            them; without effect in a layer without positions.
        batch_size: images at a time, >= 1.
    Returns: `[B, n_E]`, with "all" `[B, n_E, H, W]`.
    Raises: ValueError for another position, layer or quantity, another shape, or no image.
    """
    check_int("responses", "batch_size", batch_size)
    check_shown(images, position)
    parts = []
    with evaluated(model):
        for part in images.split(batch_size, -4):
            with record(model, layer, what) as recorded:
                model(part)
            parts.append(recorded[layer][what].mean(0))
    return at_position(torch.cat(parts), position)


def check_shown(images: Tensor, position: str) -> None:
    """Raise ValueError for what no network can be shown, and for another position."""
    if images.ndim not in (4, 5) or images.shape[-4] == 0:
        raise ValueError(
            f"images must be [B, C, H, W] or sequences [T, B, C, H, W] with B >= 1, got shape {list(images.shape)}"
        )
    if position not in ("centre", "mean", "all"):
        raise ValueError(f'position must be "centre", "mean" or "all", got {position!r}')


def at_position(maps: Tensor, position: Position) -> Tensor:
    """Of `[B, n_E, H, W]` what is at the position, `[B, n_E]` (with "all" as it is); `[B, n_E]` has no positions."""
    if maps.ndim == 2 or position == "all":
        return maps
    height, width = maps.shape[2:]
    return maps.mean((2, 3)) if position == "mean" else maps[:, :, height // 2, width // 2]


def noisy_responses(
    model: nn.Module,
    images: Tensor,
    layer: str,
    deviation: float,
    repeats: int,
    *,
    what: str = "spikes",
    position: Position = "centre",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Responses `[repeats, B, n_E]` to each image with independent Gaussian noise at each repeat. The network itself is
    deterministic: all variability comes from the images, and with a deviation of 0 there is none.

    Args:
        model, images, layer, what, position: as in `responses`.
        deviation: of the noise, units of intensity.
        repeats: trials of each image, at least 2.
        generator: of the noise, on the CPU; None draws with seed 0.
    Raises: ValueError for fewer repeats, and as `responses` and `add_noise`.
    """
    check_int("noisy_responses", "repeats", repeats, 2)
    drawn = torch.Generator().manual_seed(0) if generator is None else generator
    trials = [responses(model, add_noise(images, deviation, drawn), layer, what, position) for _ in range(repeats)]
    return torch.stack(trials)
