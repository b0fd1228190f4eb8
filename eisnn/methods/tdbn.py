"""Threshold-dependent batch normalization; notation of `eisnn.methods.normalization`."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from eisnn.functional import per_neuron
from eisnn.methods.normalization import SequenceNorm, Standardize, by_sequence, normalized_layers
from eisnn.methods.plain import lif_constants
from eisnn.nn.neurons import check_stateless
from eisnn.nn.registry import Layers, register


class TDBN(SequenceNorm):
    """Threshold-dependent batch normalization (Zheng et al. 2021): one mean and variance over all steps,
    and currents scaled to the threshold, `N(0, (alpha theta)^2)`.

    With `alpha theta = 1` this is batch normalization over the merged T*B axis. Zheng et al. take `alpha = 1`, and
    `1/sqrt(n)` where n branches add up before one neuron; here none do (residuals are added after it).

    Args:
        channels: C.
        threshold: theta of the neuron that follows, > 0.
        alpha: see above, > 0.
        eps, momentum: as `torch.nn.BatchNorm2d`.
    Source: Going deeper with directly-trained larger spiking neural networks, AAAI 2021, arXiv 2011.05280.
    """

    def __init__(
        self, channels: int, threshold: float = 1.0, alpha: float = 1.0, eps: float = 1e-5, momentum: float = 0.1
    ) -> None:
        super().__init__(channels)
        if not (threshold > 0 and alpha > 0):
            raise ValueError(f"TDBN: threshold and alpha must be > 0, got {threshold!r} and {alpha!r}")
        self.scale = threshold * alpha
        self.standardize = Standardize(channels, eps, momentum, affine=False)
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def _normalize(self, x: Tensor, steps: int, state: Any) -> tuple[Tensor, Any]:
        check_stateless(state, "TDBN")
        standard = by_sequence(self.standardize, x)
        return per_neuron(self.bias, x) + per_neuron(self.scale * self.weight, x) * standard, None

    def affine(self) -> tuple[Tensor, Tensor] | None:
        mean, var = self.standardize.running_mean, self.standardize.running_var
        assert mean is not None
        assert var is not None
        scale = self.scale * self.weight * (var + self.standardize.eps).rsqrt()
        return scale, self.bias - mean * scale


@register("tdbn")
def tdbn(neuron: nn.Module | None, time_steps: int | None) -> Layers:
    """Threshold-dependent batch norm, scaled to the threshold of the neuron."""
    return normalized_layers(neuron, partial(TDBN, threshold=lif_constants(neuron).theta))
