"""`fit`: data, model, E-I Init; then epochs of forward, loss, backward, optimizer, Dale, metrics, log, checkpoint.

Everything random follows from (seed, epoch), and every number that a resumed run needs is in its checkpoint; so on a
CPU a run that was killed and resumed ends bit for bit like one that was not.
"""

import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import pydantic
import torch
from torch import Tensor, nn

from eisnn.config import problems
from eisnn.data import Dataset, Loader
from eisnn.data.config import evaluation_loader, keeps_resident, load_data, train_loader
from eisnn.nn import NonFiniteActivity, dale_violations, enforce_dale
from eisnn.provenance import versions
from eisnn.train import checkpoint as ckpt
from eisnn.train.average import WeightAverage
from eisnn.train.build import initialize, new_network, require_same_data, trained_on
from eisnn.train.config import TrainConfig
from eisnn.train.evaluation import RATE_STEPS, evaluate_loader
from eisnn.train.im_loss import InformationMaximization
from eisnn.train.loss import Objective
from eisnn.train.machine import arithmetic, launch, make_fabric
from eisnn.train.metrics import FiringRate, Meter
from eisnn.train.optim import learning_rate, make_optimizer, set_learning_rate, state_names
from eisnn.train.progress import Interrupt, ProgressBar, Stopwatch, catch_interrupt
from eisnn.train.rate import RateTarget
from eisnn.train.recorder import CurrentRecorder
from eisnn.train.run import Run, RunError
from eisnn.train.step import RecordedStep, TrainingStep, can_be_recorded
from eisnn.train.teacher import load_teacher

if TYPE_CHECKING:
    from lightning.fabric import Fabric


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


@dataclass(frozen=True)
class Result:
    """What a finished run reports: accuracies in % on the evaluation split (the test split, or the held-out part)."""

    run_dir: Path
    accuracy: float
    best_accuracy: float
    best_epoch: int
    average_accuracy: float | None = None  # of the averaged weights after the last epoch, if the run keeps them


def fit(config: TrainConfig, run_dir: str | Path, *, quiet: bool = False) -> Result:
    """Train from the start, into a new run folder.

    Args:
        config: the whole run, e.g. `recipe("cifar10-vgg8")`.
        run_dir: folder for configuration, log and checkpoints; it must not hold a run.
        quiet: no progress bar and no lines.
    Returns: the last epoch's accuracy and, beside it, the best.
    Raises: RunError, DataError, Diverged, Interrupted (after Ctrl-C, with everything saved).
    """
    if not str(run_dir):
        raise RunError("the run's folder is ''; name one (--run-dir), such as runs/NAME")
    config = config.changed(data_path=config.data.data_path, teacher=config.objective.teacher)
    return _train(config, Run(Path(run_dir)), new=True, quiet=quiet)


def resume(
    run_dir: str | Path,
    *,
    data_path: str | None = None,
    accelerator: str | None = None,
    devices: int | None = None,
    num_nodes: int | None = None,
    cuda_graph: bool | None = None,
    quiet: bool = False,
) -> Result:
    """Continue a run that was interrupted or killed, as if nothing had happened; a finished one just reports.

    Args:
        run_dir: the run's folder.
        data_path: where the data is, if it has moved; the run remembers it.
        accelerator: other than so far; the run remembers it.
        devices: on each node, other than so far; the batches stay the same, and the run remembers it.
        num_nodes: other than so far, likewise.
        cuda_graph: whether to record the training step, other than so far; the run remembers it.
        quiet: no progress bar and no lines.
    Raises: as `fit`; CheckpointError if the last checkpoint is damaged, DataError if the data has changed.
    """
    run = Run(Path(run_dir))
    machine: dict[str, Any] = {"accelerator": accelerator, "devices": devices, "num_nodes": num_nodes}
    config = run.config().changed(data_path=data_path, cuda_graph=cuda_graph, **machine)
    return _train(config, run, new=False, quiet=quiet)


def _train(config: TrainConfig, run: Run, new: bool, quiet: bool) -> Result:
    fabric = make_fabric(config.machine)
    if new:
        run.require_free()
    # Before the other processes start: what can fail fails once, and is cached for them.
    dataset = load_data(config.data, config.network.time_steps, None if new else run.config_file)
    launch(fabric)
    sharing: dict[str, Any] = {
        "rank": fabric.global_rank,
        "world_size": fabric.world_size,
        "device": fabric.device,
        "resident": keeps_resident(config.data, fabric.device, dataset.train, dataset.test),
    }
    train = train_loader(config.data, dataset, config.seed, **sharing)
    test = evaluation_loader(config.data, dataset, **sharing)
    teacher = load_teacher(config, dataset, fabric)

    with ExitStack() as held:
        saved = None
        if not new:
            held.enter_context(_claimed(run, fabric))
            if run.last.exists():
                saved = ckpt.load_checkpoint(run.last)
                run.require_config_of(saved[1])
                _warn_of_other_arithmetic(saved[1], fabric)
                require_same_data(dataset, saved[1], run.last, images=True)
        torch.manual_seed(config.seed)
        bare = new_network(config, dataset).to(fabric.device)
        if saved is None:
            group = torch.distributed.group.WORLD if fabric.world_size > 1 else None
            initialize(bare, train, config.seed, group, separate=config.data.init_batch == "separate")
        else:
            ckpt.load_model(bare, saved[0], run.last)
        optimization, im_loss = config.optimization, InformationMaximization(bare) if config.objective.im_loss else None
        target = config.objective.target_rate
        objective = Objective(config.objective, teacher, im_loss, None if target is None else RateTarget(bare, target))
        average = WeightAverage(bare, optimization.average, fabric) if optimization.average else None
        rates = FiringRate(bare)
        recorded = config.machine.cuda_graph and can_be_recorded(config, fabric)
        model, optimizer = fabric.setup(bare, make_optimizer(bare, optimization, recordable=recorded))
        enforce_dale(optimizer, bare, check_gradients=False)  # the loop looks by itself
        meters = Meter(fabric.device), Meter(fabric.device)
        kind = RecordedStep if recorded else TrainingStep
        step = kind(config, fabric, bare, model, optimizer, objective, rates, meters, average)

        if new:
            held.enter_context(_claimed(run, fabric, config))
        loop = Loop(config, run, step, dataset, len(train))
        if saved is not None:
            loop.restore(*saved)
        if fabric.is_global_zero and run.config() != config:  # moved data, other devices
            run.write_config(config)
        with catch_interrupt() as interrupt, loop.open(quiet):
            if saved is None:
                loop.record_currents()
                loop.save()
            while loop.progress.epoch < optimization.epochs:
                loop.train_epoch(train, interrupt)
                loop.end_epoch(test, interrupt)
    p = loop.progress
    return Result(run.folder, p.accuracy, p.best_accuracy, p.best_epoch, p.average_accuracy)


def _warn_of_other_arithmetic(metadata: dict[str, Any], fabric: "Fabric") -> None:
    """A warning if the numbers of a resumed run may differ in their last bits."""
    then, now = metadata.get("arithmetic"), arithmetic(fabric.device)
    if then not in (None, now) and fabric.is_global_zero:
        warnings.warn(
            f"the run was computed with {then}, now with {now}: it goes on, but not bit for bit as it would have",
            stacklevel=2,
        )


@contextmanager
def _claimed(run: Run, fabric: "Fabric", config: TrainConfig | None = None) -> Iterator[None]:
    """Lock the run's folder on the first process and, given a configuration, begin a new run there; if that fails,
    every process fails."""
    problem = None
    with ExitStack() as held:
        if fabric.is_global_zero:
            try:
                held.enter_context(run.locked())
                if config is None:
                    run.require_resumable()
                else:
                    run.create(config)
            except (RunError, OSError) as error:
                problem = str(error)
        problem = fabric.broadcast(problem)
        if problem is not None:
            raise RunError(problem)
        yield


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
        self.bar = ProgressBar(total, self._global_step(), self.fabric.is_global_zero and not quiet)
        stack.enter_context(self.bar)
        if self.progress.epoch < self.config.optimization.epochs:
            self.bar.print(self._summary())
        return stack

    def _summary(self) -> str:
        """What is trained on what, in one line."""
        config, data = self.config, self.dataset
        kind = "held-out" if config.data.hold_out else "test"
        parameters = sum(parameter.numel() for parameter in self.bare.parameters())
        devices = f"{self.fabric.world_size} x " if self.fabric.world_size > 1 else ""
        return (
            f"{data.name}: {len(data.classes)} classes, {len(data.train):,} training and {len(data.test):,} {kind} "
            f"images; {config.network.model} ({config.network.circuit}), "
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
            f"rate {train['firing_rate']:.3f}  {speed:.0f} img/s"
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
