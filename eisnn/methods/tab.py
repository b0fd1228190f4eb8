"""Temporal accumulated batch normalization; notation of `eisnn.methods.normalization`."""

import torch
from torch import Tensor, nn

from eisnn.methods.normalization import TimedNorm, timed_layers
from eisnn.nn.registry import Layers, register


class TAB(TimedNorm):
    """Temporal accumulated batch normalization (Jiang et al. 2024): step t is normalized by the statistics of all
    steps up to t, as the membrane has seen no others; scale, shift and a weight `p` belong to each step.

    The factor is `p[t]^2`, as in the authors' release, where the square keeps it positive. A training sequence has to
    be whole: the statistics accumulate from its first step.

    Args: as `BNTT`.
    Source: TAB: temporal accumulated batch normalization in spiking neural networks, ICLR 2024.
    """

    batch_statistics = True
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, time_steps: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__(channels, time_steps)
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(time_steps, channels))
        self.bias = nn.Parameter(torch.zeros(time_steps, channels))
        self.p = nn.Parameter(torch.ones(time_steps))
        self.register_buffer("running_mean", torch.zeros(time_steps, channels))
        self.register_buffer("running_var", torch.ones(time_steps, channels))

    def _at(self, x: Tensor, start: int, stop: int) -> Tensor:
        if not self.training:
            mean, var = self.running_mean[start:stop], self.running_var[start:stop]
        elif start:
            raise ValueError(
                f"TAB accumulates its statistics from the first step of a sequence, this one starts at step {start}: "
                "train on whole sequences, or call eval() to carry state"
            )
        else:
            mean, var = self._accumulated(x, stop)
        steps = slice(start, stop)
        factor = self.p[steps, None].square()
        scale = factor * self.weight[steps] * (var + self.eps).rsqrt()
        shift = factor * self.bias[steps] - mean * scale
        return self._by_step(shift, x) + self._by_step(scale, x) * x

    def _accumulated(self, x: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Mean and variance `[T, C]` of the steps 1..t for each t; keeps their running averages."""
        count = x[0, :, 0].numel()
        if count == 1:
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {list(x.shape)}")
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        var, mean = torch.var_mean(wide, [axis for axis in range(x.ndim) if axis not in (0, 2)], correction=0)
        var, mean = var.expand(steps, -1), mean.expand(steps, -1)
        seen = torch.arange(1, steps + 1, device=x.device, dtype=wide.dtype)[:, None]
        share = torch.ones(steps, steps, device=x.device, dtype=wide.dtype).tril() / seen
        total_mean = share @ mean
        # Within steps and between them: no difference of large numbers.
        between = (mean[None] - total_mean[:, None]).square()
        total_var = share @ var + (share[..., None] * between).sum(1)
        with torch.no_grad():
            n = count * seen
            self.running_mean[:steps].lerp_(total_mean.to(self.running_mean.dtype), self.momentum)
            self.running_var[:steps].lerp_((total_var * n / (n - 1)).to(self.running_var.dtype), self.momentum)
        return total_mean, total_var


@register("tab")
def tab(neuron: nn.Module | None, time_steps: int | None) -> Layers:
    """Temporal accumulated batch normalization."""
    return timed_layers(neuron, time_steps, TAB)
