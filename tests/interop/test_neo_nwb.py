"""Recordings come back from other formats as they were."""

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import images, small

from eisnn.analysis import Recording, record
from eisnn.interop.neo_nwb import from_neo, load_npz, read_nwb, save_npz, to_neo, write_nwb

LAYERS = ["layers.0", "layers.1"]


@pytest.fixture(scope="module", params=[None, 7], ids=["all", "sampled"])
def recording(request: pytest.FixtureRequest) -> Recording:
    model = small(dtype=torch.float32)
    what = ["I_E", "I_sub", "membrane", "spikes"]
    with record(model, LAYERS, what, neurons=request.param) as found:
        model(images(3, dtype=torch.float32))
    return found


def assert_same(one: Recording, other: Recording) -> None:
    assert list(one) == list(other) == LAYERS
    for layer, quantities in one.items():
        assert set(quantities) == set(other[layer])
        for quantity, values in quantities.items():
            assert values.dtype == other[layer][quantity].dtype
            assert torch.equal(values, other[layer][quantity]), (layer, quantity)
    assert one.neurons.keys() == other.neurons.keys()
    assert all(torch.equal(chosen, other.neurons[layer]) for layer, chosen in one.neurons.items())


def test_through_numpy(recording: Recording, tmp_path: Path) -> None:
    save_npz(tmp_path / "recording", recording)
    assert_same(load_npz(tmp_path / "recording"), recording)
    with np.load(tmp_path / "recording") as arrays:  # readable without this package
        assert arrays["layers.0/spikes"].shape[:2] == (3, 3)


def test_through_neo(recording: Recording, tmp_path: Path) -> None:
    neo = pytest.importorskip("neo")
    block = to_neo(recording, step=2e-3)
    assert_same(from_neo(block), recording)
    neo.io.PickleIO(str(tmp_path / "block.pkl")).write_block(block)
    assert_same(from_neo(neo.io.PickleIO(str(tmp_path / "block.pkl")).read_block()), recording)
    segment = block.segments[1]
    spikes = recording["layers.1"]["spikes"].flatten(2)
    trains = segment.spiketrains[-spikes.shape[2] :]
    assert sum(len(train) for train in trains) == spikes[:, 1].sum()
    assert segment.t_stop.rescale("ms").item() == pytest.approx(3 * 2)
    static = next(s for s in segment.analogsignals if s.name == "layers.0 I_E")
    assert (len(static), static.duration.rescale("ms").item()) == (1, pytest.approx(6))
    with pytest.raises(ValueError, match=r"was not written by eisnn\.analysis"):
        from_neo(neo.Block())


def test_through_nwb(recording: Recording, tmp_path: Path) -> None:
    pynwb = pytest.importorskip("pynwb")
    file = tmp_path / "recording.nwb"
    write_nwb(file, recording, step=2e-3)
    assert_same(read_nwb(file), recording)
    with pynwb.NWBHDF5IO(str(file), "r") as io:
        nwb = io.read()
        assert nwb.trials["stop_time"][:].tolist() == pytest.approx([0.006, 0.012, 0.018])
        counts = [len(times) for times in nwb.units["spike_times"]]
        assert sum(counts) == sum(recording[layer]["spikes"].sum() for layer in LAYERS)
        assert nwb.acquisition["layers.0 I_E"].rate == pytest.approx(1 / 0.006)
        assert nwb.acquisition["layers.1 membrane"].rate == pytest.approx(500)
    assert not pynwb.validate(path=str(file))


def test_bfloat16_becomes_float32(tmp_path: Path) -> None:
    model = small(dtype=torch.float32).to(torch.bfloat16)
    with record(model, LAYERS, ["I_E", "spikes"]) as found:
        model(images(3, dtype=torch.bfloat16))
    save_npz(tmp_path / "recording.npz", found)
    back = [load_npz(tmp_path / "recording.npz")]
    if find_spec("neo"):
        back.append(from_neo(to_neo(found)))
    if find_spec("pynwb"):
        write_nwb(tmp_path / "recording.nwb", found)
        back.append(read_nwb(tmp_path / "recording.nwb"))
    for recording in back:
        for layer, quantities in found.items():
            for quantity, values in quantities.items():
                assert torch.equal(recording[layer][quantity], values.float())


def test_nothing_recorded_and_wrong_steps_are_errors(recording: Recording) -> None:
    pytest.importorskip("neo")
    with pytest.raises(ValueError, match="nothing was recorded"):
        to_neo(Recording(LAYERS))
    with pytest.raises(ValueError, match="must be > 0, got 0"):
        to_neo(recording, step=0)


@pytest.mark.parametrize(("call", "extra"), [(to_neo, "neo"), (lambda r: write_nwb(Path("x"), r), "nwb")])
def test_a_missing_library_is_named(recording: Recording, monkeypatch: pytest.MonkeyPatch, call, extra: str) -> None:
    for name in ("neo", "pynwb"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"pip install 'eisnn\[{extra}\]'"):
        call(recording)
