"""`eisnn events`, as a user types it."""

from pathlib import Path

import numpy as np
import pytest
from event_files import random_events

from eisnn.cli import main
from eisnn.data.events import write


def test_show_and_convert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording = tmp_path / "in.bin"
    write(random_events(np.random.default_rng(0), 300, (34, 34)), recording)
    assert main(["events", "convert", str(recording), str(tmp_path / "out.npz"), "--size", "34", "34"]) == 0
    assert main(["events", "show", str(tmp_path / "out.npz"), "--output", str(tmp_path / "picture")]) == 0
    assert "sensor     34 x 34 pixels" in capsys.readouterr().out
    assert {file.name for file in tmp_path.iterdir()} >= {"picture.png", "picture.gif"}
    recording.write_bytes(b"nothing of that kind")
    assert main(["events", "show", str(recording)]) == 2
    assert f"eisnn: {recording}: no known format begins with b'nothing of t'" in capsys.readouterr().err


def test_a_network_of_the_package_watches_a_recording_without_its_data_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EISNN_DATA", str(tmp_path))
    write(random_events(np.random.default_rng(0), 2000, (34, 34)), tmp_path / "a.bin")
    watch = ["events", "live", "nmnist-demo", "--source", str(tmp_path / "a.bin"), "--size", "34", "34", "--speed", "0"]
    assert main([*watch, "--window", "50000"]) == 0
    said = capsys.readouterr().out
    assert str(tmp_path / "a.bin") in said
    assert "5 steps: median" in said
    assert main(watch) == 2
    assert "With --source and --window, the time of a step in us, no data set is needed" in capsys.readouterr().err
    assert main(["events", "live", "demo-plus", *watch[3:]]) == 2
    assert "demo-plus was trained on cifar10-sample, which holds no recordings" in capsys.readouterr().err


@pytest.mark.parametrize("args", [[], ["draw"]])
def test_a_command_is_needed(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["events", *args]) == 2
    assert "events needs one of show, convert, simulate, live" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["show", "convert", "simulate", "live"])
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["events", command, "--help"])
    assert f"usage: eisnn events {command}" in capsys.readouterr().out
