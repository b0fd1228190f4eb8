"""The loop over epochs: steps, evaluation, log, checkpoints, and how a run in motion is saved and restored."""

import time
from contextlib import ExitStack
from dataclasses import asdict
from math import inf
from pathlib import Path
from typing import Annotated, Any, NoReturn

import pydantic
import torch
from torch import Tensor, nn

from eisnn.config import problems
from eisnn.data import Dataset, Loader
from eisnn.nn import NonFiniteActivity, dale_violations
from eisnn.provenance import versions
from eisnn.train import checkpoint as ckpt
from eisnn.train.build import trained_on
from eisnn.train.config import TrainConfig
from eisnn.train.evaluation import RATE_STEPS, evaluate_loader
from eisnn.train.machine import arithmetic
from eisnn.train.metrics import FiringRate, Meter
from eisnn.train.optim import learning_rate, set_learning_rate, state_names
from eisnn.train.progress import Interrupt, ProgressBar, Stopwatch
from eisnn.train.recorder import CurrentRecorder
from eisnn.train.run import Run
from eisnn.train.step import TrainingStep


class Diverged(RuntimeError):
    """The loss or a weight is no longer finite."""


class Interrupted(RuntimeError):
    """The run was asked to stop; it has saved a checkpoint."""


Count = Annotated[int, pydantic.Field(ge=0)]


@pydantic.dataclasses.dataclass(config=pydantic.ConfigDict(extra="forbid"))
class Progress:
    """Where a run stands; saved with every checkpoint."""

    epoch: Count = 0
    step: Count = 0  # within the epoch
    accuracy: float = 0.0  # %, of the last evaluation
    best_accuracy: float = -1.0
    best_epoch: Count = 0
    log_size: Count = 0  # bytes
    log_digest: str = ""  # of these
    average_accuracy: float | None = None  # of the averaged weights


class Loop:
    """The state of a run in motion: progress, running sums, and how they are saved and restored."""

    def __init__(
        self,
        config: TrainConfig,
        run: Run,
        step: TrainingStep,
        dataset: Dataset,
        steps_per_epoch: int,
    ) -> None:
        self.config, self.run, self.step, self.dataset = config, run, step, dataset
        self.fabric, self.bare, self.model, self.optimizer = step.fabric, step.bare, step.model, step.optimizer
        self.average, self.rates, self.steps_per_epoch = step.average, step.rates, steps_per_epoch
        self.progress = Progress()
        self.epoch_meter, self.line_meter = step.meters
        self.saved_at = time.monotonic()
        self.clock = Stopwatch()
        self.writer: Any = None
        recorded = config.output.record and self.fabric.is_global_zero
        self.recorder = CurrentRecorder(run, self.bare, dataset, config.data.image_size) if recorded else None
        # A CPU looks at every step for trouble, Ctrl-C and due checkpoints; elsewhere looking costs a synchronisation
        # with the device, and so it is done with the lines of the log.
        self.watchful = self.fabric.device.type == "cpu"

    def open(self, quiet: bool) -> ExitStack:
        """Context of the progress bar (and of the TensorBoard writer)."""
        stack = ExitStack()
        if self.config.output.tensorboard and self.fabric.is_global_zero:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(self.run.folder / "tensorboard"), purge_step=self._global_step())
            stack.callback(self.writer.close)
        total = self.config.optimization.epochs * self.steps_per_epoch
        kind = self.dataset.test.kind
        self.bar = ProgressBar(total, self._global_step(), self.fabric.is_global_zero and not quiet, kind)
        stack.enter_context(self.bar)
        if self.progress.epoch < self.config.optimization.epochs:
            self.bar.print(self._summary())
        return stack

    def _summary(self) -> str:
        """What is trained on what, in one line."""
        config, data = self.config, self.dataset
        split = "held-out" if config.data.hold_out else "test"
        parameters = sum(parameter.numel() for parameter in self.bare.parameters())
        devices = f"{self.fabric.world_size} x " if self.fabric.world_size > 1 else ""
        return (
            f"{data.name}: {len(data.classes)} classes, {len(data.train):,} training and {len(data.test):,} {split} "
            f"{data.test.kind}; {config.network.model} ({config.network.circuit}), "
            f"{parameters:,} parameters; {devices}{self.fabric.device.type}"
        )

    def train_epoch(self, loader: Loader, interrupt: Interrupt) -> None:
        """The rest of the current epoch."""
        p, config = self.progress, self.config
        self.model.train()
        self.clock = Stopwatch()
        with self.step.stream():
            for batch in loader.epoch(p.epoch, p.step):
                set_learning_rate(
                    self.optimizer, learning_rate(self._global_step(), self.steps_per_epoch, config.optimization)
                )
                self.step(batch, p.step + 1, measured=p.step % RATE_STEPS == 0)
                self.clock.images += len(batch.labels) * self.fabric.world_size
                p.step += 1
                line_due = p.step % config.output.log_steps == 0 or p.step == self.steps_per_epoch
                if self.watchful or line_due:
                    self._look(line_due, interrupt)

    def end_epoch(self, loader: Loader, interrupt: Interrupt) -> None:
        """Evaluate if it is due, log the epoch, keep the best weights, and go on to the next epoch."""
        p, config = self.progress, self.config
        seconds, speed = self.clock.seconds, self.clock.images_per_second
        test: dict[str, float] = {}
        averaged: dict[str, float] = {}
        if (p.epoch + 1) % config.output.evaluate_epochs == 0 or p.epoch + 1 == config.optimization.epochs:
            test = self._evaluate(self.model, self.rates, loader, interrupt)
            if self.average is not None:
                averaged = self._evaluate(self.average.model, self.average.rates, loader, interrupt)
        train = self.epoch_meter.read(self._sum)
        p.accuracy = test.get("accuracy", p.accuracy)
        p.average_accuracy = averaged.get("accuracy", p.average_accuracy)
        is_best = bool(test) and p.accuracy > p.best_accuracy
        if is_best:
            p.best_accuracy, p.best_epoch = p.accuracy, p.epoch + 1
        p.epoch, p.step = p.epoch + 1, 0
        self.epoch_meter.sums.zero_()
        lr = learning_rate(p.epoch * self.steps_per_epoch - 1, self.steps_per_epoch, config.optimization)
        self._log(
            {"kind": "epoch", "epoch": p.epoch, "lr": lr}
            | {f"train_{k}": v for k, v in train.items()}
            | {f"test_{k}": v for k, v in test.items()}
            | {f"test_average_{k}": v for k, v in averaged.items()}
            | {"best_accuracy": p.best_accuracy, "seconds": seconds, "images_per_second": speed}
        )
        also = f", average {p.average_accuracy:.2f} %" if averaged else ""
        tested = f"test: {p.accuracy:.2f} % (best {p.best_accuracy:.2f}){also}  " if test else ""
        self.bar.print(
            f"epoch {p.epoch:>3}/{config.optimization.epochs}  "
            f"train: loss {train['loss']:.3f}, {train['accuracy']:.2f} %  {tested}"
            f"{train['firing_rate']:.3f} spikes/step  {speed:.0f} {self.dataset.test.kind}/s"
        )
        self.record_currents()
        if is_best:
            self._check_weights()
            self._write(self.run.best, {}, {"epoch": p.epoch, "accuracy": p.accuracy})
        if self._agree(self._checkpoint_due()) or p.epoch == config.optimization.epochs:
            self.save()
        if p.epoch < config.optimization.epochs and self._agree(interrupt.requested):
            self._leave()

    def _evaluate(self, model: nn.Module, rates: FiringRate, loader: Loader, interrupt: Interrupt) -> dict[str, float]:
        """Evaluate one set of weights, or leave if asked to."""
        stop = (lambda: self._agree(interrupt.requested)) if self.watchful else (lambda: False)
        try:
            result = evaluate_loader(model, loader, rates, self._sum, stop)
        except NonFiniteActivity as error:
            self._diverged(f"{error} at epoch {self.progress.epoch + 1}, step {self.progress.step}")
        if result is None:
            self._leave()
        return result

    def _look(self, line_due: bool, interrupt: Interrupt) -> None:
        """Log, check, save and leave, as is due after a step."""
        p = self.progress
        first_bad: Tensor = self.fabric.all_reduce(self.step.first_bad.clone(), reduce_op="min")  # type: ignore[assignment]
        loss, gradient = first_bad.tolist()
        if min(loss, gradient) != inf:
            what = "the loss" if loss <= gradient else "a gradient"
            self._diverged(f"{what} is not finite at epoch {p.epoch + 1}, step {min(loss, gradient):.0f}")
        if line_due:
            self._check_weights()
            line = self.line_meter.read(self._sum)
            self.line_meter.sums.zero_()
            self._log({"kind": "steps", "epoch": p.epoch + 1, "step": p.step, **line})
        if self.watchful or line_due:
            train = self.epoch_meter.read(self._sum)
            name = f"epoch {p.epoch + 1}/{self.config.optimization.epochs}"
            self.bar.show(name, self._global_step(), train, self.clock.images_per_second)
        if self._agree(self._checkpoint_due()):
            self.save()
        if self._agree(interrupt.requested):
            self._leave()

    def record_currents(self) -> None:
        """Histograms of a recorded run; before the checkpoint, as an epoch measured twice counts once."""
        if self.recorder is not None:
            self.recorder.add(self.progress.epoch)

    def save(self) -> None:
        """Write `last.safetensors`: all that is needed to continue."""
        self._check_weights()
        tensors, optimizer = ckpt.optimizer_tensors(self.optimizer.optimizer)
        if self.average is not None:
            tensors |= self.average.tensors()
        for name, meter in self._meters().items():
            tensors[f"meter.{name}"] = self._sum(meter.sums.clone())
        rng = torch.get_rng_state().to(self.fabric.device)
        tensors["rng"] = self.fabric.all_gather(rng).reshape(-1, rng.numel())  # type: ignore[union-attr]
        self.progress.log_size = self.run.log_size()
        self.progress.log_digest = self.run.log_digest(self.progress.log_size)
        self._write(self.run.last, tensors, {"progress": asdict(self.progress), "optimizer": optimizer})
        self.saved_at = time.monotonic()

    def restore(self, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
        """The inverse of `save`, after the model's weights have been loaded."""
        if "progress" not in metadata:
            raise ckpt.CheckpointError(f"{self.run.last} holds weights only: it cannot be continued")
        ckpt.require_finite(tensors, self.run.last)
        try:
            self.progress = Progress(**metadata["progress"])
            names = state_names(self.config.optimization) if self._global_step() else ()
            ckpt.load_optimizer(self.optimizer.optimizer, tensors, metadata["optimizer"], names)
            if self.average is not None:
                self.average.load(tensors)
            for name, meter in self._meters().items():  # sums over all processes: the first one carries them on
                meter.sums.copy_(tensors[f"meter.{name}"] * self.fabric.is_global_zero)
            states = tensors["rng"]
            if self.fabric.global_rank < len(states):
                torch.set_rng_state(states[self.fabric.global_rank].clone())  # torch reads a view from its base's start
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            wrong = "; ".join(problems(error)) if isinstance(error, pydantic.ValidationError) else str(error)
            raise ckpt.CheckpointError(
                f"{self.run.last} cannot be continued, its progress or optimizer is damaged: "
                f"{type(error).__name__}: {wrong}"
            ) from error
        if self.fabric.is_global_zero:
            self.run.truncate_log(self.progress.log_size, self.progress.log_digest)

    def _write(self, path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
        if self.fabric.is_global_zero:
            config, data = self.config.model_dump(mode="json"), asdict(trained_on(self.dataset))
            own = {"config": config, "data": data, "versions": versions(), "arithmetic": arithmetic(self.fabric.device)}
            ckpt.save_checkpoint(path, ckpt.model_tensors(self.bare) | tensors, metadata | own)
        self.fabric.barrier()

    def _log(self, record: dict[str, Any]) -> None:
        if not self.fabric.is_global_zero:
            return
        self.run.log(record)
        if self.writer is not None:
            for key, value in record.items():
                if key not in ("kind", "epoch", "step"):
                    self.writer.add_scalar(f"{record['kind']}/{key}", value, self._global_step())

    def _check_weights(self) -> None:
        """A non-finite weight can hide behind a finite loss: its neurons just stay silent."""
        state = self.bare.state_dict() | ckpt.optimizer_tensors(self.optimizer.optimizer)[0]
        if self._agree(bool(ckpt.not_finite(state))):
            self._diverged(
                f"a weight or its momentum is not finite at epoch {self.progress.epoch + 1}, step {self.progress.step}"
            )
        violations = dale_violations(self.bare)
        if violations:
            raise RuntimeError(f"Dale's law is violated, the run was not saved: negative entries in {violations}")

    def _diverged(self, what: str) -> NoReturn:
        self._log({"kind": "end", "reason": what})
        raise Diverged(
            f"{what}. Resumed, it would diverge again: start a new run (--run-dir) with a lower learning rate (--lr). "
            f"The last good checkpoint is {self.run.last}"
        )

    def _leave(self) -> NoReturn:
        self.save()
        raise Interrupted(f"stopped; continue with: {self.run.resume_command}")

    def _meters(self) -> dict[str, Meter]:
        return {"epoch": self.epoch_meter, "line": self.line_meter}

    def _global_step(self) -> int:
        return self.progress.epoch * self.steps_per_epoch + self.progress.step

    def _checkpoint_due(self) -> bool:
        return time.monotonic() - self.saved_at >= self.config.output.checkpoint_seconds

    def _sum(self, values: Tensor) -> Tensor:
        return self.fabric.all_reduce(values, reduce_op="sum")  # type: ignore[return-value]

    def _agree(self, flag: bool) -> bool:
        """True on every process if it is true on one."""
        if self.fabric.world_size == 1:
            return flag
        return bool(self._sum(torch.tensor(float(flag), device=self.fabric.device)) > 0)
