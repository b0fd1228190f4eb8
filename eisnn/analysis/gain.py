"""Gain control: how responses grow with the strength of the input, with and without divisive inhibition.

The input is an intensity. Scaling it, `x -> c x`, leaves `I_E = g_E N / I_div + b_E` of a first layer exactly as it is,
unless there is semisaturation: `g_E c N / (sigma + c I_div)` is a Naka-Rushton function with exponent 1 and
`c50 = sigma / I_div`. Scaling the contrast about the mean leaves a divisor that is linear in the pixels nearly alone.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from eisnn.analysis.layers import choose_layers, evaluated
from eisnn.analysis.measures.tuning import NakaRushton, fit_naka_rushton
from eisnn.analysis.perturb import Perturbation, mean_division, perturbed_layer
from eisnn.analysis.record import running_statistics
from eisnn.analysis.responses import Position, at_position, check_shown
from eisnn.analysis.stimuli import scale_contrast, scale_intensity

Scaling = Literal["intensity", "contrast"]
SCALINGS = {"intensity": scale_intensity, "contrast": scale_contrast}
BATCH = 100  # images at a time


def gain_curve(
    model: nn.Module,
    images: Tensor,
    levels: Sequence[float],
    layer: str,
    *,
    scaling: Scaling = "intensity",
    what: str = "spikes",
    position: Position = "mean",
) -> Tensor:
    """Mean response over images of each neuron of a layer at each strength of the input, `[levels, n_E]`.

    Args:
        model, layer, what, position: as in `responses`.
        images: `[B, C, H, W]` at full strength.
        levels: factors on intensity or contrast, in [0, 1], at least one.
        scaling: "intensity" dims the images, "contrast" brings them towards their mean.
    Raises: ValueError for another scaling or no level, and as `responses`.
    """
    return gain_curves(model, images, levels, [layer], scaling=scaling, what=what, position=position)[layer]


def gain_curves(
    model: nn.Module,
    images: Tensor,
    levels: Sequence[float],
    layers: Iterable[str] | None = None,
    *,
    scaling: Scaling = "intensity",
    what: str = "spikes",
    position: Position = "mean",
) -> dict[str, Tensor]:
    """`gain_curve` of several layers (None: all hidden ones) in one pass a level."""
    names = None if layers is None else list(layers)
    curves: dict[str, list[Tensor]] = {}
    for shown in _strengths(images, levels, scaling, position):
        with evaluated(model), running_statistics(model, names, what) as found:
            _show(model, shown)
        for name, quantities in found.items():
            curves.setdefault(name, []).append(at_position(quantities[what].mean[None], position)[0])
    return {name: torch.stack(curve) for name, curve in curves.items()}


def _strengths(images: Tensor, levels: Sequence[float], scaling: Scaling, position: Position) -> Iterator[Tensor]:
    """The images at each level."""
    check_shown(images, position)
    if scaling not in SCALINGS:
        raise ValueError(f'scaling must be "intensity" or "contrast", got {scaling!r}')
    if len(levels) == 0:
        raise ValueError("gain_curve needs at least one level, got none")
    return (SCALINGS[scaling](images, level) for level in levels)


@torch.no_grad()
def _show(model: nn.Module, images: Tensor) -> None:
    for part in images.split(BATCH, -4):
        model(part)


@dataclass(frozen=True)
class GainControl:
    """Mean response of a layer against the strength of its network's input.

    Attributes:
        levels: `[L]`.
        intact, held: mean over neurons and images, `[L]`: of the network as it is, and with the divisive current of
            this layer held at its mean for the images at full strength.
        intact_fit, held_fit: Naka-Rushton fits of the two.
    """

    levels: Tensor
    intact: Tensor
    held: Tensor
    intact_fit: NakaRushton
    held_fit: NakaRushton


def gain_control(
    model: nn.Module,
    images: Tensor,
    levels: Sequence[float],
    layer: str,
    *,
    scaling: Scaling = "intensity",
    what: str = "spikes",
) -> GainControl:
    """Contrast responses of a layer with and without divisive inhibition by its input, and their fits.

    "Without" holds the divisive current constant, as the division by nothing is undefined.

    Args: as `gain_curve`, with at least five different levels.
    Raises: as `gain_curve`, `mean_division` and `fit_naka_rushton`.
    """
    return gain_controls(model, images, levels, [layer], scaling=scaling, what=what)[layer]


def gain_controls(
    model: nn.Module,
    images: Tensor,
    levels: Sequence[float],
    layers: Iterable[str] | None = None,
    *,
    scaling: Scaling = "intensity",
    what: str = "spikes",
) -> dict[str, GainControl]:
    """`gain_control` of several circuits (None: all hidden ones) in one pass a level.

    Each is held by itself: what it receives is what it receives in the intact network, so the held layer answers beside
    the intact one.
    """
    division = mean_division(model, images, None if layers is None else list(layers))
    change = Perturbation(hold_division=division)
    circuits: dict[str, Any] = choose_layers(model, division)
    held = nn.ModuleList(perturbed_layer(layer, change, name) for name, layer in circuits.items())
    curves: dict[str, tuple[list[Tensor], list[Tensor]]] = {name: ([], []) for name in division}
    for shown in _strengths(images, levels, scaling, "mean"):
        with (
            evaluated(model),
            _beside(circuits.values(), held),
            running_statistics(model, division, what) as intact,
            running_statistics(held, None, what) as others,
        ):
            _show(model, shown)
        for (name, found), other in zip(intact.items(), others.values(), strict=True):
            for curve, statistics in zip(curves[name], (found[what], other[what]), strict=True):
                curve.append(statistics.mean.mean())
    at = torch.tensor(levels, dtype=torch.float64)

    def control(intact: list[Tensor], held: list[Tensor]) -> GainControl:
        both = torch.stack(intact), torch.stack(held)
        return GainControl(at, *both, *(fit_naka_rushton(at, curve) for curve in both))

    return {name: control(*found) for name, found in curves.items()}


@contextmanager
def _beside(layers: Iterable[nn.Module], others: Iterable[nn.Module]) -> Iterator[None]:
    """Inside the block each of `others` is called with what the layer at its place in `layers` is called with."""

    def call(other: nn.Module) -> Callable[..., None]:
        def hook(layer: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            other(*args, **kwargs)

        return hook

    with ExitStack() as hooks:
        for layer, other in zip(layers, others, strict=True):
            hooks.enter_context(layer.register_forward_hook(call(other), with_kwargs=True))
        yield
