"""What a GPU is to show of accuracy, as a list: runs what fits into the minutes that there are, several runs at once.

A run that was stopped, by the end of its minutes, Ctrl-C or a kill, goes on with the same command where its folder of
runs is. What it has shown so far lies in OUTPUT/unfinished from its first minute on, so that nothing is lost when a
machine goes.

    python experiments/campaign.py --data-path CIFAR10 --minutes 25 --jobs 5 --mps                 # a whole GPU hour
    python experiments/campaign.py --data-path CIFAR10 --minutes 8 --only 'vgg8, plus*'            # some of it
    python experiments/campaign.py --list        # simulated events: experiments/simulated_events.py
    python experiments/campaign.py --precision 32 --epochs 2 --subset 200 --width 0.05 --minutes 3  # tried on a CPU
"""

import argparse
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import table2
from full_width import METHODS
from study import budgeted, described, parser, result_file, run_folder, run_script, slug, stored, train

from eisnn.provenance import provenance, write_result
from eisnn.train import Interrupted, Run, TrainConfig, recipe

LOOK_SECONDS = 20.0  # how often what runs in motion have shown is written down
GRACE_SECONDS = 60.0  # to save and leave
ALL_METHODS = METHODS | {"cortex": ("-cortex", {})}
GAIN = 1.5  # how much more several runs at once get done than one


@dataclass(frozen=True)
class Planned:
    """Runs of one network by one method.

    Args:
        network, method: of `ALL_METHODS`.
        epochs: of the whole schedule.
        seeds: 0, 1, ...
        minutes: that one run alone takes on an H200, in bf16.
        changes: of the configuration, with what is told of them after the method's name.
        dataset: that the recipe is for.
    """

    network: str
    method: str
    epochs: int
    seeds: tuple[int, ...]
    minutes: float
    changes: dict[str, Any] = field(default_factory=dict)
    named: str = ""
    dataset: str = "cifar10"

    @property
    def name(self) -> str:
        data = "" if self.dataset == "cifar10" else f"{self.dataset}, "
        return f"{data}{self.network}, {self.method}{self.named}, {self.epochs} epochs"

    def config(self) -> TrainConfig:
        ending, changes = ALL_METHODS[self.method]
        config = recipe(f"{self.dataset}-{self.network}{ending}").changed(**changes)
        warmup = min(config.optimization.warmup_epochs, self.epochs / 10)
        # Looking at the weights and evaluating keep the GPU waiting: once an epoch, and every twentieth.
        config = config.changed(precision="bf16", evaluate_epochs=20, log_steps=10_000)
        return config.changed(epochs=self.epochs, warmup_epochs=warmup, **self.changes)


def _regularized(named: str, **changes: Any) -> Planned:
    return Planned("resnet18", "plus", 100, (0,), 11, changes, f" with {named}")


def _ablated(name: str) -> Planned:
    return Planned("vgg8", "paper", 300, (0,), 4.5, {"ablation": name}, f", {name}")


DECOUPLED = {"decoupled_decay": True}
PLAN = [
    Planned("vgg8", "plus", 300, (0, 1, 2), 6),
    Planned("vgg8", "plus, start rate 0.15", 300, (0, 1, 2), 6),
    Planned("vgg8", "batch norm, orthogonal", 300, (0, 1, 2), 5),
    Planned("vgg8", "batch norm", 300, (0,), 3.5),
    Planned("vgg8", "paper", 300, (0,), 4.5),
    Planned("vgg8", "DANN", 300, (0,), 5),
    Planned("vgg8", "plus", 300, (0,), 6, {"lr": 0.005}, ", rate 0.005"),
    Planned("vgg8", "plus", 300, (0,), 6, DECOUPLED, ", decoupled decay"),
    Planned("resnet18", "plus", 100, (0,), 11),
    Planned("resnet18", "batch norm, orthogonal", 100, (0,), 10),
    Planned("resnet18", "batch norm", 100, (0,), 9),
    Planned("resnet18", "paper", 100, (0,), 10),
    Planned("resnet18", "plus", 300, (0,), 33),
    Planned("resnet18", "batch norm, orthogonal", 300, (0,), 30),
    Planned("resnet18", "batch norm", 300, (0,), 27),
    Planned("resnet18", "paper", 300, (0,), 30),
    Planned("vgg16", "plus", 100, (0,), 8),
    Planned("vgg16", "batch norm, orthogonal", 100, (0,), 7),
    Planned("vgg16", "batch norm", 100, (0,), 7),
    Planned("vgg16", "paper", 100, (0,), 7),
    Planned("vgg16", "plus", 100, (0,), 8, dataset="cifar100"),
    Planned("vgg16", "batch norm, orthogonal", 100, (0,), 7, dataset="cifar100"),
    Planned("vgg16", "batch norm", 100, (0,), 7, dataset="cifar100"),
    Planned("vgg16", "paper", 100, (0,), 7, dataset="cifar100"),
    _regularized("label smoothing", label_smoothing=0.1),
    _regularized("CutMix and Mixup", augmentation={"cutmix": 1.0, "mixup": 0.2}),
    _regularized("TrivialAugment", augmentation={"trivial": True}),
    _regularized("averaged weights", average=0.999),
    _regularized("stochastic depth", stochastic_depth=0.1),
    *(_ablated(name) for name in table2.PUBLISHED),
    # Minutes guessed: nothing like these has run on a GPU.
    Planned("vgg8", "cortex", 100, (0,), 20),
    Planned("spikformer", "plus", 100, (0,), 20),
    Planned("spikformer", "batch norm", 100, (0,), 20),
    Planned("spikformer", "batch norm, orthogonal", 100, (0,), 20),
]


@dataclass(frozen=True, eq=False)
class Job:
    """One run: a planned configuration at the budget that was asked for, and a seed."""

    plan: Planned
    seed: int
    args: argparse.Namespace

    @property
    def key(self) -> str:
        return f"{self.plan.name}-{self.seed}"

    def config(self) -> TrainConfig:
        return budgeted(self.plan.config(), self.args)

    def finished(self) -> bool:
        return stored(self.plan.name, self.config().changed(seed=self.seed), self.args) is not None

    @property
    def unfinished_file(self) -> Path:
        return self.args.output / "unfinished" / f"{slug(self.key)}.json"

    def run(self) -> None:
        """In this process; a run that is told to stop, or whose campaign is killed, saves itself first."""
        stop_with_parent(int(os.environ["CAMPAIGN"]))
        try:
            train(self.plan.name, self.config(), self.seed, self.args)
        except Interrupted as stopped:
            print(stopped)

    def start(self) -> subprocess.Popen[bytes]:
        """In a process of its own, whose output goes to a file beside its folder of runs."""
        log = self.log
        log.parent.mkdir(parents=True, exist_ok=True)
        # The options that this process got, and which run: a worker sees the same configuration.
        command = [sys.executable, __file__, *sys.argv[1:], "--one", self.key]
        environment = {"OMP_NUM_THREADS": "2", **os.environ, "CAMPAIGN": str(os.getpid())}
        with log.open("ab") as out:
            return subprocess.Popen(
                command, stdout=out, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )

    @property
    def log(self) -> Path:
        return self.args.runs / f"{slug(self.key)}.log"

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"see {self.log}"

    def write_down(self) -> None:
        """What the run has shown so far; nothing once its result is there."""
        if result_file(self.plan.name, self.seed, self.args).exists():
            self.unfinished_file.unlink(missing_ok=True)
            return
        run = Run(Path(run_folder(self.plan.name, self.seed, self.args)))
        if not run.metrics_file.exists():
            return
        epochs = run.metrics()
        self.unfinished_file.parent.mkdir(parents=True, exist_ok=True)
        write_result(
            self.unfinished_file,
            {
                **provenance(),
                "row": self.plan.name,
                "seed": self.seed,
                "epochs_asked": self.config().optimization.epochs,
                "epochs": [
                    {key: line[key] for key in line.keys() & {"epoch", "train_loss", "train_accuracy", "test_accuracy"}}
                    for line in epochs
                ],
                "seconds": sum(line["seconds"] for line in epochs),
                "config": described(self.config().changed(seed=self.seed)),
            },
        )


def stop_with_parent(parent: int) -> None:
    """Have the system send this process SIGTERM when the process `parent`, which started it, is gone."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
    if os.getppid() != parent:
        raise SystemExit("the campaign that started this run is gone")


def jobs(args: argparse.Namespace) -> list[Job]:
    """All runs that were asked for, in their order."""
    made = [Job(plan, seed, args) for plan in PLAN for seed in plan.seeds]
    chosen = [job for job in made if args.only is None or any(fnmatch(job.key, pattern) for pattern in args.only)]
    if not chosen:
        raise SystemExit(f"no run fits {' or '.join(args.only)}; --list names them")
    return chosen


@contextmanager
def mps(asked: bool) -> Iterator[None]:
    """NVIDIA's multi-process service for the processes started inside: kernels of several runs share the GPU at the
    same time. A part of the driver; it changes no setting of the card."""
    if not asked:
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        subprocess.run(["nvidia-cuda-mps-control", "-d"], check=True)
        try:
            yield
        finally:
            subprocess.run(["nvidia-cuda-mps-control"], input=b"quit\n", check=False)


def campaign(args: argparse.Namespace) -> None:
    """Run what fits, and write down what every run has shown."""
    end = time.monotonic() + 60 * args.minutes
    waiting = [job for job in jobs(args) if not job.finished()]
    running: dict[Job, subprocess.Popen[bytes]] = {}
    cut = args.cut  # at the beginning alone: later, what will not end only slows what would
    with mps(args.mps):
        try:
            while (waiting or running) and time.monotonic() < end:
                left = (end - time.monotonic()) / 60
                for job in list(waiting):
                    if len(running) >= args.jobs:
                        break
                    slower = max(1.0, args.jobs / GAIN)
                    if args.epochs or cut or job.plan.minutes * slower <= left:
                        waiting.remove(job)
                        running[job] = job.start()
                        print(f"{job.key}: started with {left:.1f} minutes left", flush=True)
                cut = False
                if not running:
                    break
                time.sleep(min(LOOK_SECONDS, max(0.1, end - time.monotonic()), 1.0 if args.epochs else LOOK_SECONDS))
                running = _look(running)
        finally:
            for process in running.values():
                process.send_signal(signal.SIGTERM)
            for job, process in running.items():
                try:
                    process.wait(GRACE_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
                job.write_down()
                print(f"{job.key}: stopped, to be continued", flush=True)
    for job in waiting:
        print(f"{job.key}: did not fit", flush=True)


def _look(running: dict[Job, subprocess.Popen[bytes]]) -> dict[Job, subprocess.Popen[bytes]]:
    """Write down what the runs have shown; those that still run."""
    still = {}
    for job, process in running.items():
        job.write_down()
        if process.poll() is None:
            still[job] = process
        else:
            ended = "finished" if job.finished() else f"failed, code {process.returncode}: {job.last_words()}"
            print(f"{job.key}: {ended}", flush=True)
    return still


def main() -> None:
    made = parser(__doc__, rows=False)
    made.add_argument("--minutes", type=float, default=8, help="after which all runs save and stop")
    made.add_argument("--jobs", type=int, default=1, help="runs at once")
    made.add_argument("--mps", action="store_true", help="NVIDIA's multi-process service, which overlaps their kernels")
    made.add_argument("--cut", action="store_true", help="begin with runs that may not end in these minutes")
    made.add_argument("--only", nargs="+", metavar="PATTERN", help="as 'vgg8, plus, *-0', of the names of --list")
    made.add_argument("--list", action="store_true", help="name all runs, and run nothing")
    made.add_argument("--one", help=argparse.SUPPRESS)
    args = made.parse_args()
    if args.list:
        print("\n".join(f"{job.key:60} {job.plan.minutes:5.1f} minutes" for job in jobs(args)))
    elif args.one:
        next(job for job in jobs(args) if job.key == args.one).run()
    else:
        campaign(args)


if __name__ == "__main__":
    run_script(main)
