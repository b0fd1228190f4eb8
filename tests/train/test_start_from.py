"""Training that goes on from a trained network, also with another division."""

from dataclasses import replace

import pytest
import torch
from train_runs import tiny

import eisnn
from eisnn.cli import main
from eisnn.deploy import Division
from eisnn.interop import load_trained
from eisnn.nn import PAPER, PLUS
from eisnn.train import CheckpointError, Run, fit, initial_model

SHIFT = Division("shift")


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
    """A run of each circuit."""
    there = tmp_path_factory.mktemp("runs")
    for circuit, fields in {"plus": {"circuit_options": PLUS}, "bn": {"circuit": "bn"}}.items():
        fit(tiny(images, **fields), there / circuit, quiet=True)
    return there


@pytest.mark.parametrize("fields", [{"circuit_options": replace(PLUS, division=SHIFT)}, {"circuit": "bn"}], ids=str)
def test_the_first_step_has_the_weights_of_the_given_network(images, trained, fields):
    given = trained / fields.get("circuit", "plus")
    begun = initial_model(tiny(images, start_from=str(given), seed=1, **fields)).state_dict()
    for name, value in eisnn.load(given).state_dict().items():
        assert torch.equal(begun[name], value), name


def test_training_through_a_shift_changes_what_is_learned_and_is_kept(images, trained, tmp_path):
    """A run of one small step: its network divides as it was trained, and so does what is folded of it."""
    found = {}
    for name, options in {"exact": PLUS, "shift": replace(PLUS, division=SHIFT)}.items():
        config = tiny(images, start_from=str(trained / "plus"), circuit_options=options, epochs=1, warmup_epochs=0)
        fit(config, tmp_path / name, quiet=True)
        found[name] = load_trained(tmp_path / name).model.eval()
    kernels = [model.layers[0].weight_ee for model in found.values()]
    assert not torch.equal(*kernels)
    layers = [*found["shift"].layers, *eisnn.fold(found["shift"]).layers]
    assert all(layer.division == SHIFT for layer in layers)
    assert found["exact"].layers[0].division == Division()
    x = torch.rand(4, 3, 16, 16)
    with torch.no_grad():
        expected = found["shift"](x)
        torch.testing.assert_close(eisnn.fold(found["shift"])(x), expected)
        for layer in found["shift"].layers:
            layer.division = Division()
        assert not torch.equal(found["shift"](x), expected)


def test_what_cannot_be_started_from_is_refused(images, trained, tmp_path):
    for fields, match in [
        ({"start_from": str(tmp_path / "nowhere")}, r"start_from: there is no checkpoint .*nowhere"),
        ({"start_from": str(trained / "bn")}, "does not fit the model"),
        ({"start_from": str(trained / "bn"), "circuit": "bn", "width": 0.5}, "does not fit the model"),
    ]:
        with pytest.raises(CheckpointError, match=match):
            fit(tiny(images, **fields), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
    with pytest.raises(TypeError, match=r"Division\('shift'\), got 'shift'"):
        replace(PAPER, division="shift")


def test_the_command_knows_networks_by_name(tmp_path, own_cache):
    run = tmp_path / "run"
    args = "--start-from demo-plus --circuit-options.division.kind shift --train-images 100 --test-images 20"
    brief = "--epochs 1 --warmup-epochs 0 --lr 1e-6"
    assert main(["train", "demo-plus", "--run-dir", str(run), *args.split(), *brief.split()]) == 0
    config = Run(run).config()
    assert config.network.circuit_options == replace(PLUS, division=SHIFT)
    assert config.network.start_from.endswith("networks/demo-plus")
    ours, given = (dict(load_trained(path).model.named_parameters()) for path in (run, "demo-plus"))
    for name, value in given.items():
        torch.testing.assert_close(ours[name], value, atol=1e-3, rtol=1e-3)
