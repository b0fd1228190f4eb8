"""What the normalizations for spiking networks share: `[T, B, C, ...]` currents in and out.

    x[t]         currents of step t = 1..T
    mu, var      mean and variance of a channel over the batch, the positions and the steps that are named
    x^           (x - mu) / sqrt(var + eps)

    method       statistics over        own to each step         y[t]
    TDBN         all steps              nothing                  gamma alpha theta x^[t] + beta
    BNTT         step t                 mu, var, gamma           gamma[t] x^[t]
    TEBN         all steps              p                        p[t] (gamma x^[t] + beta)
    TAB          steps 1..t             mu, var, gamma, beta, p  p[t]^2 (gamma[t] x^[t] + beta[t])
    NeuNorm      channels, past steps   nothing                  see `eisnn.methods.neunorm`

All are called as layers are, `norm(x, time_steps=None, state=None, return_state=False)`. A static current `[1, B, ...]`
with `time_steps=T` counts as T equal steps; what differs by step returns all T of them. In evaluation running averages
of the statistics are used. Statistics are those of one process.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from eisnn.functional.checks import check_int, check_steps, is_int
from eisnn.nn.neurons import run_neuron
from eisnn.nn.projection import ProjectionLayer, projected
from eisnn.nn.registry import Layers


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
    batch_statistics: ClassVar[bool] = False  # whether training takes them by itself, not through torch's batch norm

    def __init__(self, channels: int) -> None:
        super().__init__()
        check_int(type(self).__name__, "channels", channels)
        self.channels = channels

    def forward(self, x: Tensor, time_steps: int | None = None, state: Any = None, return_state: bool = False) -> Any:
        name = type(self).__name__
        if x.ndim < 3 or x.shape[2] != self.channels:
            raise ValueError(f"{name} takes [T, B, {self.channels}, ...], got shape {list(x.shape)}")
        steps = check_steps(name, x.shape, time_steps)
        out, state = self._normalize(x, steps, state)
        return (out, state) if return_state else out

    def _normalize(self, x: Tensor, steps: int, state: Any) -> tuple[Tensor, Any]:
        raise AttributeError(f"{type(self).__name__} defines no _normalize()")

    def affine(self) -> tuple[Tensor, Tensor] | None:
        """Scale and shift `[C]` of evaluation mode, if they are the same at every step; else None."""
        return None


class Standardize(_BatchNorm):
    """torch's batch norm for `[N, C, ...]` of any number of axes."""

    def _check_input_dim(self, input: Tensor) -> None:
        """F.batch_norm itself refuses a single value for a channel."""


def by_sequence(norm: nn.Module, x: Tensor) -> Tensor:
    """`norm` of the merged T*B axis."""
    return norm(x.flatten(0, 1)).unflatten(0, x.shape[:2])


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


class NormalizedLayer(ProjectionLayer):
    """A projection, a `SequenceNorm` and a neuron. Where the normalization keeps a state, the layer's is (that of the
    normalization, that of the neuron).

    Args:
        projection: e.g. `nn.Conv2d(3, 64, 3, padding=1, bias=False)`.
        norm: of its output channels, e.g. `BNTT(64, time_steps=4)`.
        neuron: copied into the layer; None returns the normalized currents.
    """

    def __init__(self, projection: nn.Conv2d | nn.Linear, norm: SequenceNorm, neuron: nn.Module | None) -> None:
        super().__init__(projection, neuron)
        self.norm = norm

    def respond_to(self, current: Tensor, time_steps: int | None, state: Any, return_state: bool) -> tuple[Tensor, Any]:
        of_norm, of_neuron = self._split(state)
        current, of_norm = self.norm(current, time_steps, of_norm, return_state=True)
        out, of_neuron = run_neuron(self.neuron, current, time_steps, of_neuron, return_state)
        return out, (of_norm, of_neuron) if self.norm.stateful else of_neuron

    def _split(self, state: Any) -> tuple[Any, Any]:
        if state is None or not self.norm.stateful:
            return None, state
        if not isinstance(state, tuple | list) or len(state) != 2:
            raise ValueError(
                f"the state of this {type(self).__name__} is (state of its {type(self.norm).__name__}, state of its "
                f"neurons), got {type(state).__name__}; pass what was returned"
            )
        return state[0], state[1]

    def affine(self) -> tuple[Tensor, Tensor] | None:
        return self.norm.affine()


def normalized_layers(neuron: nn.Module | None, norm: Callable[[int], SequenceNorm]) -> Layers:
    """Layers with the normalization that `norm(channels)` makes."""
    return projected(lambda projection: NormalizedLayer(projection, norm(len(projection.weight)), neuron))


def timed_layers(neuron: nn.Module | None, time_steps: int | None, norm: Callable[..., TimedNorm]) -> Layers:
    """Layers with the normalization that `norm(channels, time_steps)` makes."""
    if time_steps is None:
        raise ValueError(f"{norm.__name__} has parameters for each time step: give time_steps")
    return normalized_layers(neuron, partial(norm, time_steps=time_steps))
