"""The campaign: what is stopped or killed goes on, and what has been shown is never lost."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import patch

import campaign
import pytest
from campaign import PLAN, Planned

EPOCHS = 12
TINY = [
    "--minutes",
    "2",
    "--precision",
    "32",
    "--epochs",
    str(EPOCHS),
    "--subset",
    "20",
    "--test-images",
    "20",
    "--width",
    "0.02",
]
TINY += ["--batch-size", "10", "--evaluate-epochs", "1"]


def run(folder: Path, *options: str) -> None:
    places = ["--output", str(folder / "out"), "--runs", str(folder / "runs")]
    with patch.object(sys, "argv", [campaign.__file__, *TINY, *places, *options]):
        campaign.main()


def test_the_plan_names_every_run_once_and_every_recipe_exists() -> None:
    names = [f"{plan.name}-{seed}" for plan in PLAN for seed in plan.seeds]
    assert len(names) == len(set(names))
    for plan in PLAN:
        config = plan.config()
        assert config.optimization.epochs == plan.epochs
        assert config.machine.precision == "bf16"


def test_what_does_not_fit_is_not_begun(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--minutes", "2", "--output", str(tmp_path / "out"), "--runs", str(tmp_path / "runs")]
    with patch.object(campaign, "PLAN", [Planned("vgg8", "plus", 300, (0,), 5)]):
        with patch.object(sys, "argv", [campaign.__file__, *args]):
            campaign.main()
        assert capsys.readouterr().out == "vgg8, plus, 300 epochs-0: did not fit\n"
    assert not list(tmp_path.rglob("*"))


def test_what_a_killed_run_has_shown_is_written_down_and_it_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = campaign.Job.start

    def start(job: campaign.Job) -> object:
        """It has shown an epoch when it is killed."""
        process = real(job)
        metrics = tmp_path / "runs" / "vgg8__batch_norm__300_epochs-0" / "metrics.jsonl"
        while process.poll() is None and not (metrics.exists() and '"epoch", "epoch": 1' in metrics.read_text()):
            pass
        process.kill()
        process.wait()
        return process

    plan = [Planned("vgg8", "batch norm", 300, (0,), 1)]
    with patch.object(campaign, "PLAN", plan), patch.object(campaign, "LOOK_SECONDS", 0.2):
        with patch.object(campaign.Job, "start", start):
            run(tmp_path)
        assert "failed, code -9" in capsys.readouterr().out
        (unfinished,) = (tmp_path / "out" / "unfinished").glob("*.json")
        shown = json.loads(unfinished.read_text())
        assert shown["epochs_asked"] == EPOCHS
        assert 1 <= len(shown["epochs"]) < EPOCHS
        elsewhere = tmp_path / "another machine"
        shutil.move(tmp_path / "runs", elsewhere / "runs")
        shutil.move(tmp_path / "out", elsewhere / "out")
        run(elsewhere)
        assert "finished" in capsys.readouterr().out
        (result,) = (elsewhere / "out").glob("*.json")
        assert len(json.loads(result.read_text())["accuracy"]) == EPOCHS
        assert not list((elsewhere / "out" / "unfinished").iterdir())
        run(elsewhere)  # nothing is run twice
        assert capsys.readouterr().out == ""


@pytest.mark.skipif(sys.platform != "linux", reason="asks the system to be told of a parent's end: Linux")
def test_a_run_does_not_outlive_a_killed_campaign() -> None:
    run = "import campaign, os, time; campaign.stop_with_parent(os.getppid()); print(os.getpid()); time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-u', '-c', {run!r}])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        of_run = int(process.stdout.readline())
        process.kill()
        process.wait()
        end = time.monotonic() + 20
        while time.monotonic() < end and Path(f"/proc/{of_run}").exists():
            time.sleep(0.05)
        assert not Path(f"/proc/{of_run}").exists()


def test_a_pattern_that_fits_nothing_is_said(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"no run fits nothing\*; --list names them"):
        run(tmp_path, "--only", "nothing*")
