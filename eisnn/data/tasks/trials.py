"""Trials of a task: what is seen at each step, which choice is right, and what varied from trial to trial."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import xxhash
from pydantic import Field
from torch import Generator, Tensor

from eisnn.config import Config, Positive
from eisnn.data.augment import RandomTransform
from eisnn.data.dataset import Split
from eisnn.data.errors import DataError
from eisnn.data.stream import stream


class TrialSettings(Config):
    """Which trials of a task are made; the same settings make the same trials."""

    dt: Positive = Field(20, description="Milliseconds in a time step; every period is a multiple of it.")
    train_trials: Positive = Field(5_000, description="Trials to train on.")
    test_trials: Positive = Field(2_000, description="Others, to evaluate on.")
    trial_seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(0, description="Of all trials.")


class PlainTrials(RandomTransform):
    """Trials are not augmented: noise is a part of them."""

    def draw(self, n: int, shape: Sequence[int], generator: Generator) -> dict[str, Tensor]:
        return {}

    def apply(self, pixels: Any, draws: dict[str, Tensor], size: int | None) -> Tensor:
        return pixels.transpose(0, 1)[..., None, None]


@dataclass(frozen=True, eq=False, repr=False)
class Trials(Split):
    """N trials, which come in batches float32 [T, B, C, 1, 1]: sequences of frames of one pixel, so that networks,
    recording and reports take them as they take frames of events.

    All trials end together: shorter ones begin with steps at which nothing is seen.

    Attributes:
        inputs: float32 [N, T, C], >= 0: firing rates of input neurons, arbitrary units.
        labels: int64 [N], the right choice.
        dt: milliseconds in a step.
        conditions: what varied, such as the coherence, each [N].
        periods: first step and the one after the last, int64 [N, 2], by name; the last is "decision".

    Raises:
        DataError: the dtypes or shapes are others than these.
    """

    inputs: Tensor
    labels: Tensor
    dt: int
    conditions: Mapping[str, Tensor]
    periods: Mapping[str, Tensor]
    batch_axis = 1
    augmentation = PlainTrials
    kind = "trials"

    def __post_init__(self) -> None:
        if self.inputs.dtype != torch.float32 or self.inputs.ndim != 3:
            raise DataError(f"inputs are {self.inputs.dtype} {list(self.inputs.shape)}, expected float32 [N, T, C]")
        each = {"inputs": self.inputs, **self.conditions, **self.periods}
        if wrong := [name for name, values in each.items() if len(values) != len(self)]:
            raise DataError(f"there are {len(self)} labels, but not as many {', '.join(wrong)}")

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return (*self.inputs.shape[1:], 1, 1)

    @property
    def nbytes(self) -> int:
        return self.inputs.nbytes

    def lasts(self, period: str) -> Tensor:
        """How long a period of each trial is, ms, float64 [N]; DataError for a period that the task has not."""
        start, stop = self._bounds(period)
        return (stop - start).double() * self.dt

    def during(self, period: str) -> Tensor:
        """Mask of the steps of a period, bool [N, T]; DataError for a period that the task has not."""
        start, stop = self._bounds(period)[..., None]
        steps = torch.arange(self.inputs.shape[1], device=start.device)
        return (start <= steps) & (steps < stop)

    def _bounds(self, period: str) -> Tensor:
        """First steps of a period, and those after the last, [2, N]."""
        if period not in self.periods:
            raise DataError(f"trials have no period {period!r}; they have: {', '.join(self.periods)}")
        return self.periods[period].T

    def _map(self, function: Any) -> "Trials":
        conditions, periods = ({k: function(v) for k, v in of.items()} for of in (self.conditions, self.periods))
        return Trials(function(self.inputs), function(self.labels), self.dt, conditions, periods)

    def __getitem__(self, index: Tensor | slice) -> "Trials":
        return self._map(lambda values: values[index])

    def to(self, device: torch.device | str) -> "Trials":
        return self._map(lambda values: values.to(device))

    def batches(self, order: Tensor, parts: Iterable[slice], device: torch.device | None) -> Iterator[Tensor]:
        if device is not None:
            return stream(self.inputs, (order[part] for part in parts), device)
        order = order.to(self.inputs.device)
        return (self.inputs[order[part]] for part in parts)

    def digest(self) -> str:
        digest = xxhash.xxh3_128()
        for name, values in {"inputs": self.inputs, "labels": self.labels, **self.conditions, **self.periods}.items():
            digest.update(f"{name} {values.dtype} {list(values.shape)}".encode())
            digest.update(values.cpu().contiguous().numpy().data)
        return digest.hexdigest()
