"""One training step on its device, and on a GPU the same recorded once as CUDA graphs and replayed.

A small network's step is hundreds of short kernels, and launching them takes the host several times as long as the GPU
takes to run them; a recorded step is launched at once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from eisnn.data.loader import Batch
from eisnn.models import SpikingNetwork
from eisnn.nn.dale import all_finite
from eisnn.train.average import WeightAverage
from eisnn.train.config import TrainConfig
from eisnn.train.gradients import clip_gradients_
from eisnn.train.loss import Objective
from eisnn.train.metrics import FiringRate, Meter

if TYPE_CHECKING:
    from lightning.fabric import Fabric

WARM_UP = 3  # steps before one is recorded: kernels are built then, and algorithms chosen


@dataclass
class TrainingStep:
    """Forward, loss, backward, running sums, optimizer with Dale's law: everything between a batch and the next.

    Args:
        config: of the run.
        fabric: of the run.
        bare, model: the network, and what Fabric made of it.
        optimizer: with Dale's law enforced.
        objective: the loss.
        rates: measures firing rates of `bare`.
        meters: that a step adds to.
        average: of the weights, if one is kept.
    """

    config: TrainConfig
    fabric: "Fabric"
    bare: SpikingNetwork
    model: nn.Module
    optimizer: Any
    objective: Objective
    rates: FiringRate
    meters: tuple[Meter, ...]
    average: WeightAverage | None

    def __post_init__(self) -> None:
        device = self.fabric.device
        self.number = torch.zeros((), dtype=torch.float64, device=device)  # of the step within the epoch, from 1
        # The first one whose loss is not finite, and the first one of whose gradients one is not.
        self.first_bad = torch.full((2,), torch.inf, dtype=torch.float64, device=device)

    def __call__(self, batch: Batch, number: int, measured: bool) -> None:
        """Train on `batch`; with `measured` the firing rates are measured as well."""
        self.number.fill_(number)
        self.gradients(batch, measured)
        self.update()
        self.follow()

    def gradients(self, batch: Batch, measured: bool) -> None:
        """Forward, loss, backward and running sums. Asks for no value on the host, so that it can be recorded."""
        with self.rates.measure(measured):
            loss, logits = self.objective(self.model, batch)
        self.fabric.backward(loss * batch.weight)
        if limit := self.config.optimization.adaptive_clipping:
            clip_gradients_(self.bare, limit)
        rate = self.rates.take()
        if batch.weight > 0:
            for meter in self.meters:
                meter.update(logits, batch.labels, loss, rate)
        gradients = [p.grad for p in self.bare.parameters() if p.grad is not None]
        finite = torch.stack([loss.detach().isfinite(), all_finite(gradients)])
        torch.minimum(self.first_bad, torch.where(finite, torch.inf, self.number), out=self.first_bad)

    def update(self) -> None:
        """The optimizer's step, with Dale's law. Asks for no value on the host either."""
        self.optimizer.step()
        self.optimizer.zero_grad()

    def follow(self) -> None:
        """The average of the weights."""
        if self.average is not None:
            self.average.update(self.bare)

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Where the steps of an epoch, and the loading of their batches, run."""
        yield


class Recording(NamedTuple):
    """The way to the gradients and the update as graphs, and the gradients, where the one writes what the other
    reads."""

    gradients: torch.cuda.CUDAGraph
    update: torch.cuda.CUDAGraph
    held: list[Tensor | None]


class RecordedStep(TrainingStep):
    """The same: a few steps as they are, then the way to the gradients and the optimizer's step are recorded, each by
    itself, and from there on replayed.

    What changes from step to step is written into tensors before: the batch, its number, the learning rate. The last,
    smaller batch of an epoch runs as it is.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self._stream = torch.cuda.Stream(self.fabric.device)
        self._recordings: dict[bool, Recording] = {}  # by whether firing rates are measured
        self._batch: Batch | None = None
        self._done = 0

    def __call__(self, batch: Batch, number: int, measured: bool) -> None:
        if self._done < WARM_UP or len(batch.labels) < self.config.data.batch_size:
            super().__call__(batch, number, measured)
            self._done += 1
            return
        self.number.fill_(number)
        if self._batch is None:
            self._batch = deepcopy(batch)
        for own, given in zip(_tensors(self._batch), _tensors(batch), strict=True):
            own.copy_(given)
        if measured not in self._recordings:
            self._recordings[measured] = self._record(self._batch, measured)
        recording = self._recordings[measured]
        recording.gradients.replay()
        recording.update.replay()
        self.follow()

    def _record(self, batch: Batch, measured: bool) -> Recording:
        # Graphs that are never replayed at once may share their memory. All live as long as the run: destroying one
        # would clear the workspaces that cuBLAS has on their stream.
        gradients, update = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        pool = next((recording.gradients.pool() for recording in self._recordings.values()), None)
        try:
            with torch.cuda.graph(gradients, pool=pool, stream=self._stream):
                self.gradients(batch, measured)
            held = [parameter.grad for parameter in self.bare.parameters()]
            with torch.cuda.graph(update, pool=gradients.pool(), stream=self._stream):
                self.update()
        except RuntimeError as error:
            raise RuntimeError(
                f"the training step could not be recorded as a CUDA graph ({error}); train without: --no-cuda-graph"
            ) from error
        return Recording(gradients, update, held)

    @contextmanager
    def stream(self) -> Iterator[None]:
        before = torch.cuda.current_stream(self.fabric.device)
        self._stream.wait_stream(before)
        with torch.cuda.stream(self._stream):
            yield
        before.wait_stream(self._stream)


def can_be_recorded(config: TrainConfig, fabric: "Fabric") -> bool:
    """Whether a step of this run asks the host for nothing: no random numbers, no other processes."""
    return fabric.device.type == "cuda" and fabric.world_size == 1 and not config.network.stochastic_depth


def _tensors(batch: Batch) -> list[Tensor]:
    mixed = [batch.mixture.labels, batch.mixture.share] if batch.mixture is not None else []
    return [batch.images, batch.labels, *mixed]
