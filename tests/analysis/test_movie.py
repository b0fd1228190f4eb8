"""A recorded run: its histograms, what becomes of them when it is killed, and the movie of them."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import images as pictures
from networks import small
from PIL import Image
from train_runs import Killed, assert_same_checkpoint, count_writes, records, tiny, write_images

from eisnn.analysis import record
from eisnn.analysis.figures import current_movie
from eisnn.analysis.histograms import BINS, CurrentHistograms, current_histograms, load_histograms, no_histograms
from eisnn.data import Loader
from eisnn.interop import load_trained
from eisnn.train import Run, fit, recorder, resume


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EISNN_DATA", str(tmp_path_factory.getbasetemp() / "eisnn-data"))


@pytest.fixture(scope="module")
def recorded(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "recorded"
    fit(tiny(images, epochs=3, record=True), run, quiet=True)
    return run


def test_every_epoch_has_its_histograms(recorded: Path) -> None:
    found = load_histograms(Run(recorded).currents_file)
    assert found.epochs.tolist() == [0, 1, 2, 3]
    assert list(found.counts) == ["layers.0", "layers.1", "layers.2"]
    trained = load_trained(recorded)
    batch = next(Loader(trained.dataset.test[:64], 64, size=16).epoch()).images
    model = trained.model.eval()
    with record(model, what="I_E") as currents:
        model(batch)
    for name, counts in found.counts.items():
        values = currents[name]["I_E"].double().flatten().numpy()
        inside, _ = np.histogram(values, found.edges)
        assert np.array_equal(counts[-1, 1:-1], inside)
        assert counts[-1, 0] == (values < found.edges[0]).sum()
        assert (counts.sum(1) == len(values)).all()
        assert not np.array_equal(counts[0], counts[-1])
        width = np.diff(found.edges)
        assert (found.density(name) * width).sum(1) == pytest.approx(counts[:, 1:-1].sum(1) / len(values))


def test_the_images_of_a_recording_come_from_all_classes(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained, run = load_trained(recorded), Run(recorded)
    monkeypatch.setattr(recorder, "IMAGES", 6)
    chosen = recorder.CurrentRecorder(run, trained.model, trained.dataset, trained.config.data.image_size).images
    every = next(Loader(trained.dataset.test, 24, size=16).epoch())
    assert every.labels.tolist() == sorted(every.labels.tolist())
    assert torch.equal(chosen, every.images[[0, 5, 9, 14, 18, 23]])


def test_recording_changes_nothing_else(images: Path, recorded: Path, tmp_path: Path) -> None:
    fit(tiny(images, epochs=3), tmp_path / "plain", quiet=True)
    assert not Run(tmp_path / "plain").currents_file.exists()
    assert records(tmp_path / "plain") == records(recorded)


@pytest.mark.parametrize("moment", [4, 8, 34, 60])
def test_a_killed_run_is_recorded_like_one_that_was_not(
    images: Path, recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    def kill(n: int, kind: str) -> None:
        if n == moment:
            raise Killed

    config = tiny(images, epochs=3, record=True, checkpoint_seconds=0)
    with monkeypatch.context() as patch:
        count_writes(patch, kill)
        with pytest.raises(Killed):
            fit(config, tmp_path / "run", quiet=True)
    resume(tmp_path / "run", quiet=True)
    assert Run(tmp_path / "run").currents_file.read_bytes() == Run(recorded).currents_file.read_bytes()
    assert_same_checkpoint(Run(tmp_path / "run").last, Run(recorded).last)


def test_a_value_on_an_edge_belongs_to_the_bin_above_it() -> None:
    """The currents of a black image are `b_E`, 0 at the start."""
    found = no_histograms([]).edges
    assert found[80] == 0
    counts = current_histograms(small(), 0 * pictures())["layers.0"]
    assert counts[81] == counts.sum() == 6 * 8 * 64


def test_a_batch_norm_twin_is_recorded_and_left_as_it_is() -> None:
    model = small(circuit="bn").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    counts = current_histograms(model, pictures())
    assert counts["layers.0"].sum() == 6 * 8 * 64
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def histories(epochs: int) -> CurrentHistograms:
    found = no_histograms(["stem", "blocks.0"])
    for epoch in range(epochs):
        counts = np.zeros(BINS + 2, dtype=np.int64)
        counts[60 + epoch % 40 : 80 + epoch % 40] = 5
        found = found.with_epoch(epoch, {"stem": counts, "blocks.0": counts[::-1].copy()})
    return found


def test_an_epoch_taken_again_replaces_what_came_after_it() -> None:
    long, again = histories(6), histories(3)
    counts = {name: values[2] for name, values in long.counts.items()}
    back = long.with_epoch(2, counts)
    assert back.epochs.tolist() == [0, 1, 2]
    assert all(np.array_equal(back.counts[name], again.counts[name]) for name in counts)


def test_the_movie_has_a_frame_for_each_epoch(recorded: Path, tmp_path: Path) -> None:
    file = current_movie(recorded, tmp_path / "currents.gif", fps=10)
    with Image.open(file) as movie:
        assert movie.format == "GIF"
        assert movie.n_frames == 4
        durations, pixels = [], []
        for frame in range(4):
            movie.seek(frame)
            durations.append(movie.info["duration"])
            pixels.append(np.asarray(movie.convert("L"), dtype=int))
    assert durations == [100, 100, 100, 1000]
    assert all(np.abs(one - other).max() > 100 for one, other in pairwise(pixels))


def test_a_long_run_makes_no_long_movie(tmp_path: Path) -> None:
    source = tmp_path / "currents.npz"
    source.write_bytes(histories(130).to_bytes())
    with Image.open(current_movie(source, tmp_path / "long.gif")) as movie:
        assert movie.n_frames == 100
    assert (tmp_path / "long.gif").stat().st_size < 2_000_000


def test_what_is_no_recorded_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"the run was not recorded \(eisnn train RECIPE --record\)"):
        current_movie(tmp_path, tmp_path / "out.gif")
    wrong = tmp_path / "currents.npz"
    wrong.write_bytes(b"no archive")
    with pytest.raises(ValueError, match="holds no histograms of currents"):
        current_movie(wrong, tmp_path / "out.gif")
    with pytest.raises(ValueError, match="fps must be > 0"):
        current_movie(tmp_path, tmp_path / "out.gif", fps=0)
