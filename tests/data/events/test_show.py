"""Pictures show the events where and when they are, in the colour of their polarity."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from event_files import random_events
from PIL import Image

from eisnn.data import DataError
from eisnn.data.events import Events, read, write
from eisnn.data.events.convert import convert
from eisnn.data.events.draw import BACKGROUND, EXPOSURE, OFF, ON, colours, exposures, pictures
from eisnn.data.events.show import describe, show


def corner(t: np.ndarray, p: int, size: tuple[int, int] = (48, 64)) -> Events:
    """Events at the pixel in the upper right corner."""
    n = len(t)
    return Events(t, np.full(n, size[1] - 1, "u2"), np.zeros(n, "u2"), np.full(n, p, "u1"), size)


@pytest.mark.parametrize(("p", "colour"), [(1, ON), (0, OFF)])
def test_a_pixel_lies_upright_in_its_colour(p: int, colour: tuple[int, int, int]) -> None:
    picture = np.asarray(pictures(corner(np.arange(0, 1000, 10), p), 2)[0])
    zoom = picture.shape[1] // 64
    assert zoom >= 6  # legible
    inside = picture[1 : zoom - 1, -zoom + 1 : -2]
    assert (inside == colour).all()
    assert (picture[zoom + 1 : 47 * zoom, 1 : 63 * zoom] == BACKGROUND).all()


def test_colours_grow_with_counts_and_mix() -> None:
    counts = np.array([[[0, 4, 0, 2]], [[0, 0, 2, 2]]])
    rgb = colours(counts, 4.0)[0]
    assert rgb[0].tolist() == list(BACKGROUND)
    assert rgb[1].tolist() == list(OFF)
    np.testing.assert_allclose(rgb[2], (np.array(ON) + BACKGROUND) / 2, atol=0.5)
    np.testing.assert_allclose(rgb[3], (np.array(ON) + OFF) / 2, atol=0.5)


def test_exposures_divide_the_time_and_are_short() -> None:
    short = exposures(corner(np.array([5, 1004]), 1), 4)
    assert short == [(5.0, 255.0), (255.0, 505.0), (505.0, 755.0), (755.0, 1005.0)]
    long = exposures(corner(np.array([0, 10_000_000]), 1), 4)
    assert {end - begin for begin, end in long} == {EXPOSURE}


def test_the_time_bar_moves() -> None:
    drawn = [np.asarray(picture) for picture in pictures(corner(np.arange(0, 80_000, 100), 1), 4)]
    dark = [np.flatnonzero((picture[-30] < 100).all(1)) for picture in drawn]
    middle = [bar.mean() for bar in dark]
    assert all(b > a for a, b in pairwise(middle))
    assert dark[0][0] < 20
    assert dark[-1][-1] > drawn[0].shape[1] - 20


def test_show_says_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(random_events(np.random.default_rng(0), 5000, (128, 128)), tmp_path / "in/a.aedat")
    picture, movie = show(tmp_path / "in/a.aedat")
    said = capsys.readouterr().out
    for line in ("format     AEDAT 2.0", "sensor     128 x 128 pixels", "events     5,000", "repairs    none"):
        assert line in said
    assert (picture, movie) == (Path("a.aedat.png"), Path("a.aedat.gif"))
    with Image.open(picture) as sheet:
        assert sheet.size[0] > 4 * 384
    with Image.open(movie) as frames:
        assert frames.n_frames == 40
        assert frames.info["duration"] * 40 == pytest.approx(2000, rel=0.05)


def test_a_recording_is_never_overwritten(tmp_path: Path) -> None:
    write(random_events(np.random.default_rng(0), 50, (34, 34)), tmp_path / "a.bin")
    file = (tmp_path / "a.bin").rename(tmp_path / "b.png")
    with pytest.raises(DataError, match="would be overwritten"):
        show(file, output=tmp_path / "b", size=(34, 34))


def test_one_moment_is_described() -> None:
    said = describe(corner(np.array([7, 7]), 1))
    assert said["rate"] == "all at once"
    assert said["polarity"] == "100.0% ON"


def test_convert(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    events = random_events(np.random.default_rng(0), 500, (34, 34))
    write(events, tmp_path / "a.bin")
    convert(tmp_path / "a.bin", tmp_path / "out/a.dat", size=(34, 34))
    assert "500 events of N-MNIST" in capsys.readouterr().out
    again = read(tmp_path / "out/a.dat")
    assert (again.size, again.format) == ((34, 34), "DAT")
    assert np.array_equal(again.t, events.t)
    for few, size in ((events, (40, 40)), (corner(np.array([7, 7]), 1), None)):
        write(replace(few, size=size or few.size), tmp_path / "other.npz")
        convert(tmp_path / "other.npz", tmp_path / "out/again.npz")
        assert "size of the sensor" not in capsys.readouterr().out
        convert(tmp_path / "other.npz", tmp_path / "out/again.bin")
        said = capsys.readouterr().out
        assert ("does not hold the size of the sensor, (40, 40)" if size else "it cannot be read back") in said
