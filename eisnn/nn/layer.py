"""What every spiking layer shares, with an E-I circuit inside or a normalization: neuron, time and state.

A layer is called as `layer(x, time_steps=None, state=None, return_state=False)`. `x` is `[T, B, ...]`, or `[1, B, ...]`
with `time_steps=T` for a static input, whose currents are computed once and broadcast over T by the neuron.
"""

import copy
from typing import Any

from torch import Tensor, nn

from eisnn.nn.lif import LIF


def copy_neuron(neuron: nn.Module | None) -> nn.Module | None:
    """Each layer has a neuron of its own."""
    return copy.deepcopy(neuron)


def check_sequence(x: Tensor, axes: int, time_steps: int | None, layer: str) -> None:
    """Raise ValueError unless `x` is `[T, B, ...]` with `axes` axes and T = `time_steps` (or 1: static)."""
    if x.ndim != axes:
        shape = "[T, B, C, H, W]" if axes == 5 else "[T, B, features]"
        raise ValueError(f"{layer} takes a sequence {shape}, got a tensor of shape {list(x.shape)}")
    if time_steps is not None and x.shape[0] not in (1, time_steps):
        raise ValueError(
            f"{layer}: the first axis is time and must be time_steps={time_steps}, or 1 for a static input; "
            f"got shape {list(x.shape)} (is it [B, T, ...]?)"
        )


def run_neuron(
    neuron: nn.Module | None, current: Tensor, time_steps: int | None, state: Any, return_state: bool
) -> tuple[Tensor, Any]:
    """Pass the integrated current `I_E` through `neuron`: output `[T, B, ...]` and the new state (None without one).

    `LIF` broadcasts a static current itself; any other module receives `[T, B, ...]`, and state only when asked for.
    """
    if isinstance(neuron, LIF):
        return neuron(current, time_steps, state, return_state=True)
    if time_steps is not None:
        current = current.expand(time_steps, *current.shape[1:])
    if neuron is None:
        return current, None
    if state is None and not return_state:
        return neuron(current), None
    return neuron(current, state=state, return_state=True)


def layer_output(output: Tensor, state: Any, return_state: bool) -> Any:
    """A layer returns its output, with its state only on request."""
    return (output, state) if return_state else output
