"""Report and sliders of a run on recordings of events."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from eisnn.analysis import responses
from eisnn.analysis.stimuli import add_noise
from eisnn.data.events import Events, write
from eisnn.explore.laboratory import Laboratory, Setting
from eisnn.report import report
from eisnn.report.opened import drawn_counts, open_run
from eisnn.train import TrainConfig, fit


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A short run of the paper's circuit on recordings of two classes."""
    folder, rng = tmp_path_factory.mktemp("events"), np.random.default_rng(0)
    for split in ("train", "test"):
        for k in range(24):
            x, y, p = (rng.integers(0, high, 200).astype(kind) for high, kind in ((16, "u2"), (16, "u2"), (2, "u1")))
            events = Events(np.arange(0, 20_000, 100), x // (1 + k % 2), y, p, (16, 16))
            write(events, folder / "clips" / split / ("wide", "narrow")[k % 2] / f"{k:02}.npz")
    config = TrainConfig(
        model="convnet3", width=0.25, time_steps=3, dataset="event-folder", data_path=str(folder / "clips"),
        image_size=16, epochs=1, warmup_epochs=0, batch_size=8, lr=0.01, accelerator="cpu",
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EISNN_DATA", str(folder / "home"))
        fit(config, folder / "run", quiet=True)
        yield folder / "run"


def test_the_page_shows_frames_and_answers(run: Path, tmp_path: Path) -> None:
    html = report(run, out=tmp_path / "page.html", images=20).read_text()
    assert "Recordings of event-folder as the network sees them: 3 time steps." in html
    assert "3 frames of narrow; the network says" in html
    for words in ("20 test recordings", "I_sub / I_EE", "Naka-Rushton", "Lesions", "r with contours"):
        assert words in html


def test_what_is_shown(run: Path) -> None:
    opened = open_run(run, images=20)
    assert opened.images.shape == (3, 20, 2, 16, 16)
    assert opened.are_sequences
    assert opened.first(5).shape == (3, 5, 2, 16, 16)
    assert torch.equal(opened.stills, opened.images.mean(0))
    assert opened.picture(3).shape == (3, 16, 16)


def test_counts_in_colour() -> None:
    counts = torch.zeros(4, 2, 5, 6)
    counts[1, 1, 2, 3], counts[2, 0, 0, 0] = 2, 2
    rgb = drawn_counts(counts)
    assert rgb.shape == (4, 3, 5, 6)
    assert (rgb < 1).any(1).nonzero().tolist() == [[1, 2, 3], [2, 0, 0]]
    assert rgb[1, 0, 2, 3] > rgb[1, 2, 2, 3]  # ON is orange
    assert rgb[2, 2, 0, 0] > rgb[2, 0, 0, 0]  # OFF is blue
    assert (drawn_counts(torch.zeros(2, 3, 3)) == 1).all()


def test_sliders_move(run: Path) -> None:
    opened = open_run(run, images=20)
    laboratory = Laboratory(opened.model, opened.images, opened.labels)
    assert 0 <= laboratory.intact.accuracy <= 100
    weaker = laboratory.respond(Setting(subtractive=0.0, contrast=0.5, noise=0.1))
    assert weaker.rates != laboratory.intact.rates


def test_responses_to_sequences(run: Path) -> None:
    opened = open_run(run, images=20)
    at_once, in_parts = (responses(opened.model, opened.images, "layers.1", batch_size=size) for size in (20, 7))
    assert at_once.shape == (20, 16)
    torch.testing.assert_close(at_once, in_parts)


def test_noise_on_counts_keeps_them() -> None:
    counts = torch.full((1, 1, 2, 8, 8), 5.0)
    counts[..., 0, 0] = 0
    noisy = add_noise(counts, 0.5)
    assert 4 < noisy.mean() < 5
    assert noisy.min() >= 0
    assert noisy.max() <= 5
