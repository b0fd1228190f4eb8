"""BackEISNN (Zhao et al. 2022): each convolutional layer scales its input by feedback of its own output, and a gate of
its membrane decides whether a neuron's spike excites or inhibits.

    H[t] = decay V[t-1] + sigmoid(W_back o[t-1] + b_back) I[t]
    s[t] = 1 where H[t] > theta (at the threshold itself a neuron is silent),  V[t] by the neuron's reset
    o[t] = sign(W_gate H[t] + b_gate) s[t]                           in {-1, 0, 1}

`W_back` and `W_gate` are convolutions of the layer with itself; backward, the sign is the identity where its argument
lies within 0.5 of 0. There is no normalization, and no constraint on the signs of weights. Linear layers are plain LIF.

Source: BackEISNN: a deep spiking neural network with adaptive self-feedback and balanced excitatory-inhibitory neurons,
Neural Networks 154, 2022; as in the authors' release, for images of CIFAR-10. Its neurons are
`LIF(tau=1.25, theta=0.5, reset="hard", surrogate="rectangle", detach_reset=False)`. Feedforward weights start here as
those of plain layers (fluctuation-driven), doubled because feedback starts at sigmoid(0) = 1/2, so that deep networks
fire; the release keeps the framework's.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from eisnn.functional import heaviside, potential_after
from eisnn.functional.checks import check_steps
from eisnn.methods.plain import PlainLayer, fluctuation_driven_, lif_constants
from eisnn.nn.neurons import LIF, plain_lif
from eisnn.nn.projection import ProjectionLayer, projected
from eisnn.nn.registry import Layers, register


class _Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sign()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grads[0] * (x.abs() < 0.5)


class BackEI(LIF):
    """LIF neurons of a map `[T, B, C, H, W]` with self-feedback and signed spikes; called as `LIF`.

    Args:
        channels: C.
        lif: whose constants they have.
        kernel_size: of feedback and gate, odd.
    The state is `(V, o)` after the last step, each `[B, C, H, W]`.
    """

    def __init__(self, channels: int, lif: LIF, kernel_size: int = 3) -> None:
        super().__init__()
        self.constants = lif.constants
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"BackEI: kernel_size must be odd, got {kernel_size}")
        self.feedback, self.gate = (
            nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2) for _ in range(2)
        )

    def forward(
        self, current: Tensor, time_steps: int | None = None, state: Any = None, return_state: bool = False
    ) -> Any:
        c, steps = self.constants, check_steps("BackEI", current.shape, time_steps)
        v, o = self._start(current, state)
        outputs = []
        for i in current.expand(steps, *current.shape[1:]):
            scaled = torch.sigmoid(self.feedback(o)) * i
            h = c.decay * v + scaled
            s = 1 - heaviside(c.theta - h, c.surrogate, c.alpha)  # above the threshold only; surrogates are even in h
            v = potential_after(h, s, c)
            o = _Sign.apply(self.gate(h)) * s
            outputs.append(o)
        spikes = torch.stack(outputs)
        return (spikes, (v, o)) if return_state else spikes

    @staticmethod
    def _start(current: Tensor, state: Any) -> tuple[Tensor, Tensor]:
        if state is None:
            return torch.zeros_like(current[0]), torch.zeros_like(current[0])
        shapes = [list(part.shape) if isinstance(part, Tensor) else type(part).__name__ for part in state]
        if shapes != [list(current.shape[1:])] * 2:
            raise ValueError(
                f"the state of BackEI is (potential, output), each here of shape {list(current.shape[1:])}, got "
                f"{shapes}; pass what was returned for a batch of this size"
            )
        return state[0], state[1]


class BackEILayer(ProjectionLayer):
    """A convolution and `BackEI` neurons.

    Args:
        projection: without bias; its weights are filled.
        neuron: an `LIF`, whose constants the neurons take; None returns the currents.
    Raises: TypeError for any other neuron.
    """

    def __init__(self, projection: nn.Conv2d, neuron: nn.Module | None) -> None:
        if neuron is not None and not plain_lif(neuron):
            raise TypeError(
                f"BackEILayer: neuron must be a module, an eisnn.LIF whose constants it takes; got {neuron!r}"
            )
        super().__init__(projection, None if neuron is None else BackEI(projection.out_channels, neuron))
        fluctuation_driven_(projection.weight, lif_constants(neuron))
        with torch.no_grad():
            projection.weight.mul_(2)


@register("backei", neurons="own")
def backei(neuron: nn.Module | None, time_steps: int | None) -> Layers:
    """Self-feedback and signed spikes in convolutional layers, plain linear ones."""
    own = projected(lambda projection: BackEILayer(projection, neuron))  # type: ignore[arg-type]
    return replace(projected(lambda projection: PlainLayer(projection, neuron)), conv=own.conv)
