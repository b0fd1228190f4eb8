"""Tasks of the package NeuroGym (Molano-Mazon et al. 2022) as data sets of trials.

A trial is made once, as a whole: nothing that the network does changes what it sees. Observations are numbers of either
sign, and input neurons fire at rates: two for each observation, one for what is above 0 and one for what is below
(ON and OFF), so that nothing is lost.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from eisnn.config import problems
from eisnn.data.catalog import register
from eisnn.data.dataset import Dataset
from eisnn.data.errors import DataError
from eisnn.data.source import Source
from eisnn.libraries import library

from .trials import Trials, TrialSettings

DEFAULT = TrialSettings()


@dataclass(frozen=True)
class Task:
    """A task of NeuroGym.

    Args:
        environment: its name there.
        timing: all its periods in order, milliseconds; of several numbers one is drawn for each trial. The last is
            "decision": in it the choice is to be made.
        choices: their names, in the order of its actions after the first, which is to wait.
        level: what makes a trial easy or hard, with its unit; "" is nothing that one would look at.
        levels: that of each trial, [N].
        evidence: whether the level is the strength of evidence for the right choice.
        options: of the environment.
    """

    environment: str
    timing: Mapping[str, int | tuple[int, ...]]
    choices: tuple[str, ...]
    _: KW_ONLY
    level: str = ""
    levels: Callable[[Trials], Tensor] = lambda trials: torch.zeros(len(trials))
    evidence: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def steps(self, dt: int) -> dict[str, int]:
        """Steps of each period at its longest; DataError unless each is a multiple of `dt` ms."""
        found = {}
        for period, given in self.timing.items():
            durations = given if isinstance(given, tuple) else (given,)
            for duration in durations:
                if duration % dt:
                    raise DataError(
                        f"dt is {dt} ms, but the period {period!r} takes {duration} ms, which is no multiple of it"
                    )
            found[period] = max(durations) // dt
        return found


TASKS: dict[str, Task] = {}


def register_task(name: str, task: Task) -> None:
    """Enter a task as the data set `name`; ValueError if there is one of this name."""
    if name in TASKS:
        raise ValueError(f"there is already a task {name!r}; give another name")

    @register(name, bundled=Path(__file__).parent)  # nothing is read: its trials are made
    def locate(
        path: Path,
        time_steps: int | None = None,
        dt: int = DEFAULT.dt,
        train_trials: int = DEFAULT.train_trials,
        test_trials: int = DEFAULT.test_trials,
        trial_seed: int = DEFAULT.trial_seed,
    ) -> Source:
        try:
            TrialSettings(dt=dt, train_trials=train_trials, test_trials=test_trials, trial_seed=trial_seed)
        except ValidationError as error:
            raise DataError(f"{name}: {'; '.join(problems(error))}") from None
        steps = sum(task.steps(dt).values())
        if time_steps not in (None, steps):
            raise DataError(f"trials of {name} take {steps} steps of {dt} ms, got time_steps {time_steps}")

        def read() -> Dataset:
            train, test = (trials(task, n, dt, (trial_seed, k)) for k, n in enumerate((train_trials, test_trials)))
            made = {"environment": task.environment, "timing": dict(task.timing), "dt": dt}
            return Dataset(name, task.choices, train, test, made)

        return Source(path, (), read)

    TASKS[name] = task


def trials(task: Task, count: int, dt: int, seed: tuple[int, ...]) -> Trials:
    """`count` trials of a task.

    Args:
        dt: milliseconds in a step.
        seed: numbers, all of which change the trials.
    Raises: ImportError that names the extra, without NeuroGym; DataError for a task that it does not have, other
        periods, or a choice that is not made in the decision alone.
    """
    steps = task.steps(dt)
    with library("matplotlib", "tasks").rc_context():  # which the import changes for the whole process
        neurogym = library("neurogym", "tasks")
    timing = {period: list(given) if isinstance(given, tuple) else given for period, given in task.timing.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about how the environment could be drawn
        try:
            environment = neurogym.make(task.environment, dt=dt, timing=timing, **task.options).unwrapped
        except Exception as error:  # gymnasium has many kinds of them
            raise DataError(f"NeuroGym cannot make {task.environment!r}: {error}") from error
    if list(environment.timing) != list(timing):
        raise DataError(f"{task.environment} has the periods {list(environment.timing)}, the task gives {list(timing)}")
    environment.seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
    length = sum(steps.values())
    inputs = np.zeros((count, length, 2 * environment.observation_space.shape[0]), np.float32)
    labels = np.zeros(count, np.int64)
    periods = {period: np.zeros((count, 2), np.int64) for period in timing}
    conditions: dict[str, list[float]] = {}
    for k in range(count):
        seen = environment.new_trial()
        first = length - len(environment.ob)
        inputs[k, first:] = np.concatenate([environment.ob, -environment.ob], 1).clip(min=0)
        for period, bounds in periods.items():
            bounds[k] = first + environment.start_ind[period], first + environment.end_ind[period]
        start, stop = periods["decision"][k] - first
        choice = environment.gt[start:stop]
        if environment.gt[:start].any() or choice.min() != choice.max() or choice[0] == 0 or stop < len(environment.gt):
            raise DataError(f"{task.environment} asks for something else than one choice in its last period")
        labels[k] = choice[0] - 1
        for name, value in seen.items():
            conditions.setdefault(name, []).append(float(value))
    return Trials(
        torch.from_numpy(inputs),
        torch.from_numpy(labels),
        dt,
        {name: torch.tensor(values, dtype=torch.float64) for name, values in conditions.items()},
        {period: torch.from_numpy(bounds) for period, bounds in periods.items()},
    )


def _coherence_that_counts(trials: Trials) -> Tensor:
    seen = trials.conditions
    return torch.where(seen["context"] == 0, seen["coh_0"], seen["coh_1"])


register_task(
    "perceptual-decision",
    Task(
        "PerceptualDecisionMaking-v0",
        {"fixation": 200, "stimulus": 1000, "delay": 0, "decision": 200},
        ("left", "right"),
        level="coherence (%)",
        levels=lambda trials: trials.conditions["coh"],
        evidence=True,
    ),
)
register_task(
    "context-decision",
    Task(
        "ContextDecisionMaking-v0",
        {"fixation": 200, "stimulus": 800, "delay": (200, 300, 400, 500, 600), "decision": 200},
        ("left", "right"),
        level="coherence of the cued pair (%)",
        levels=_coherence_that_counts,
        evidence=True,
    ),
)
register_task(
    "delayed-match",
    Task(
        "DelayMatchSample-v0",
        {"fixation": 200, "sample": 400, "delay": (200, 400, 600, 800), "test": 400, "decision": 200},
        ("match", "no match"),
        level="delay (ms)",
        levels=lambda trials: trials.lasts("delay"),
    ),
)
