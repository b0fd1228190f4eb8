"""`fit`: data, model, E-I Init; then epochs of forward, loss, backward, optimizer, Dale, metrics, log, checkpoint.

Everything random follows from (seed, epoch), and every number that a resumed run needs is in its checkpoint; so on a
CPU a run that was killed and resumed ends bit for bit like one that was not.
"""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from eisnn.data.config import evaluation_loader, keeps_resident, load_data, train_loader
from eisnn.nn import enforce_dale
from eisnn.train import checkpoint as ckpt
from eisnn.train.average import WeightAverage
from eisnn.train.build import initialize, new_network, require_same_data
from eisnn.train.config import TrainConfig
from eisnn.train.im_loss import InformationMaximization
from eisnn.train.loop import Loop
from eisnn.train.loss import Objective
from eisnn.train.machine import arithmetic, launch, make_fabric
from eisnn.train.metrics import FiringRate, Meter
from eisnn.train.optim import make_optimizer
from eisnn.train.progress import catch_interrupt
from eisnn.train.rate import RateTarget
from eisnn.train.run import Run, RunError
from eisnn.train.step import RecordedStep, TrainingStep, can_be_recorded
from eisnn.train.teacher import load_teacher

if TYPE_CHECKING:
    from lightning.fabric import Fabric


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
    if not isinstance(config, TrainConfig):
        raise TypeError(f"fit takes a configuration and a folder: fit(recipe('demo'), 'runs/a'), got {config!r:.99}")
    if not str(run_dir):
        raise RunError("the run's folder is ''; name one (--run-dir), such as runs/NAME")
    paths = {"data_path": config.data.data_path, "teacher": config.objective.teacher}
    config = config.changed(start_from=config.network.start_from, **paths)
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
            initialize(bare, config, dataset, train, group)
        else:
            ckpt.load_model(bare, saved[0], run.last)
        optimization, im_loss = config.optimization, InformationMaximization(bare) if config.objective.im_loss else None
        target = config.objective.target_rate
        rate = None if target is None else RateTarget(bare, target)
        objective = Objective(config.objective, teacher, im_loss, rate, config.network.answer_steps)
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
