"""The studies of event recordings run by the one engine, and sum up what it returns."""

import json
import sys
from pathlib import Path
from typing import Any

import nmnist_demo
import pytest
import simulated_events


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, Any, bool]]:
    """The runs that were asked for: name, seed, configuration, and whether it is barred from other studies."""
    asked: list[tuple[str, int, Any, bool]] = []

    def train(name: str, config: Any, seed: int, args: Any, within: Any = None) -> dict[str, Any]:
        asked.append((name, seed, config, within is not None))
        return {"accuracy": [1.0, float(len(asked))], "lost": None}

    for script in (nmnist_demo, simulated_events):
        monkeypatch.setattr(script, "train", train)
    return asked


def test_nmnist_over_seeds_and_folds(trained: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folds = [tmp_path / f"fold-{k}.npz" for k in range(5)]
    monkeypatch.setattr(nmnist_demo, "write_folds", lambda data, folder: folds)
    monkeypatch.setattr(sys, "argv", ["nmnist_demo.py", "--data-path", "all.npz", "--output", str(tmp_path / "out")])
    nmnist_demo.main()
    networks = json.loads((tmp_path / "out/out.json").read_text())["networks"]
    assert networks["nmnist-demo"]["seeds"]["accuracy"] == [1, 2, 3]
    assert networks["nmnist-demo"]["folds"]["accuracy"] == [4, 5, 6, 7, 8]
    assert networks["nmnist-demo-bn"]["folds"]["mean"] == 22
    assert networks["nmnist-demo-plus"]["config"]["circuit_options"]["conserved"]
    assert len({(name, seed) for name, seed, *_ in trained}) == 24
    assert [config.data.data_path for *_, config, barred in trained if barred] == [str(fold) for fold in folds] * 3
    assert {config.data.data_path for *_, config, barred in trained if not barred} == {str(Path("all.npz").absolute())}


def test_simulated_recordings(trained: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "simulated.json").write_text('{"seed": 0}')
    monkeypatch.setattr(sys, "argv", ["x.py", "--data-path", str(tmp_path), "--output", str(tmp_path / "out")])
    simulated_events.main()
    found = json.loads((tmp_path / "out/out.json").read_text())
    assert {name: network["accuracy"] for name, network in found["networks"].items()} == {
        "paper": 1,
        "plus": 2,
        "bn": 3,
    }
    assert found["recordings"] == {"seed": 0}
    assert {(config.data.dataset, config.optimization.epochs) for *_, config, _ in trained} == {("event-folder", 8)}


def test_the_data_must_be_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    for script in (nmnist_demo, simulated_events):
        monkeypatch.setattr(sys, "argv", ["x.py"])
        with pytest.raises(SystemExit):
            script.main()
        assert "--data-path is missing" in capsys.readouterr().err
