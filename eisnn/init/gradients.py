"""Even gradients: the width of each layer's surrogate, set from data so that gradients neither fade nor explode.

The backward pass of a spike is a choice: nothing in the forward pass depends on the width of the surrogate derivative.
Each layer multiplies the gradient by a factor that grows with the height of its surrogate, so that a width at which
the factor is 1 carries the gradient through any depth ((M14) of docs/science/method.md; the idea is SpikeInit's, ICML
2026).
"""

from collections.abc import Iterable
from dataclasses import replace
from math import exp, inf, log, sqrt
from typing import Any

import torch
from torch import Tensor, nn

from eisnn.functional import LIFConstants
from eisnn.init.statistics import sum_over
from eisnn.nn import SpikingLayer, layers_of
from eisnn.ops import lif

REACH = 8.0  # a width lies within this factor of the one that the neuron came with
TOLERANCE = 0.01  # of the norm
STEPS = 20  # at most, towards it


def even_gradients_(model: nn.Module, batch: Tensor, layers: Iterable[SpikingLayer], group: Any = None) -> None:
    """Set the surrogate widths of `layers` so that `dL/dI_E` has the same Euclidean norm in each, for this batch.

    One forward and one backward pass of the model. The circuit that the gradient reaches first keeps its width and sets
    the norm; each layer below takes the width that gives it this norm, or the nearest within a factor of 8 of its own,
    before the gradient goes on. The loss is a sum of the outputs with alternating signs: how gradients grow hardly
    depends on the loss, and this one asks neither for labels nor for chance. Weights and their `.grad` stay untouched.

    Args:
        model: all of whose circuits are initialised; `model(batch)` returns a tensor `[..., classes]`.
        batch: as E-I Init takes it.
        layers: of `model`, ending in `LIF` or `PLIF` neurons; the model's other circuits keep their widths.
        group: of `torch.distributed`; norms are those of the joint batch.
    Raises: TypeError or ValueError if the model returns something else, or nothing that depends on its circuits, if the
        gradient is not finite, or if a neuron has no width; RuntimeError in inference mode.
    """
    free = {id(layer) for layer in layers}
    if not free:
        return
    if torch.is_inference_mode_enabled():
        raise RuntimeError("even gradients need a backward pass: call ei_init_ outside of torch.inference_mode()")
    target = _Target(group)
    circuits = [m for m in layers_of(model).values() if "even_gradients" in m.measured]
    probes = [(layer, _Probe(layer, target, fixed=id(layer) not in free)) for layer in circuits]
    try:
        for layer, probe in probes:
            layer.neuron = probe
        with torch.enable_grad():
            loss = _loss(model(batch))
            torch.autograd.grad(loss, [probe.here for _, probe in probes], allow_unused=True)
    finally:
        for layer, probe in probes:
            layer.neuron = probe.neuron
    for _, probe in probes:
        probe.neuron.set_surrogate_width_(probe.width)


def _loss(out: Any) -> Tensor:
    """Sum of the outputs `[..., classes]` with alternating signs."""
    wanted = "even gradients are measured from what model(first_batch) returns: logits [..., classes]"
    otherwise = "return them, or build the circuits with even_gradients=False"
    if not isinstance(out, Tensor):
        raise TypeError(f"{wanted}; it is a {type(out).__name__}: {otherwise}")
    if out.ndim == 0 or not out.requires_grad:
        what = "a single number" if out.ndim == 0 else "a tensor through which no gradient comes back"
        raise ValueError(f"{wanted}; it is {what}: {otherwise}")
    return out[..., ::2].sum() - out[..., 1::2].sum()


class _Target:
    """The norm that the gradient shall have in each layer: None until the first one has set it."""

    def __init__(self, group: Any) -> None:
        self.group = group
        self.norm: float | None = None

    def measure(self, gradient: Tensor) -> float:
        """Euclidean norm over the joint batch."""
        square = gradient.double().square().sum()
        sum_over(square, self.group)
        return sqrt(float(square))


class _Probe(nn.Module):
    """Stands in for the neuron of one layer, and chooses its width when the gradient of its spikes arrives."""

    def __init__(self, layer: SpikingLayer, target: _Target, fixed: bool) -> None:
        super().__init__()
        self.neuron = neuron = layer.surrogate
        self.target, self.fixed, self.chosen = target, fixed, False
        self.constants: LIFConstants = neuron.constants
        self.width = self.constants.width if fixed else neuron.given_width
        self.here = torch.zeros((), requires_grad=True)  # what the gradient is asked for, though all weights be frozen

    def forward(self, current: Tensor) -> Tensor:
        return _ChooseWidth.apply(current + self.here.to(current), self)

    def through(self, current: Tensor, grad_spikes: Tensor, width: float) -> Tensor:
        """`dL/dI_E` by a surrogate of this width."""
        with torch.enable_grad():
            leaf = current.detach().requires_grad_()
            spikes, _ = lif(leaf, replace(self.constants, alpha=width))
        return torch.autograd.grad(spikes, leaf, grad_spikes)[0]

    def choose(self, current: Tensor, grad_spikes: Tensor) -> Tensor:
        """`dL/dI_E` by the width that gives it the norm of the target."""
        gradient = self.through(current, grad_spikes, self.width)
        if self.chosen:  # a layer used twice keeps its first width
            return gradient
        self.chosen = True
        norm = self.target.measure(gradient)
        if not norm < inf:
            raise ValueError("even gradients: the gradient of the first batch is not finite")
        if self.target.norm is None:
            self.target.norm = norm or None  # a layer from which nothing comes back sets no norm
        elif norm and not self.fixed:
            self.width = self._solve(current, grad_spikes)
            gradient = self.through(current, grad_spikes, self.width)
        return gradient

    def _solve(self, current: Tensor, grad_spikes: Tensor) -> float:
        """The width at which the norm meets the target, between the two ends of what is allowed; else the end that
        comes nearer."""
        target = self.target.norm
        assert target is not None

        def excess(log_width: float) -> float:
            norm = self.target.measure(self.through(current, grad_spikes, exp(log_width)))
            return log(max(norm, 1e-300) / target)

        ends = [log(self.width / REACH), log(self.width * REACH)]
        values = [excess(end) for end in ends]
        if values[0] * values[1] > 0:
            return exp(ends[0] if abs(values[0]) < abs(values[1]) else ends[1])
        middle = ends[0]
        for _ in range(STEPS):  # false position; the end that stays twice counts half (Illinois)
            middle = (ends[0] * values[1] - ends[1] * values[0]) / (values[1] - values[0])
            value = excess(middle)
            if abs(value) < TOLERANCE:
                break
            replaced = 0 if value * values[0] > 0 else 1
            ends[replaced], values[replaced] = middle, value
            values[1 - replaced] /= 2
        return exp(middle)


class _ChooseWidth(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, current: Tensor, probe: _Probe) -> Tensor:
        ctx.save_for_backward(current)
        ctx.probe = probe
        return lif(current, probe.constants)[0]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (current,) = ctx.saved_tensors
        return ctx.probe.choose(current, grads[0]), None
