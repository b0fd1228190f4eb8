"""Kill a training run again and again with SIGKILL, resume it each time, and compare it with an undisturbed run.

    python experiments/kill_resume.py --kills 20 --seed 0

The undisturbed run comes first, as a process of its own. Then come runs that are killed: half of the kills hit a run
that writes a checkpoint at every step (checkpoint_seconds 0), half one that writes them every 0.5 s. A session's life
is drawn uniformly between 0 and its start-up plus a fraction of the training time, so that kills hit the start-up, the
training and the writing of checkpoints; a run that ends before its kills are used up is compared and followed by
another. Two more kills in each half are aimed: at the moment between the run's claim of its folder and its first
checkpoint, and at a moment when a half-written checkpoint lies in the folder. In the end metrics (without the two
timing fields), weights, optimizer and random state must equal the undisturbed run's bit for bit.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from eisnn.provenance import provenance, write_result
from eisnn.train import Run
from eisnn.train.checkpoint import load_checkpoint

TIMING = ("seconds", "images_per_second")
POLL = 0.0005  # seconds
CHECKPOINT_SECONDS = (0.0, 0.5)


class Session:
    """One process that trains or resumes; `train` again if it was killed before it had claimed the folder."""

    def __init__(self, run: Run, recipe: str, options: list[str]) -> None:
        begun = run.config_file.exists()
        words = ["resume", str(run.folder)] if begun else ["train", recipe, "--run-dir", str(run.folder), *options]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self.start = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "eisnn.cli", *words],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def kill_when(self, moment: Callable[[float], bool]) -> bool:
        """SIGKILL as soon as `moment(age)`; False if the process ended (well) before."""
        while self.process.poll() is None:
            if moment(time.monotonic() - self.start):
                self.process.kill()
            else:
                time.sleep(POLL)
        output = self.process.communicate()[0]
        if self.process.returncode not in (0, -9):
            raise SystemExit(f"a session failed with code {self.process.returncode}:\n{output}")
        return self.process.returncode == -9


def temporary_files(run: Run) -> list[Path]:
    return list(run.folder.glob(".*.tmp"))


def condition(run: Run, steps_per_epoch: int) -> list[str]:
    """What a kill left behind, as names to be counted."""
    if not run.config_file.exists():
        return ["before_the_run_folder_was_claimed"]
    found = ["left_a_temporary_file"] if temporary_files(run) else []
    if not run.last.exists():
        return [*found, "before_the_first_checkpoint"]
    progress = load_checkpoint(run.last)[1]["progress"]
    if 0 < progress["step"] < steps_per_epoch:
        found.append("resumed_in_the_middle_of_an_epoch")
    if progress["epoch"] == run.config().optimization.epochs:
        found.append("after_the_last_checkpoint")
    if run.log_size() > progress["log_size"]:
        found.append("left_log_lines_after_the_checkpoint")
    return found


def records(run: Run) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMING} for line in lines]


def differences(one: Run, other: Run) -> list[str]:
    """Names of everything in which two finished runs differ; [] if they are the same bit for bit."""
    found = [] if records(one) == records(other) else ["metrics.jsonl"]
    for a, b in ((one.last, other.last), (one.best, other.best)):
        (tensors, metadata), (others, other_metadata) = load_checkpoint(a), load_checkpoint(b)
        if tensors.keys() != others.keys():
            found.append(f"{a.name}: names of tensors")
        found += [f"{a.name}: {n}" for n in tensors.keys() & others.keys() if not torch.equal(tensors[n], others[n])]
        for data in (metadata, other_metadata):
            data["config"]["output"].pop("checkpoint_seconds")
            for name in ("log_size", "log_digest"):  # the timing differs
                data.get("progress", {}).pop(name, None)
        found += [f"{a.name}: metadata {key}" for key in metadata if metadata[key] != other_metadata.get(key)]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="kills at random moments")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    parser.add_argument("--recipe", default="demo")
    parser.add_argument(
        "--options",
        default="--epochs 8 --width 0.5 --accelerator cpu --log-steps 20",
        help="further options of `eisnn train`",
    )
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "kill_resume.json")
    args = parser.parse_args()
    rng, options = random.Random(args.seed), args.options.split()
    counts: Counter[str] = Counter()
    found, runs = [], 0

    with tempfile.TemporaryDirectory() as folder:
        reference = Run(Path(folder) / "reference")
        session = Session(reference, args.recipe, options)
        startup = []
        session.kill_when(lambda age: bool(startup.append(age)) if not startup and reference.last.exists() else False)
        duration = time.monotonic() - session.start
        training = duration - startup[0]
        epochs = [r for r in records(reference) if r["kind"] == "epoch"]
        steps_per_epoch = max(r["step"] for r in records(reference) if r["kind"] == "steps")
        print(f"undisturbed: {duration:.1f} s, {startup[0]:.1f} s of it start-up", flush=True)

        for half, checkpoint_seconds in enumerate(CHECKPOINT_SECONDS):
            random_kills = args.kills // 2 + (args.kills % 2 if half == 0 else 0)
            longest = startup[0] + 2 * training / max(1, random_kills)
            moments: list[tuple[str, float]] = [("claim", 0), ("writing", 0)]
            moments += [("random", rng.uniform(0, longest)) for _ in range(random_kills)]
            own = [*options, "--checkpoint-seconds", str(checkpoint_seconds)]
            while moments:
                run = Run(Path(folder) / f"killed-{runs}")
                runs += 1
                done = False
                while not done:
                    session = Session(run, args.recipe, own)
                    kind, life = moments[0] if moments else ("never", 0)
                    killed = session.kill_when(
                        {
                            "claim": lambda age, run=run: run.config_file.exists(),
                            "writing": lambda age, run=run: run.last.exists() and bool(temporary_files(run)),
                            "random": lambda age, life=life: age >= life,
                            "never": lambda age: False,
                        }[kind]
                    )
                    if killed:
                        moments.pop(0)
                        what = condition(run, steps_per_epoch)
                        group = "random" if kind == "random" else "aimed"
                        counts.update([group, *(f"{group}: {name}" for name in what)])
                        print(f"killed ({kind}, {life:.2f} s): {', '.join(what) or 'between epochs'}", flush=True)
                    done = not killed
                found += [f"run {runs - 1}: {difference}" for difference in differences(reference, run)]
                print(f"run {runs - 1} ended; differences: {found or 'none'}", flush=True)

    result = {
        **provenance(),
        "threads_of_a_run": 1,
        "undisturbed_run": {
            "seconds": round(duration, 1),
            "startup_seconds": round(startup[0], 1),
            "epochs": len(epochs),
            "steps_per_epoch": steps_per_epoch,
            "accuracy": epochs[-1]["test_accuracy"],
        },
        "checkpoint_seconds": CHECKPOINT_SECONDS,
        "killed_runs": runs,
        "kills": dict(sorted(counts.items())),
        "differences": found,
        "result": "identical" if not found else "different",
    }
    write_result(args.output, result)
    print(json.dumps(result, indent=2))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
