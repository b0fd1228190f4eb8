"""The population operation and the LIF neuron on a CPU, compiled: population.cpp."""

import ctypes
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from eisnn.functional.lif import LIFConstants
from eisnn.ops.build import TYPES, library
from eisnn.ops.layout import Layout, layout_of
from eisnn.ops.population.torch import POPULATIONS, Gradients, Population, split_currents
from eisnn.ops.structs import fields_of

SOURCE = Path(__file__).with_name("population.cpp")


class Map(ctypes.Structure):
    """A tensor as the routines see it: `[step, image, row, inner]`, `inner` contiguous."""

    _fields_ = fields_of("Map", SOURCE)


class Problem(ctypes.Structure):
    """Arguments of the routines; see population.cpp."""

    _fields_ = fields_of("Problem", SOURCE, Map=Map)


def serves(maps: Tensor, constants: LIFConstants) -> bool:
    """Whether the kernel serves these maps and neurons: on the CPU, in a dtype it knows, dense or two-dimensional."""
    known = maps.device.type == "cpu" and maps.dtype in TYPES and constants.surrogate_number is not None
    return known and maps.ndim in (3, 5) and library() is not None


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
    tonic: bool = False,
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
        tonic: whether it is positive, so that `smallest` is neither found nor needed.
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
        tonic=tonic,
        n_i=arrays["weight"].shape[1] if "weight" in arrays else 0,
        groups=len(arrays["grad_weight"]) if "grad_weight" in arrays else balanced.shape[1],
        threads=torch.get_num_threads(),
    )
    getattr(loaded, f"{direction}_{TYPES[balanced.dtype]}")(ctypes.byref(problem))


def _describe(layout: Layout, maps: Tensor | None) -> Map:
    """A tensor that fits the layout; None is absent."""
    return Map(None if maps is None else maps.data_ptr(), *layout.strides(maps))


@POPULATIONS.register("compiled", serves)
class CompiledPopulation(Population):
    """The same by the compiled routine; where the neurons lie inside, with the lateral product and its gradients."""

    def _start(self) -> tuple[Layout, tuple[int, ...], dict[str, Tensor | None], dict[str, Tensor]]:
        n_e = len(self.weight)
        layout = layout_of(self.currents, n_e)
        maps: dict[str, Tensor | None] = {"v": self.v}
        arrays = {"gain": self.gain.contiguous(), "bias": self.bias.contiguous()}
        if layout.neurons_inside:
            maps["balanced"], maps["i_ie"] = self._parts(self.currents)
            arrays["weight"] = self.weight.to(self.gain.dtype).contiguous()
        else:
            maps["balanced"], maps["i_div"] = split_currents(self.currents, self.weight)
        return layout, (*self.currents.shape[:2], n_e, *self.currents.shape[3:]), maps, arrays

    def forward(self) -> tuple[Tensor, Tensor, Tensor]:
        layout, shape, maps, arrays = self._start()
        spikes = layout.empty((self.steps, *shape[1:]), self.currents.dtype)
        v_last = layout.empty(shape[1:], self.gain.dtype)
        smallest = self.gain.new_full((*shape[:2], *(1,) * (len(shape) - 2)), torch.inf)
        maps |= {"spikes": spikes, "v_last": v_last}
        run("forward", layout, self.constants, self.steps, maps, self.tonic, smallest=smallest, **arrays)
        return spikes, v_last, smallest

    def backward(
        self, smallest: Tensor, grad_spikes: Tensor | None, grad_v_last: Tensor | None, grad_currents: Tensor
    ) -> Gradients:
        layout, shape, maps, arrays = self._start()
        grad_v = None if self.v is None else layout.empty(shape[1:], self.gain.dtype)
        arrays["grad_gain"], arrays["grad_bias"] = (self.gain.new_empty(shape[1], shape[2]) for _ in range(2))
        maps |= {"grad_spikes": grad_spikes, "grad_v_last": grad_v_last, "grad_v": grad_v}
        parts = self._parts(grad_currents)
        written = [x if layout.fits(x) else layout.empty(x.shape, x.dtype) for x in parts]
        maps["grad_balanced"] = written[0]
        if layout.neurons_inside:
            maps["grad_i_ie"] = written[1]
            arrays["grad_weight"] = empty_grad_weight(arrays["weight"], shape[1])
        else:
            maps["grad_i_div"] = layout.empty(shape, self.currents.dtype)
        run("backward", layout, self.constants, self.steps, maps, self.tonic, smallest=smallest, **arrays)
        for part, own in zip(parts, written, strict=True):
            if part is not own:
                part.copy_(own)
        if (grad_i_div := maps.get("grad_i_div")) is not None:
            grad_weight = self._through_lateral(grad_i_div, grad_currents)
        else:
            grad_weight = arrays["grad_weight"].sum(0)[:, : self.weight.shape[1]]
        return Gradients(grad_weight, arrays["grad_gain"].sum(0), arrays["grad_bias"].sum(0), grad_v)
