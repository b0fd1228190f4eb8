"""Simulated recordings against a pixel worked out by hand, and as a data set that is read back."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import save, write_folder

from eisnn.data import DataError, load
from eisnn.data.events import folder, read
from eisnn.data.events.simulate import SENSOR, Camera, _events, _interpolation, film, simulate


def test_a_pixel_sends_an_event_at_every_threshold() -> None:
    """A log intensity that rises by 1 in a step of 1000 us and falls back, at a threshold of 0.3."""
    levels = np.array([[0.0], [1.0], [0.0]], np.float32)
    events = _events(levels, np.array([0.3], np.float32), 1000)
    # Up at 0.3, 0.6, 0.9; the last event was at 0.9, so down at 0.6, 0.3, 0.0.
    np.testing.assert_allclose(events.t, [300, 600, 900, 1400, 1700, 2000], atol=1)
    assert events.p.tolist() == [1, 1, 1, 0, 0, 0]


def test_a_pixel_remembers_what_did_not_reach_the_threshold() -> None:
    levels = np.array([[0.0], [0.2], [0.2], [0.4]], np.float32)
    events = _events(levels, np.array([0.3], np.float32), 100)
    np.testing.assert_allclose(events.t, [250], atol=1)


def image(bright: slice) -> np.ndarray:
    pixels = np.full((3, 32, 32), 40, np.uint8)
    pixels[:, :, bright] = 220
    return pixels


def test_events_lie_on_edges_and_repeat_with_the_path() -> None:
    camera = Camera(mismatch=0, loops=2, duration=0.4)
    events = film(image(slice(16, 32)), camera, np.random.default_rng(0))
    assert abs(events.x.astype(int) - 64).max() <= camera.amplitude + 4  # the edge and its interpolated slope
    assert set(events.y) == set(range(SENSOR))
    assert 0.45 < events.p.mean() < 0.55  # what becomes brighter becomes darker again
    assert events.t[0] >= 0
    assert events.t[-1] <= 400_000
    first, second = (np.histogram(events.t, 20, (begin, begin + 200_000))[0] for begin in (0, 200_000))
    assert np.corrcoef(first, second)[0, 1] > 0.9


@pytest.mark.parametrize("way", [1, -1])
def test_the_leading_edge_of_what_is_bright_is_on(way: int) -> None:
    """A bright bar that moves by 10 pixels: where it moves to, pixels become brighter; x counts from the left."""
    intensity = image(slice(12, 20))[0] / np.float32(255)
    columns = _interpolation(way * np.linspace(0, 10, 50), 32)
    levels = np.log(np.repeat(intensity[:1] @ columns.mT, SENSOR, 1) + 0.05)
    events = _events(levels.reshape(50, -1), np.full(SENSOR * SENSOR, 0.2, np.float32), 1000)
    on, off = (events.x[events.p == p].astype(int) for p in (1, 0))
    left, right = 12 * 4, 20 * 4  # edges of the bar before it moves
    leading, trailing = (right, left) if way == 1 else (left, right)
    assert abs(on - leading - 5 * way).max() <= 9
    assert abs(off - trailing - 5 * way).max() <= 9


def test_a_recording_depends_on_its_seed_alone() -> None:
    one, again, other = (film(image(slice(3, 9)), Camera(), np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one.t, again.t)
    assert np.array_equal(one.x, again.x)
    assert not np.array_equal(one.t, other.t)


def test_an_image_set_becomes_recordings_that_are_read_back(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EISNN_DATA", str(tmp_path / "home"))
    write_folder(tmp_path / "images")
    output, camera = tmp_path / "out", Camera(duration=0.05, step=5000)
    simulate(output, dataset="folder", data_path=tmp_path / "images", camera=camera)
    assert f"{output}/train: 6 recordings" in capsys.readouterr().out
    layout = folder.find(output)
    assert layout is not None
    assert (layout.size, layout.classes, len(layout.files)) == ((128, 128), ("ant", "bee"), 10)
    file = output / "train/ant/00001.aedat"
    events = read(file)
    pixels = load("folder", tmp_path / "images").train.pixels[1].numpy()
    expected = film(pixels, camera, np.random.default_rng((0, 0, 1)))
    assert np.array_equal(events.t, expected.t)
    assert np.array_equal(events.p, expected.p)
    assert json.loads((output / "simulated.json").read_text())["simulated"] is True
    # A second run makes what is missing and nothing else.
    written = file.read_bytes()
    file.unlink()
    others = {path: path.stat().st_mtime_ns for path in output.glob("*/*/*.aedat")}
    simulate(output, dataset="folder", data_path=tmp_path / "images", camera=camera)
    assert file.read_bytes() == written
    assert others.items() <= {path: path.stat().st_mtime_ns for path in output.glob("*/*/*.aedat")}.items()
    with pytest.raises(DataError, match="tells of another simulation"):
        simulate(output, dataset="folder", data_path=tmp_path / "images", seed=1)


def test_images_without_an_edge_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EISNN_DATA", str(tmp_path / "home"))
    for split in ("train", "test"):
        save(tmp_path / "images" / split / "ant/a.png", torch.full((3, 8, 8), 9, dtype=torch.uint8))
    simulate(tmp_path / "out", dataset="folder", data_path=tmp_path / "images", camera=Camera(duration=0.02))
    assert "0 recordings; 1 images without any event have none" in capsys.readouterr().out


@pytest.mark.parametrize("field", ["duration", "loops", "threshold", "step"])
def test_cameras_that_cannot_film(field: str) -> None:
    with pytest.raises(DataError, match=f"{field} is 0, expected a number above 0"):
        Camera(**{field: 0})
