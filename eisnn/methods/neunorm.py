"""NeuNorm: a layer's spikes less the recent activity of all its channels, not a normalization of currents."""

from typing import Any

import torch
from torch import Tensor, nn

from eisnn.functional import per_neuron
from eisnn.methods.normalization import NormalizedLayer, SequenceNorm
from eisnn.methods.plain import fluctuation_driven_, lif_constants
from eisnn.nn.neurons import run_neuron
from eisnn.nn.projection import projected
from eisnn.nn.registry import Layers, register


class NeuNorm(SequenceNorm):
    """Neuron normalization (Wu et al. 2019): auxiliary neurons follow the activity of all F channels at a position,
    and the next layer receives the spikes less their inhibition.

        a[t] = k a[t-1] + v/F sum_f o_f[t],   k + v F = 1        (so v/F = (1 - k) / F^2)
        y_f[t] = o_f[t] - u_f a[t]

    As published this inhibits by a small part of the mean activity, `(1 - k) / F` of it: next to nothing at 512
    channels.

    `u` is trainable and here the same at all positions of a channel, as the layers do not know the size of their maps;
    Wu et al. let it differ by position. It starts at 1 (the paper's start is not known to us).

    Args:
        channels: F.
        decay: k of the auxiliary neurons, in [0, 1).
    The state is `a` after the last step, `[B, 1, ...]`.
    Source: Direct training for spiking neural networks: faster, larger, better, AAAI 2019, arXiv 1809.05793.
    """

    stateful = True

    def __init__(self, channels: int, decay: float = 0.9) -> None:
        super().__init__(channels)
        if not 0 <= decay < 1:
            raise ValueError(f"NeuNorm: decay must lie in [0, 1), got {decay!r}")
        self.decay, self.gain = decay, (1 - decay) / channels**2
        self.u = nn.Parameter(torch.ones(channels))

    def _normalize(self, x: Tensor, steps: int, state: Any) -> tuple[Tensor, Any]:
        activity = self.gain * x.sum(2, keepdim=True)
        if state is not None and (not isinstance(state, Tensor) or state.shape != activity[0].shape):
            given = list(state.shape) if isinstance(state, Tensor) else type(state).__name__
            raise ValueError(
                f"the state of NeuNorm is its auxiliary potential, here of shape {list(activity[0].shape)}, got {given}"
            )
        a, trace = (torch.zeros_like(activity[0]) if state is None else state), []
        for current in activity.expand(steps, *activity.shape[1:]):
            a = self.decay * a + current
            trace.append(a)
        return x - per_neuron(self.u, x) * torch.stack(trace), a


class NeuNormLayer(NormalizedLayer):
    """A projection, a neuron, and `NeuNorm` behind it. It leaves the currents to the weights, which are filled."""

    def __init__(self, projection: nn.Conv2d | nn.Linear, neuron: nn.Module | None) -> None:
        super().__init__(projection, NeuNorm(len(projection.weight)), neuron)
        fluctuation_driven_(projection.weight, lif_constants(neuron))

    def respond_to(self, current: Tensor, time_steps: int | None, state: Any, return_state: bool) -> tuple[Tensor, Any]:
        of_norm, of_neuron = self._split(state)
        out, of_neuron = run_neuron(self.neuron, current, time_steps, of_neuron, return_state)
        out, of_norm = self.norm(out, None, of_norm, return_state=True)
        return out, (of_norm, of_neuron)


@register("neunorm")
def neunorm(neuron: nn.Module | None, time_steps: int | None) -> Layers:
    """Conv-LIF-NeuNorm."""
    return projected(lambda projection: NeuNormLayer(projection, neuron))
