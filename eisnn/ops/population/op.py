"""The hot operation: divisive inhibition, stabilisation, division, gain, bias and LIF over T, eqs. (13)-(15).

`eisnn.functional.population` composes the readable pieces and is the ground truth. `population` is one autograd node
that keeps only its stacked input currents: the divisive current and the membrane trajectory are computed again in the
backward pass. What it does element by element runs compiled or in Triton, else in torch operations, piece by piece in
the cache.

Forward and backward are registered with torch, so that `torch.compile` takes them as they are.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eisnn import functional
from eisnn.functional.checks import check_reverse_mode, check_state, check_steps
from eisnn.functional.connection import lateral, per_neuron
from eisnn.functional.folded import FoldedCurrents
from eisnn.functional.lif import LIFConstants
from eisnn.functional.stabilize import noise_of, replace_zeros, smallest_positive
from eisnn.ops import backends
from eisnn.ops.layout import Layout, by_position, layout_of, padded
from eisnn.ops.population import cpu
from eisnn.ops.scan import pieces, scan_, scan_backward_

PART = 1 << 22  # most elements of a map of divisive currents on a GPU: a few MB, which its cache holds


def split_currents(currents: Tensor, weight: Tensor) -> FoldedCurrents:
    """`eisnn.functional.split_currents`, which takes no notice of what lies below the currents on CUDA."""
    n = sum(weight.shape)
    return functional.split_currents(
        currents[:, :, :n] if currents.shape[2] == padded(n, currents) else currents, weight
    )


def population(
    currents: Tensor,
    weight: Tensor,
    gain_e: Tensor,
    bias: Tensor,
    constants: LIFConstants,
    v: Tensor | None = None,
    time_steps: int | None = None,
    *,
    tonic: bool = False,
) -> tuple[Tensor, Tensor]:
    """Spikes of an E population from its stacked currents, over all time steps.

    Division, membrane and gradients are computed in at least float32, whatever the dtype of the currents.

    Args:
        currents: `I_EE - I_sub` and `I_IE` stacked, `[T, B, n_E + n_I, ...]`, see `stacked_currents`; or
            `[1, B, n_E + n_I, ...]` with `time_steps=T` for a static input. On CUDA, up to the next multiple
            of 8, there may be more below them, which change nothing.
        weight: `M = W_EI diag(g_I)` `[n_E, n_I]`, >= 0.
        gain_e, bias: `[n_E]`.
        constants: of the LIF neuron.
        v: potential before the first step, `[B, n_E, ...]`; None is 0.
        time_steps: T, where `currents` holds a single step.
        tonic: the current of the last I neuron is 1 everywhere, and its weights are positive (semisaturation): then
            `I_div` is positive and nothing is stabilised. That current may get no gradient.
    Returns: spikes `[T, B, n_E, ...]` in the dtype of `currents`, and the potential after the last step
        `[B, n_E, ...]` in at least float32.
    Raises: ValueError for a number of steps, a shape or a device that does not fit; TypeError for currents that are no
        floating-point numbers.
    """
    if 0 in currents.shape[:2]:
        raise ValueError(f"population takes at least one time step and one image, got shape {list(currents.shape)}")
    if not currents.is_floating_point():
        raise TypeError(f"population takes floating-point currents, got {currents.dtype}")
    steps = check_steps("population", currents.shape, time_steps)
    n = sum(weight.shape)
    stacked = weight.ndim == 2 and currents.ndim >= 3 and currents.shape[2] in (n, padded(n, currents))
    if not (stacked and gain_e.shape == bias.shape == weight.shape[:1]):
        raise ValueError(
            "population takes currents [T, B, n_E + n_I, ...], weight [n_E, n_I], gain_e and bias [n_E]; got shapes "
            f"{list(currents.shape)}, {list(weight.shape)}, {list(gain_e.shape)} and {list(bias.shape)}"
        )
    check_state(v, (currents.shape[1], len(weight), *currents.shape[3:]))
    check_reverse_mode("population", currents, weight, gain_e, bias, v)
    devices = [x.device for x in (currents, weight, gain_e, bias, v) if x is not None]
    if any(device != currents.device for device in devices):
        raise ValueError(f"population takes tensors on one device, got them on {', '.join(map(str, devices))}")
    weight = weight.to(currents.dtype)
    spikes, v_last, _ = _forward(currents, weight, gain_e, bias, v, steps, constants.code, tonic)
    return spikes, v_last


@torch.library.custom_op("eisnn::population", mutates_args=())
def _forward(
    currents: Tensor,
    weight: Tensor,
    gain_e: Tensor,
    bias: Tensor,
    v: Tensor | None,
    steps: int,
    neuron: str,
    tonic: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes, last potential, and the smallest positive divisive current of each sample `[T, B, 1, ...]`."""
    constants = LIFConstants.decode(neuron)
    with torch.autocast(currents.device.type, enabled=False):
        return Population.of(currents, weight, gain_e, bias, v, constants, steps, tonic).forward()


@_forward.register_fake
def _(currents: Tensor, weight: Tensor, gain_e: Tensor, bias: Tensor, v: Any, steps: int, *_: Any) -> Any:
    layout, wide = layout_of(currents, len(weight)), torch.promote_types(currents.dtype, torch.float32)
    shape = (steps, currents.shape[1], len(weight), *currents.shape[3:])
    spikes = layout.empty(shape, currents.dtype, currents.device)
    sample = (*currents.shape[:2], *(1,) * (currents.ndim - 2))
    return spikes, layout.empty(shape[1:], wide, currents.device), currents.new_empty(sample, dtype=wide)


@torch.library.custom_op("eisnn::population_backward", mutates_args=())
def _backward(
    currents: Tensor,
    weight: Tensor,
    smallest: Tensor,
    gain_e: Tensor,
    bias: Tensor,
    v: Tensor | None,
    grad_spikes: Tensor | None,
    grad_v_last: Tensor | None,
    steps: int,
    neuron: str,
    tonic: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the currents, of `M`, gain, bias and of the first potential (empty without one)."""
    constants = LIFConstants.decode(neuron)
    grad_currents = torch.empty_like(currents)
    grad_currents[:, :, sum(weight.shape) :] = 0
    with torch.autocast(currents.device.type, enabled=False):
        of = Population.of(currents, weight, gain_e, bias, v, constants, steps, tonic)
        found = of.backward(smallest, grad_spikes, grad_v_last, grad_currents)
    grad_v = gain_e.new_empty(0) if v is None or found.v is None else found.v.to(v.dtype)
    grad_weight = found.weight.to(weight.dtype).contiguous()
    return grad_currents, grad_weight, found.gain.to(gain_e.dtype), found.bias.to(bias.dtype), grad_v


@_backward.register_fake
def _(currents: Tensor, weight: Tensor, smallest: Tensor, gain_e: Tensor, bias: Tensor, v: Any, *_: Any) -> Any:
    grad_v = gain_e.new_empty(0) if v is None else torch.empty_like(v)
    return (*tuple(torch.empty_like(x) for x in (currents, weight, gain_e, bias)), grad_v)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    currents, weight, gain_e, bias, v, *ctx.rest = inputs
    ctx.save_for_backward(currents, weight, output[2], gain_e, bias, v)
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, grad_spikes: Tensor | None, grad_v_last: Tensor | None, _: Any) -> tuple[Any, ...]:
    *grads, grad_v = _backward(*ctx.saved_tensors, grad_spikes, grad_v_last, *ctx.rest)
    return (*grads, grad_v if ctx.needs_input_grad[4] else None, *(None,) * len(ctx.rest))


_forward.register_autograd(_gradients, setup_context=_keep)


class Gradients(NamedTuple):
    """Of a population: of `M` `[n_E, n_I]`, of gain and bias `[n_E]`, of the first potential (or None)."""

    weight: Tensor
    gain: Tensor
    bias: Tensor
    v: Tensor | None


@dataclass
class Population:
    """One call of the operation: its inputs, with gain, bias and potential in the dtype of its arithmetic."""

    currents: Tensor
    weight: Tensor
    gain: Tensor
    bias: Tensor
    v: Tensor | None
    constants: LIFConstants
    steps: int
    tonic: bool

    @classmethod
    def of(
        cls,
        currents: Tensor,
        weight: Tensor,
        gain_e: Tensor,
        bias: Tensor,
        v: Tensor | None,
        constants: LIFConstants,
        steps: int,
        tonic: bool,
    ) -> "Population":
        """For the arguments of `population`: compiled where that is possible."""
        wide = torch.promote_types(currents.dtype, torch.float32)
        gain, offset, v = gain_e.to(wide), bias.to(wide), None if v is None else v.to(wide)
        return IMPLEMENTATIONS[backends.of_neurons(currents, constants)](
            currents, weight, gain, offset, v, constants, steps, tonic
        )

    def forward(self) -> tuple[Tensor, Tensor, Tensor]:
        """Spikes, last potential, and the smallest positive divisive current of each sample `[T, B, 1, ...]`."""
        balanced, i_div = split_currents(self.currents, self.weight)
        dtype = self.gain.dtype
        smallest = i_div.new_empty((*i_div.shape[:2], *(1,) * (i_div.ndim - 2)), dtype=dtype)
        layout = layout_of(self.currents, len(self.weight))
        spikes = layout.empty((self.steps, *i_div.shape[1:]), i_div.dtype, i_div.device)
        v_last = layout.empty(i_div.shape[1:], dtype, i_div.device)
        for b in pieces(i_div):
            smallest[:, b] = smallest_positive(i_div[:, b])
            q, _ = self._quotient(balanced[:, b], i_div[:, b], smallest[:, b])
            v_last[b] = scan_(self._potentials(q), spikes[:, b], None if self.v is None else self.v[b], self.constants)
        return spikes, v_last, smallest

    def backward(
        self, smallest: Tensor, grad_spikes: Tensor | None, grad_v_last: Tensor | None, grad_currents: Tensor
    ) -> Gradients:
        """All gradients; that of the stacked currents is written into `grad_currents`."""
        balanced, i_div = split_currents(self.currents, self.weight)
        grad_balanced = self._parts(grad_currents)[0]
        others = tuple(a for a in range(i_div.ndim) if a != 2)
        grad_i_div = torch.empty_like(i_div)
        grad_gain, grad_bias = torch.zeros_like(self.gain), torch.zeros_like(self.bias)
        grad_v = None if self.v is None else torch.empty_like(self.v)
        for b in pieces(i_div):
            v = None if self.v is None else self.v[b]
            q, divisor = self._quotient(balanced[:, b], i_div[:, b], smallest[:, b])
            h = self._potentials(q)
            scratch = torch.empty_like(h)
            scan_(h, scratch, v, self.constants)
            upstream = scratch.zero_() if grad_spikes is None else grad_spikes[:, b]
            delta, before = scan_backward_(h, upstream, None if grad_v_last is None else grad_v_last[b], self.constants)
            if grad_v is not None:
                grad_v[b] = before
            if delta.shape[0] != q.shape[0]:
                delta = delta.sum(0, keepdim=True)
            grad_bias += delta.sum(others)
            grad_gain += (delta * q).sum(others)
            nbar = delta.mul_(per_neuron(self.gain, delta)).div_(divisor)
            grad_balanced[:, b] = nbar
            grad_i_div[:, b] = nbar.mul_(q).neg_()
        return Gradients(self._through_lateral(grad_i_div, grad_currents), grad_gain, grad_bias, grad_v)

    def _parts(self, stack: Tensor) -> tuple[Tensor, ...]:
        """The E and the I part of something stacked."""
        n_e, n_i = self.weight.shape
        return stack[:, :, :n_e], stack[:, :, n_e : n_e + n_i]

    def _through_lateral(self, grad_i_div: Tensor, grad_currents: Tensor) -> Tensor:
        """From `dL/dI_div`: writes `dL/dI_IE` into `grad_currents`, and returns `dL/dM`."""
        self._parts(grad_currents)[1].copy_(lateral(grad_i_div, self.weight.T))
        return by_position(grad_i_div).T @ by_position(self._parts(self.currents)[1])

    def _quotient(self, balanced: Tensor, i_div: Tensor, smallest: Tensor) -> tuple[Tensor, Tensor]:
        """`q = N / I_div~` and `I_div~`."""
        i_div = replace_zeros(i_div.to(self.gain.dtype), smallest)
        return balanced / i_div, i_div

    def _potentials(self, q: Tensor) -> Tensor:
        """`I_E` at each step, in memory of its own: what `scan_` turns into `H`."""
        i_e = torch.addcmul(per_neuron(self.bias, q), q, per_neuron(self.gain, q))
        return i_e if self.steps == i_e.shape[0] else i_e.expand(self.steps, *i_e.shape[1:]).clone()


class CompiledPopulation(Population):
    """The same by the compiled kernel; where the neurons lie inside, with the lateral product and its gradients."""

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
        smallest = torch.empty(*shape[:2], *(1,) * (len(shape) - 2), dtype=self.gain.dtype)
        maps |= {"spikes": spikes, "v_last": v_last}
        cpu.run("forward", layout, self.constants, self.steps, maps, smallest=smallest, **arrays)
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
            arrays["grad_weight"] = cpu.empty_grad_weight(arrays["weight"], shape[1])
        else:
            maps["grad_i_div"] = layout.empty(shape, self.currents.dtype)
        cpu.run("backward", layout, self.constants, self.steps, maps, smallest=smallest, **arrays)
        for part, own in zip(parts, written, strict=True):
            if part is not own:
                part.copy_(own)
        if (grad_i_div := maps.get("grad_i_div")) is not None:
            grad_weight = self._through_lateral(grad_i_div, grad_currents)
        else:
            grad_weight = arrays["grad_weight"].sum(0)[:, : self.weight.shape[1]]
        return Gradients(grad_weight, arrays["grad_gain"].sum(0), arrays["grad_bias"].sum(0), grad_v)


class TritonPopulation(Population):
    """The same by the Triton kernels. A pooled current with a tonic one is all that they need to divide; else `I_div`
    is made by torch, of so few images at a time that neither it nor its gradient takes the memory of a whole map."""

    @property
    def _within(self) -> bool:
        return self.tonic and self.weight.shape[1] == 2

    def _parts_of_batch(self) -> list[tuple[slice, "TritonPopulation"]]:
        """Some images at a time, and the operation on them alone."""
        batch, of_image = self.currents.shape[1], len(self.weight) * self.currents[:, 0, 0].numel()
        images = batch if self._within else min(batch, max(1, PART // max(1, of_image)))
        images = -(-batch // -(-batch // images))  # parts of about the same size
        slices = [slice(first, first + images) for first in range(0, batch, images)]
        states = [None if self.v is None else self.v[b] for b in slices]
        return [(b, replace(self, currents=self.currents[:, b], v=v)) for b, v in zip(slices, states, strict=True)]

    def _divided(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Balanced current, what divides it, and the weight that the latter has if that happens within the kernels."""
        if self._within:
            n_e = len(self.weight)
            balanced, dividing = self.currents[:, :, :n_e], self.currents[:, :, n_e : n_e + 1]
            return balanced, dividing, self.weight.to(self.gain.dtype).contiguous()
        return *split_currents(self.currents, self.weight), None

    def forward(self) -> tuple[Tensor, Tensor, Tensor]:
        from eisnn.ops.population import triton

        shape = (*self.currents.shape[:2], len(self.weight), *self.currents.shape[3:])
        layout, device = layout_of(self.currents, shape[2]), self.currents.device
        spikes = layout.empty((self.steps, *shape[1:]), self.currents.dtype, device)
        v_last = layout.empty(shape[1:], self.gain.dtype, device)
        smallest = (self.gain.new_zeros if self.tonic else self.gain.new_empty)(*shape[:2], *(1,) * (len(shape) - 2))
        gain, bias = self.gain.contiguous(), self.bias.contiguous()
        for b, part in self._parts_of_batch():
            balanced, dividing, weight = part._divided()
            if not self.tonic:
                triton.smallest_positive(dividing, noise_of(dividing), smallest[:, b])
            triton.forward(
                layout, balanced, dividing, smallest[:, b], weight, gain, bias, part.v, self.constants,
                spikes[:, b], v_last[b],
            )  # fmt: skip
        return spikes, v_last, smallest

    def backward(
        self, smallest: Tensor, grad_spikes: Tensor | None, grad_v_last: Tensor | None, grad_currents: Tensor
    ) -> Gradients:
        found = [
            part._backward(
                smallest[:, b],
                None if grad_spikes is None else grad_spikes[:, b],
                None if grad_v_last is None else grad_v_last[b],
                grad_currents[:, b],
            )
            for b, part in self._parts_of_batch()
        ]
        if len(found) == 1:
            return found[0]
        *summed, of_v = zip(*found, strict=True)
        weight, gain, bias = (torch.stack(parts).sum(0, dtype=self.gain.dtype) for parts in summed)
        return Gradients(weight, gain, bias, None if self.v is None else torch.cat(of_v))

    def _backward(
        self, smallest: Tensor, grad_spikes: Tensor | None, grad_v_last: Tensor | None, grad_currents: Tensor
    ) -> Gradients:
        from eisnn.ops.population import triton

        parts, (balanced, dividing, weight) = self._parts(grad_currents), self._divided()
        layout = layout_of(self.currents, len(self.weight))
        grad_dividing, grad_weight, grad_gain, grad_bias, grad_v = triton.backward(
            layout, balanced, dividing, smallest, weight, self.gain.contiguous(), self.bias.contiguous(), self.v,
            self.constants, self.steps, grad_spikes, grad_v_last, parts[0],
        )  # fmt: skip
        assert grad_dividing is not None
        assert grad_gain is not None
        assert grad_bias is not None
        if grad_weight is None:
            grad_weight = self._through_lateral(grad_dividing, grad_currents)
        else:
            parts[1][:, :, :1] = grad_dividing
            parts[1][:, :, 1:] = 0
        return Gradients(grad_weight, grad_gain, grad_bias, grad_v)


IMPLEMENTATIONS = {"triton": TritonPopulation, "compiled": CompiledPopulation, "torch": Population}
