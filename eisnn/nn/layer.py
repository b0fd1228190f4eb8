"""What every spiking layer shares, with an E-I circuit inside or a normalization: neuron, time and state.

A layer is called as `layer(x, time_steps=None, state=None, return_state=False)`. `x` is `[T, B, ...]`, or `[1, B, ...]`
with `time_steps=T` for a static input, whose currents are computed once and broadcast over T by the neuron.
"""

import copy
import inspect
from typing import Any

from torch import Tensor, nn

from eisnn.functional.checks import check_int, check_steps, is_int
from eisnn.nn.lif import LIF

Size = int | tuple[int, int]
Pair = tuple[int, int]


def check_sizes(owner: str, kind: str, inputs: Any, outputs: Any) -> None:
    """Check the two sizes of a layer, `kind` "channels" or "features"."""
    check_int(owner, f"in_{kind}", inputs)
    check_int(owner, f"out_{kind}", outputs)


def pair(owner: str, name: str, size: Any, least: int) -> Pair:
    """(vertical, horizontal) of an argument that is one int or a pair of them."""
    sizes = size if isinstance(size, tuple | list) else (size, size)
    if len(sizes) != 2 or not all(is_int(n, least) for n in sizes):
        raise ValueError(
            f"{owner}: {name} must be an int >= {least} or a pair of them (vertical, horizontal), got {size!r}"
        )
    return int(sizes[0]), int(sizes[1])


def conv_geometry(
    owner: str, kernel_size: Any, stride: Any, padding: Any, dilation: Any
) -> tuple[Pair, Pair, Pair, Pair]:
    """The four arguments of a convolution as pairs; ValueError for what is none."""
    if isinstance(padding, str):
        raise ValueError(
            f"{owner}: padding must be an int >= 0 or a pair of them, got {padding!r}; at stride 1 an odd kernel_size "
            "keeps the size of the map with padding=dilation * (kernel_size - 1) // 2"
        )
    return (
        pair(owner, "kernel_size", kernel_size, 1),
        pair(owner, "stride", stride, 1),
        pair(owner, "padding", padding, 0),
        pair(owner, "dilation", dilation, 1),
    )


def copy_neuron(neuron: nn.Module | None) -> nn.Module | None:
    """Each layer has a neuron of its own; TypeError for what is no module."""
    if neuron is not None and not isinstance(neuron, nn.Module):
        raise TypeError(f"neuron must be a module, e.g. eisnn.LIF(), or None, got {neuron!r}")
    return copy.deepcopy(neuron)


def check_floating(x: Any, owner: str) -> None:
    """Raise TypeError unless `x` is a tensor of a floating-point dtype."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        given = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{owner} takes a floating-point tensor, got {given} (uint8 images: give images.float() / 255)")


def check_sequence(x: Tensor, axes: int, inputs: int, time_steps: int | None, layer: str) -> None:
    """Raise ValueError unless `x` is `[T, B, inputs, ...]` with `axes` axes and T = `time_steps` (or 1: static)."""
    check_floating(x, layer)
    if x.ndim != axes:
        shape = "[T, B, C, H, W]" if axes == 5 else "[T, B, features]"
        raise ValueError(f"{layer} takes a sequence {shape}, got a tensor of shape {list(x.shape)}")
    if 0 in x.shape[:2]:
        raise ValueError(f"{layer} takes at least one time step and one image, got shape {list(x.shape)}")
    check_steps(layer, x.shape, time_steps)
    if x.shape[2] != inputs:
        raise ValueError(f"{layer} has {inputs} inputs, got {x.shape[2]} (shape {list(x.shape)})")


def run_neuron(
    neuron: nn.Module | None, current: Tensor, time_steps: int | None, state: Any, return_state: bool
) -> tuple[Tensor, Any]:
    """Pass the integrated current `I_E` through `neuron`: output `[T, B, ...]` and the new state (None without one).

    `LIF` broadcasts a static current itself; any other module receives `[T, B, ...]`, and state only when asked for.
    Raises TypeError if state is asked of a module that takes none.
    """
    if isinstance(neuron, LIF):
        return neuron(current, time_steps, state, return_state=True)
    if time_steps is not None:
        current = current.expand(time_steps, *current.shape[1:])
    if neuron is None:
        check_stateless(state, "a layer with neuron=None")
        return current, None
    if state is None and not return_state:
        return neuron(current), None
    try:
        return neuron(current, state=state, return_state=True)
    except TypeError as error:
        if _takes_state(neuron):
            raise
        raise TypeError(
            f"the neuron {type(neuron).__name__} keeps no state: its forward takes no state= and return_state=, so "
            "call without them, or give the layers a neuron that has both, e.g. eisnn.LIF()"
        ) from error


def _takes_state(neuron: nn.Module) -> bool:
    parameters = inspect.signature(neuron.forward).parameters
    return {"state", "return_state"} <= set(parameters) or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def check_stateless(state: Any, owner: str) -> None:
    """Raise ValueError for a state given to what keeps none."""
    if state is not None:
        raise ValueError(f"{owner} keeps no state: state must be None, got {type(state).__name__}")


def layer_output(output: Tensor, state: Any, return_state: bool) -> Any:
    """A layer returns its output, with its state only on request."""
    return (output, state) if return_state else output
