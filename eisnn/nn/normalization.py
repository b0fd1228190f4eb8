"""Normalizations for spiking networks, one module each: `[T, B, C, ...]` currents in and out.

    x[t]         currents of step t = 1..T
    mu, var      mean and variance of a channel over the batch, the positions and the steps that are named
    x^           (x - mu) / sqrt(var + eps)

    method       statistics over        own to each step         y[t]
    TDBN         all steps              nothing                  gamma alpha theta x^[t] + beta
    BNTT         step t                 mu, var, gamma           gamma[t] x^[t]
    TEBN         all steps              p                        p[t] (gamma x^[t] + beta)
    TAB          steps 1..t             mu, var, gamma, beta, p  p[t]^2 (gamma[t] x^[t] + beta[t])
    NeuNorm      channels, past steps   nothing                  see `eisnn.nn.neunorm`

All are called as layers are, `norm(x, time_steps=None, state=None, return_state=False)`. A static current `[1, B, ...]`
with `time_steps=T` counts as T equal steps; what differs by step returns all T of them. In evaluation running averages
of the statistics are used. Statistics are those of one process.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from eisnn.functional.checks import check_int, check_steps, is_int
from eisnn.functional.connection import per_neuron
from eisnn.nn.layer import check_stateless, layer_output


class SequenceNorm(nn.Module):
    """Base: a normalization of sequences `[T, B, C, ...]`, with the call of a layer.

    Args of the call:
        x: `[T, B, C, ...]`, or `[1, B, C, ...]` with `time_steps=T`.
        state: as returned by the call for the steps before; None is the start of a sequence.
        return_state: also return the state after the last step (None for what keeps none).
    Returns: `[T, B, C, ...]` (`[1, B, C, ...]` for a static input where all steps are equal), or (that, state).
    Raises: ValueError for a sequence or state that does not fit.
    """

    stateful: ClassVar[bool] = False

    def __init__(self, channels: int) -> None:
        super().__init__()
        check_int(type(self).__name__, "channels", channels)
        self.channels = channels

    def forward(self, x: Tensor, time_steps: int | None = None, state: Any = None, return_state: bool = False) -> Any:
        name = type(self).__name__
        if x.ndim < 3 or x.shape[2] != self.channels:
            raise ValueError(f"{name} takes [T, B, {self.channels}, ...], got shape {list(x.shape)}")
        steps = check_steps(name, x.shape, time_steps)
        return layer_output(*self._normalize(x, steps, state), return_state)

    def _normalize(self, x: Tensor, steps: int, state: Any) -> tuple[Tensor, Any]:
        raise AttributeError(f"{type(self).__name__} defines no _normalize()")

    def affine(self) -> tuple[Tensor, Tensor] | None:
        """Scale and shift `[C]` of evaluation mode, if they are the same at every step; else None."""
        return None


class _Standardize(_BatchNorm):
    """torch's batch norm for `[N, C, ...]` of any number of axes."""

    def _check_input_dim(self, input: Tensor) -> None:
        """F.batch_norm itself refuses a single value for a channel."""


def _sequence(norm: nn.Module, x: Tensor) -> Tensor:
    """`norm` of the merged T*B axis."""
    return norm(x.flatten(0, 1)).unflatten(0, x.shape[:2])


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
        self.standardize = _Standardize(channels, eps, momentum, affine=False)
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def _normalize(self, x: Tensor, steps: int, state: Any) -> tuple[Tensor, Any]:
        check_stateless(state, "TDBN")
        standard = _sequence(self.standardize, x)
        return per_neuron(self.bias, x) + per_neuron(self.scale * self.weight, x) * standard, None

    def affine(self) -> tuple[Tensor, Tensor] | None:
        mean, var = self.standardize.running_mean, self.standardize.running_var
        assert mean is not None
        assert var is not None
        scale = self.scale * self.weight * (var + self.standardize.eps).rsqrt()
        return scale, self.bias - mean * scale


class TimedNorm(SequenceNorm):
    """Base of the normalizations with parameters for each of `time_steps` steps. The state is the index of the next
    step; beyond the last one there is nothing to go on with, which is an error."""

    stateful = True

    def __init__(self, channels: int, time_steps: int) -> None:
        super().__init__(channels)
        check_int(type(self).__name__, "time_steps", time_steps)
        self.time_steps = time_steps

    def _normalize(self, x: Tensor, steps: int, state: Any) -> tuple[Tensor, Any]:
        name, start = type(self).__name__, 0 if state is None else state
        if not is_int(start, 0):
            raise ValueError(f"the state of {name} is the index of the next step, an int >= 0, got {start!r}")
        if start + steps > self.time_steps:
            raise ValueError(
                f"{name} has parameters for {self.time_steps} time steps and cannot go beyond; this sequence has steps "
                f"{start} to {start + steps - 1}"
            )
        return self._at(x, start, start + steps), start + steps

    def _at(self, x: Tensor, start: int, stop: int) -> Tensor:
        """The normalized steps `start` to `stop - 1` of `x`, `[T or 1, B, C, ...]`."""
        raise AttributeError(f"{type(self).__name__} defines no _at()")

    def _by_step(self, values: Tensor, like: Tensor) -> Tensor:
        """`[T]` or `[T, C]` shaped to multiply `[T, B, C, ...]`."""
        channels = values.shape[1] if values.ndim == 2 else 1
        return values.view(-1, 1, channels, *(1,) * (like.ndim - 3))


class BNTT(TimedNorm):
    """Batch normalization through time (Kim and Panda 2021): statistics, running averages and the scale
    `gamma` are those of each step alone; there is no shift `beta`.

    Args:
        channels: C.
        time_steps: T, the longest sequence.
        eps, momentum: as `torch.nn.BatchNorm2d`.
    Source: Revisiting batch normalization for training low-latency deep spiking neural networks from scratch,
    Frontiers in Neuroscience 15, 2021, arXiv 2010.01729.
    """

    def __init__(self, channels: int, time_steps: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__(channels, time_steps)
        self.steps = nn.ModuleList(_Standardize(channels, eps, momentum) for _ in range(time_steps))
        for step in self.steps:
            step.register_parameter("bias", None)

    def _at(self, x: Tensor, start: int, stop: int) -> Tensor:
        currents = x.expand(stop - start, *x.shape[1:])
        return torch.stack([self.steps[start + t](current) for t, current in enumerate(currents)])


class TEBN(TimedNorm):
    """Temporal effective batch normalization (Duan et al. 2022): one batch norm over all steps, whose
    scale and shift are multiplied by a weight `p[t]` of each step.

    Args: as `BNTT`.
    Source: Temporal effective batch normalization in spiking neural networks, NeurIPS 2022.
    """

    def __init__(self, channels: int, time_steps: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__(channels, time_steps)
        self.norm = _Standardize(channels, eps, momentum)
        self.p = nn.Parameter(torch.ones(time_steps))

    def _at(self, x: Tensor, start: int, stop: int) -> Tensor:
        return self._by_step(self.p[start:stop], x) * _sequence(self.norm, x)


class TAB(TimedNorm):
    """Temporal accumulated batch normalization (Jiang et al. 2024): step t is normalized by the statistics of all
    steps up to t, as the membrane has seen no others; scale, shift and a weight `p` belong to each step.

    The factor is `p[t]^2`, as in the authors' release, where the square keeps it positive. A training sequence has to
    be whole: the statistics accumulate from its first step.

    Args: as `BNTT`.
    Source: TAB: temporal accumulated batch normalization in spiking neural networks, ICLR 2024.
    """

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
