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


@pytest.mark.parametrize("args", [[], ["draw"]])
def test_a_command_is_needed(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["events", *args]) == 2
    assert "events needs one of show, convert, simulate, live" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["show", "convert", "simulate", "live"])
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["events", command, "--help"])
    assert f"usage: eisnn events {command}" in capsys.readouterr().out
