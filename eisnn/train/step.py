"""One training step on its device, and on a GPU the same recorded once and replayed as a CUDA graph.

A small network's step is hundreds of short kernels, and launching them takes the host several times as long as the GPU
takes to run them; a recorded step is launched at once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from eisnn.data.loader import Batch
from eisnn.models import SpikingNetwork
from eisnn.train.average import WeightAverage
from eisnn.train.config import TrainConfig
from eisnn.train.gradients import condition_gradients_
from eisnn.train.loss import Objective
from eisnn.train.metrics import FiringRate, Meter
from eisnn.train.upkeep import scale_synapses_

if TYPE_CHECKING:
    from lightning.fabric import Fabric

WARM_UP = 3  # steps before one is recorded: momenta exist then, kernels are built, algorithms chosen


@dataclass
class TrainingStep:
    """Forward, loss, backward, optimizer with Dale's law, running sums: everything between a batch and the next.

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
        self.first_bad = torch.full_like(self.number, torch.inf)  # the first one whose loss is not finite

    def __call__(self, batch: Batch, number: int, measured: bool) -> None:
        """Train on `batch`; with `measured` the firing rates are measured as well."""
        self.number.fill_(number)
        self.on_device(batch, measured)
        self.after()

    def on_device(self, batch: Batch, measured: bool) -> None:
        """All that depends on tensors alone, and can be recorded."""
        with self.rates.measure(measured):
            loss, logits = self.objective(self.model, batch)
        self.fabric.backward(loss * batch.weight)
        condition_gradients_(self.bare, self.config)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.config.synaptic_scaling:
            scale_synapses_(self.bare, self.config.synaptic_scaling)
        rate = self.rates.take()
        if batch.weight > 0:
            for meter in self.meters:
                meter.update(logits, batch.labels, loss, rate)
        bad = torch.where(loss.detach().isfinite(), torch.inf, self.number)
        torch.minimum(self.first_bad, bad, out=self.first_bad)

    def after(self) -> None:
        """What else belongs to a step."""
        if self.average is not None:
            self.average.update(self.bare)

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Where the steps of an epoch, and the loading of their batches, run."""
        yield


class RecordedStep(TrainingStep):
    """The same: a few steps as they are, then one is recorded and from there on replayed.

    The last, smaller batch of an epoch runs as it is. Results are those of `TrainingStep` but for rounding.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self._stream = torch.cuda.Stream(self.fabric.device)
        self._graphs: dict[bool, torch.cuda.CUDAGraph] = {}  # by whether firing rates are measured
        self._batch: Batch | None = None
        self._done = 0

    def __call__(self, batch: Batch, number: int, measured: bool) -> None:
        if self._done < WARM_UP or len(batch.labels) < self.config.batch_size:
            super().__call__(batch, number, measured)
            self._done += 1
            return
        self.number.fill_(number)
        if self._batch is None:
            self._batch = deepcopy(batch)
        for own, given in zip(_tensors(self._batch), _tensors(batch), strict=True):
            own.copy_(given)
        if measured not in self._graphs:
            self._graphs[measured] = self._record(self._batch, measured)
        self._graphs[measured].replay()
        self.after()

    def _record(self, batch: Batch, measured: bool) -> torch.cuda.CUDAGraph:
        dtype = torch.float64 if self.config.precision == "64" else torch.float32
        for group in self.optimizer.param_groups:  # what changes from step to step has to be on the device
            if not isinstance(group["lr"], Tensor):
                group["lr"] = torch.tensor(group["lr"], dtype=dtype, device=self.fabric.device)
        # Two graphs that are never replayed at once may share their memory. Both live as long as the run: destroying
        # one would clear the workspaces that cuBLAS has on their stream.
        graph = torch.cuda.CUDAGraph()
        pool = next((other.pool() for other in self._graphs.values()), None)
        try:
            with torch.cuda.graph(graph, pool=pool, stream=self._stream):
                self.on_device(batch, measured)
        except RuntimeError as error:
            raise RuntimeError(
                f"the training step could not be recorded as a CUDA graph ({error}); train without: --cuda-graph False"
            ) from error
        return graph

    @contextmanager
    def stream(self) -> Iterator[None]:
        before = torch.cuda.current_stream(self.fabric.device)
        self._stream.wait_stream(before)
        with torch.cuda.stream(self._stream):
            yield
        before.wait_stream(self._stream)


def can_be_recorded(config: TrainConfig, fabric: "Fabric") -> bool:
    """Whether a step of this run asks the host for nothing: no random numbers, no other processes."""
    return fabric.device.type == "cuda" and fabric.world_size == 1 and not config.stochastic_depth


def _tensors(batch: Batch) -> list[Tensor]:
    mixed = [batch.mixture.labels, batch.mixture.share] if batch.mixture is not None else []
    return [batch.images, batch.labels, *mixed]
