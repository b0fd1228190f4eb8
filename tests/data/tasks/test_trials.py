"""Trials of tasks: made once and alike, aligned to the decision, encoded without loss; and what cannot be made."""

import os
import subprocess
import sys
import warnings
from math import erf, sqrt

import numpy as np
import pytest
import torch

from eisnn.data import DataError, Loader, catalog, load
from eisnn.data.tasks import Trials, neurogym
from eisnn.data.tasks.neurogym import TASKS, Task, register_task, trials
from eisnn.train import recipes

FEW = {"train_trials": 60, "test_trials": 30}
every_task = pytest.mark.parametrize("name", TASKS)


@every_task
def test_the_same_settings_make_the_same_trials_and_no_others_do(name: str) -> None:
    one, same, other = (load(name, trial_seed=seed, **FEW) for seed in (0, 0, 1))
    assert one.fingerprint == same.fingerprint
    assert torch.equal(one.train.inputs, same.train.inputs)
    splits = [one.train, one.test, other.train, other.test]
    every = torch.cat([split.inputs.flatten(1) for split in splits])
    assert len(every.unique(dim=0)) == len(every)
    assert one.fingerprint != load(name, dt=10, **FEW).fingerprint


@every_task
def test_periods_follow_one_another_and_end_with_the_decision(name: str) -> None:
    split = load(name, **FEW).train
    assert isinstance(split, Trials)
    steps = TASKS[name].steps(20)
    bounds = torch.stack(list(split.periods.values()), 1)  # [N, periods, 2]
    assert torch.equal(bounds[:, 1:, 0], bounds[:, :-1, 1])
    assert (bounds[:, -1, 1] == split.inputs.shape[1]).all()
    decision = split.during("decision")
    assert decision[:, -steps["decision"] :].all()
    assert decision.sum() == len(split) * steps["decision"]
    before = torch.arange(split.inputs.shape[1]) < bounds[:, :1, 0]
    assert not split.inputs[before].any()
    assert split.inputs[split.during("fixation")].any(-1).all()  # the cue to wait
    delays = (bounds[..., 1] - bounds[..., 0])[:, list(steps).index("delay")]
    drawn = TASKS[name].timing["delay"]
    assert set(delays.tolist()) == ({d // 20 for d in drawn} if isinstance(drawn, tuple) else {drawn // 20})
    with pytest.raises(DataError, match="no period 'lunch'; they have: fixation"):
        split.during("lunch")


@every_task
def test_on_and_off_rates_are_the_observations(name: str) -> None:
    task = TASKS[name]
    made = trials(task, 5, 20, (3,))
    timing = {period: list(given) if isinstance(given, tuple) else given for period, given in task.timing.items()}
    with warnings.catch_warnings(action="ignore"):
        environment = sys.modules["neurogym"].make(task.environment, dt=20, timing=timing).unwrapped
    environment.seed(int(np.random.SeedSequence((3,)).generate_state(1)[0]))
    assert made.inputs.min() == 0
    on, off = made.inputs.chunk(2, 2)
    assert not (on * off).any()
    for k in range(5):
        said = environment.new_trial()
        seen = torch.from_numpy(environment.ob)
        assert torch.equal((on - off)[k, -len(seen) :], seen)
        assert environment.gt[-1] == made.labels[k] + 1
        assert all(made.conditions[key][k] == value for key, value in said.items())


def test_evidence_summed_over_the_stimulus_gives_the_accuracy_that_its_noise_allows() -> None:
    """Noise of 1 / sqrt(dt) a step in each of two inputs: d' follows from coherence and duration, whatever dt."""
    task = TASKS["perceptual-decision"]
    for dt in (10, 20):
        made = trials(task, 1500, dt, (0,))
        on, off = made.inputs.chunk(2, 2)
        evidence = ((on - off) * made.during("stimulus")[..., None]).sum(1)
        right = (evidence[:, 2] > evidence[:, 1]) == (made.labels == 1)
        for coherence in made.conditions["coh"].unique():
            d = float(coherence) / 100 * 1000 / sqrt(2 * 1000)  # signal and noise of the difference, summed over 1 s
            chosen = right[made.conditions["coh"] == coherence].double()
            assert float(chosen.mean()) == pytest.approx((1 + erf(d / sqrt(2))) / 2, abs=0.08)


def test_batches_are_sequences_from_memory_and_from_disk() -> None:
    split = load("delayed-match", **FEW).train
    batches = [list(Loader(split, 16, shuffle=True, resident=resident, device="cpu").epoch(1)) for resident in (0, 1)]
    for one, other in zip(*batches, strict=True):
        assert one.images.shape == (100, len(one.labels), 6, 1, 1)
        assert torch.equal(one.images, other.images)
    shown = torch.cat([batch.images for batch in batches[0]], 1)[..., 0, 0].transpose(0, 1)
    assert torch.equal(shown.flatten(1).unique(dim=0), split.inputs.flatten(1).unique(dim=0))


def test_parts_keep_what_belongs_to_each_trial() -> None:
    whole = load("context-decision", **FEW)
    held = whole.hold_out(0.25, seed=0)
    assert len(held.train) + len(held.test) == 60
    for split in (held.train, whole.subset(20, None, seed=0).train):
        for k in range(len(split)):
            (at,) = (whole.train.inputs == split.inputs[k]).flatten(1).all(1).nonzero()
            assert all(split.conditions[name][k] == values[at] for name, values in whole.train.conditions.items())
            assert torch.equal(split.periods["delay"][k], whole.train.periods["delay"][at][0])
    assert held.train.digest() != whole.train.digest()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dt": 300}, "dt is 300 ms, but the period 'fixation' takes 200 ms"),
        ({"dt": 15}, "dt is 15 ms, but the period 'fixation' takes 200 ms, which is no multiple of it"),
        ({"dt": 0}, "delayed-match: dt must be greater than or equal to 1, got 0"),
        ({"train_trials": 0}, "delayed-match: train_trials must be greater than or equal to 1, got 0"),
        ({"time_steps": 4}, "trials of delayed-match take 100 steps of 20 ms, got time_steps 4"),
        ({"path": "."}, "takes no path"),
        ({"bins": "time"}, r"no options \['bins'\]"),
    ],
)
def test_what_cannot_be_made_is_said(options: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load("delayed-match", **FEW | options)


TIMES = {"fixation": 100, "stimulus": 200, "delay": 0, "decision": 100}


@pytest.mark.parametrize(
    ("environment", "timing", "message"),
    [
        ("NoTask-v0", TIMES, "NeuroGym cannot make 'NoTask-v0'"),
        ("PerceptualDecisionMaking-v0", {"decision": 100}, "has the periods"),
        ("GoNogo-v0", {"fixation": 20, "stimulus": 20, "delay": 20, "decision": 20}, "something else than one choice"),
    ],
)
def test_tasks_that_do_not_fit(environment: str, timing: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        trials(Task(environment, timing, ("a", "b")), 20, 20, (0,))


def test_a_task_of_ones_own_is_a_data_set_and_changes_no_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neurogym, "TASKS", neurogym.TASKS.copy())
    monkeypatch.setattr(catalog, "ENTRIES", catalog.ENTRIES.copy())
    times = {"fixation": 50, "stimulus": 100, "delay": 0, "decision": 50}  # no multiples of the usual 20 ms
    task = Task("PerceptualDecisionMaking-v0", times, ("left", "right"), options={"cohs": [25, 50]})
    register_task("easy-decision", task)
    split = load("easy-decision", dt=10, **FEW).train
    assert set(split.conditions["coh"].tolist()) == {25, 50}
    assert "easy-decision" not in recipes()


def test_a_name_is_given_once() -> None:
    with pytest.raises(ValueError, match="already a task 'delayed-match'"):
        register_task("delayed-match", TASKS["delayed-match"])


def test_the_import_of_neurogym_changes_no_figures() -> None:
    program = "import matplotlib as m; before = dict(m.rcParams); from eisnn.data import load; " + (
        "load('delayed-match', train_trials=1, test_trials=1); print(dict(m.rcParams) == before)"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    told = subprocess.run([sys.executable, "-c", program], check=True, env=env, stdout=subprocess.PIPE, text=True)
    assert told.stdout == "True\n"


def test_without_neurogym_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "neurogym", None)
    with pytest.raises(ImportError, match=r"pip install 'eisnn\[tasks\]'"):
        load("perceptual-decision", **FEW)
