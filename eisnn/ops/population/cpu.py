"""The population operation and the LIF neuron on a CPU, compiled: population.cpp."""

import ctypes
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from eisnn.functional.lif import LIFConstants
from eisnn.ops.build import TYPES, library
from eisnn.ops.layout import Layout
from eisnn.ops.structs import fields_of

SOURCE = Path(__file__).with_name("population.cpp")


class Map(ctypes.Structure):
    """A tensor as the routines see it: `[step, image, row, inner]`, `inner` contiguous."""

    _fields_ = fields_of("Map", SOURCE)


class Problem(ctypes.Structure):
    """Arguments of the routines; see population.cpp."""

    _fields_ = fields_of("Problem", SOURCE, Map=Map)


def supports(maps: Tensor) -> bool:
    """Whether the kernel can serve these maps: on the CPU, in a dtype it knows, dense or two-dimensional."""
    return maps.device.type == "cpu" and maps.dtype in TYPES and maps.ndim in (3, 5) and library() is not None


def empty_grad_weight(weight: Tensor, batch: int) -> Tensor:
    """For the kernel's `grad_weight`: `[groups, n_E, n_I padded]`, of `weight` `[n_E, n_I]`.

    Groups of images are summed apart: as many as keep all their sums in the cache, but 8 to 32, for as many threads.
    """
    lanes = 64 // weight.element_size()
    n_e, n_i = weight.shape
    shape = n_e, -(-n_i // lanes) * lanes
    groups = max(8, min(32, (1 << 19) // max(1, prod(shape))))
    return weight.new_empty(min(batch, groups), *shape)


def run(
    direction: str,
    layout: Layout,
    constants: LIFConstants,
    steps: int,
    maps: dict[str, Tensor | None],
    **arrays: Tensor,
) -> None:
    """Call the kernel.

    Args:
        direction: "forward" or "backward".
        layout: of the maps.
        constants: of the neurons.
        steps: T.
        maps: by field of `Problem`, `balanced` among them; copied where they do not fit the layout, so outputs must.
            The divisive current is either `i_div`, or, with neurons inside, made of `i_ie` by the array `weight`.
        arrays: its other tensors, contiguous.
    """
    loaded = library()
    balanced = maps["balanced"]
    assert loaded is not None
    assert balanced is not None
    arranged = {name: layout.arrange(tensor) for name, tensor in maps.items()}
    problem = Problem(
        **{name: _describe(layout, tensor) for name, tensor in arranged.items()},
        **{name: tensor.data_ptr() for name, tensor in arrays.items()},
        steps_in=balanced.shape[0],
        steps=steps,
        batch=balanced.shape[1],
        rows=layout.rows,
        inner=layout.inner,
        neurons_inside=layout.neurons_inside,
        decay=constants.decay,
        theta=constants.theta,
        alpha=constants.width,
        hard_reset=constants.reset == "hard",
        detach_reset=constants.detach_reset,
        surrogate=constants.surrogate_number,
        n_i=arrays["weight"].shape[1] if "weight" in arrays else 0,
        groups=len(arrays["grad_weight"]) if "grad_weight" in arrays else balanced.shape[1],
        threads=torch.get_num_threads(),
    )
    getattr(loaded, f"{direction}_{TYPES[balanced.dtype]}")(ctypes.byref(problem))


def _describe(layout: Layout, maps: Tensor | None) -> Map:
    """A tensor that fits the layout; None is absent."""
    return Map(None if maps is None else maps.data_ptr(), *layout.strides(maps))
