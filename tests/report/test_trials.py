"""Report and sliders of a run on trials of a task."""

from pathlib import Path

import pytest
import torch

from eisnn.data.tasks import Trials
from eisnn.explore.laboratory import Laboratory, Setting
from eisnn.report import report
from eisnn.report.opened import open_run
from eisnn.train import fit, recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few steps of a small circuit."""
    few = {"train_trials": 256, "test_trials": 120}
    config = recipe("perceptual-decision").changed(
        width=0.25, trials=few, epochs=1, warmup_epochs=0, batch_size=32, lr=0.01, accelerator="cpu"
    )
    return fit(config, tmp_path_factory.mktemp("trials") / "run", quiet=True).run_dir


def test_the_page_shows_choices_and_activity(run: Path, tmp_path: Path) -> None:
    html = report(run, out=tmp_path / "page.html", images=40).read_text()
    for words in (
        "40 test trials, ",
        "Accuracy by difficulty",
        "Psychometric function: bias",
        "E cells for",
        "PV cells",
    ):
        assert words in html
    assert "stimulus from 200, delay from 1200, decision from 1200" in html
    assert "Recordings of" not in html


def test_what_is_shown(run: Path) -> None:
    opened = open_run(run, images=20)
    assert isinstance(opened.shown, Trials)
    assert opened.images.shape == (70, 20, 6, 1, 1)
    assert torch.equal(opened.images[..., 0, 0].transpose(0, 1), opened.shown.inputs)
    picture = opened.picture(3)
    assert picture.shape == (1, 6, 70)
    assert torch.allclose(picture[0].T * opened.shown.inputs[3].max(), opened.shown.inputs[3])


def test_sliders_take_trials(run: Path) -> None:
    opened = open_run(run, images=20)
    laboratory = Laboratory(opened.model, opened.images, opened.labels)
    assert laboratory.respond(Setting()) is not None
