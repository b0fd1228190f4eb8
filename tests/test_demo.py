"""The demo as a user runs it, for one epoch of a small network."""

from collections import defaultdict
from pathlib import Path

import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image
from train_runs import interrupt_at

from eisnn.cli import main
from eisnn.demo import BEST, _draw
from eisnn.train import recipe


@pytest.fixture
def short(monkeypatch):
    def tiny(name):
        return recipe(name).changed(width=0.25, time_steps=2, batch_size=250)

    monkeypatch.setattr("eisnn.demo.recipe", tiny)


def test_demo(short, tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path / "out"), "--epochs", "1"]) == 0
    printed = capsys.readouterr().out
    for words in ("E-I network  ", "exact balance  ", "batch-norm twin  ", "after training:\n0", "demo.png"):
        assert words in printed
    with Image.open(tmp_path / "out" / "demo.png") as picture:
        colors = picture.convert("RGB").getcolors(1 << 20)
        assert picture.width > 1000
    assert len(colors) > 10
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"demo", "demo-plus", "demo-bn", "demo.png"}


def test_a_colour_stands_for_one_thing_and_the_legend_covers_nothing(monkeypatch):
    figure = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: figure.append(self))
    curves = {"E-I network": [10.0, 30.0], BEST: [20.0, 50.0], "batch-norm twin": [15.0, 40.0]}
    layers = {f"layers.{number}": torch.randn(500) for number in range(3)}
    _draw(Path("demo.png"), curves, layers, layers, 10.0)
    (drawn,) = figure
    drawn.draw_without_rendering()
    panels = drawn.axes[1:]
    meant = defaultdict(set)
    for axes in drawn.axes:
        for artist in [*axes.lines, *axes.patches]:
            color = artist.get_color() if artist in axes.lines else artist.get_edgecolor()
            meant[to_hex(color)].add(BEST if artist.get_label() == "after training" else artist.get_label())
    grey = meant.pop("#666666")  # of what is there before learning
    assert grey == {"guessing", "at initialization"}
    assert sorted(map(sorted, meant.values())) == sorted([name] for name in [*curves, "threshold"])
    (legend,) = drawn.subfigs[1].legends
    assert not any(legend.get_window_extent().overlaps(axes.get_tightbbox()) for axes in panels)
    assert all(axes.get_legend() is None for axes in panels)


def test_an_interrupted_demo_starts_over(short, tmp_path, capsys, monkeypatch):
    interrupt_at(monkeypatch, 1)
    assert main(["demo", "--out", str(tmp_path / "out"), "--epochs", "1"]) == 130
    assert "start over with: eisnn demo" in (error := capsys.readouterr().err)
    assert "resume" not in error


def test_demo_without_matplotlib_says_what_to_install(short, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "eisnn.analysis.figures", None)
    assert main(["demo", "--out", str(tmp_path / "out"), "--epochs", "1"]) == 0
    assert "pip install 'eisnn[report]'" in capsys.readouterr().out


def test_demo_never_overwrites(short, tmp_path, capsys):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "config.json").write_text("mine")
    assert main(["demo", "--out", str(tmp_path), "--epochs", "1"]) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert (tmp_path / "demo" / "config.json").read_text() == "mine"


def test_a_demo_that_cannot_go_there_names_its_own_options_only(short, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["demo", "--out", str(tmp_path / "file"), "--epochs", "1"]) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path / 'file'} is a file, so a run cannot go into" in error
    assert "--" not in error
    assert main(["demo", "--out", str(tmp_path / "out"), "--seed", str(10**23)]) == 2
    assert capsys.readouterr().err == (
        f"eisnn: the configuration is not valid\n  seed must be less than {2**64}, got {10**23}\n"
    )
