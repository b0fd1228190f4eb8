"""Checkpoints in the layout of the authors' program, made from tensors that it computed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from golden import assert_close, load
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import eisnn
from eisnn.cli import main
from eisnn.interop import evaluate, load_trained, read_released, write_released
from eisnn.interop.authors_names import parameter_map
from eisnn.methods import make_layers
from eisnn.models import VGG
from eisnn.nn import PLUS
from eisnn.train import CheckpointError, TrainConfig

UNREAD = {"layers.39.gain_i", "layers.39.gain_e", "layers.39.bias"}
SETTINGS: dict[str, Any] = {
    "dataset": "CIFAR10-sample",
    "type": "EI",
    "arch": "VGG",
    "num_layers": 8,
    "T": 4,
    "ei_ratio": 4,
    "light_classifier": True,
    "dropout": 0.0,
    "neuron": {"tau": 2.0},
}


def golden() -> dict[str, Tensor]:
    return {k.removeprefix("param."): v for k, v in load("vgg8_tiny").items() if k.startswith("param.")}


def write(folder: Path, tensors: dict[str, Tensor] | None = None, **changes: Any) -> Path:
    """A released checkpoint; a change to None takes the field away."""
    folder.mkdir(exist_ok=True)
    save_file(golden() if tensors is None else tensors, folder / "model.safetensors")
    settings = {key: value for key, value in (SETTINGS | changes).items() if value is not None}
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


def test_a_released_checkpoint_is_the_network_that_it_was(tmp_path):
    file = load("vgg8_tiny")
    released = read_released(write(tmp_path))
    assert_close(released.model(file["x"]), file["logits"], 5e-6)
    assert released.config == TrainConfig(model="vgg8", dataset="cifar10-sample")
    assert released.notes == (
        "type 'EI' has no effect: the tensors say what kind of network it is",
        "channels are 8-16-16-32-32, where vgg8 has 64-128-256-512-512",
        "unused names, which nothing reads in a readout: layers.39.bias, layers.39.gain_e, layers.39.gain_i",
    )


def test_its_constants_decide(tmp_path):
    """T and tau as the file says; another tau gives other logits."""
    x = load("vgg8_tiny")["x"]
    usual = read_released(write(tmp_path)).model(x)
    short = read_released(write(tmp_path, T=2))
    assert short.model.time_steps == 2
    slow = read_released(write(tmp_path, neuron={"tau": 5.0}))
    assert slow.config.network.tau == 5.0
    assert not torch.equal(short.model(x), usual)
    assert not torch.equal(slow.model(x), usual)


def test_evaluate_reads_the_folder_and_the_weights_in_it(tmp_path, capsys):
    folder = write(tmp_path)
    model, sample = read_released(folder).model, eisnn.data.load("cifar10-sample").test
    with torch.no_grad():
        answers = torch.cat([model(part.float() / 255).argmax(1) for part in sample.pixels.split(250)])
    right = 100 * float((answers == sample.labels).double().mean())
    for path in (folder, folder / "model.safetensors"):
        result = evaluate(path)
        assert result["accuracy"] == pytest.approx(right, abs=0.3)  # batches round otherwise
        assert result["images"] == 1000
    assert main(["evaluate", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "note: unused names, which nothing reads in a readout: layers.39.bias," in out
    assert f"% of 1000 images, loss {result['loss']:.4f}" in out


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"dropout": 0.2}, "dropout 0.2 is inactive in evaluation"),
        ({"light_classifier": False}, "light_classifier is false: the one readout is read after a global average"),
        ({"optimizer": "SGD"}, "optimizer 'SGD' is not known here and has no effect"),
        ({"neuron": {"tau": 2, "v_reset": 0}}, "neuron.v_reset 0 is not known here and has no effect"),
    ],
)
def test_what_has_no_effect_is_said(tmp_path, changes, note):
    assert any(told.startswith(note) for told in read_released(write(tmp_path, **changes)).notes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ei_ratio": None}, "config.json does not describe a released network: ei_ratio is missing"),
        ({"neuron": {}}, "neuron.tau is missing"),
        ({"neuron": {"tau": float("inf")}}, "neuron.tau must be a finite number"),
        ({"neuron": {"tau": 0.5}}, "neuron.tau must be greater than or equal to 1, got 0.5"),
        ({"T": "four"}, "T must be a valid integer.*'four'"),
        ({"T": True}, "T must be a valid integer.*True"),
        ({"arch": "ResNet", "num_layers": 18}, "arch is 'ResNet' and num_layers 18, none of .*vgg8, vgg11"),
        ({"num_layers": 11}, "holds 5 convolutional and 1 dense circuits; vgg11 has 8 and one readout"),
        ({"dataset": "CIFAR10-XYZ"}, "dataset is 'CIFAR10-XYZ'; known: cifar10, "),
        ({"ei_ratio": 2}, r"layers.2.conv_ie.weight: it has the shape \[2, 3, 3, 3\], expected \[4, 3, 3, 3\]"),
    ],
)
def test_wrong_fields_are_errors(tmp_path, changes, says):
    with pytest.raises(CheckpointError, match=says):
        read_released(write(tmp_path, **changes))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop("layers.10.gain_e"), "does not fit the network: missing: layers.10.gain_e$"),
        (lambda t: t.pop("layers.16.conv_ie.weight"), "missing: layers.16.conv_ie.weight$"),
        (lambda t: t.update({"layers.40.weight": torch.ones(1)}), "unused: layers.40.weight$"),
        (lambda t: t.update({"layers.3.v": torch.ones(1), "layers.3.gain_i": t.pop("layers.3.bias")}), "unused: .*3.v"),
        (lambda t: t.pop("layers.2.conv_ee.weight"), "missing: layers.2.conv_ee.weight$"),
        (
            lambda t: [t.pop(f"layers.2.conv_{kind}.weight") for kind in ("ee", "ie")],
            "holds 4 convolutional and 1 dense circuits",
        ),
        (lambda t: t["layers.3.weight_ei"].neg_(), "layers.0.weight_ei violates Dale's law: 16 negative"),
        (lambda t: t["layers.3.bias"].fill_(float("inf")), "values that are not finite in layers.0.bias"),
        (
            lambda t: t.update({"layers.3.bias": t["layers.3.bias"].int()}),
            "bias: it is torch.int32, expected fl",
        ),
        (lambda t: t.update({"layers.3.bias": torch.ones(4, 2, 1)}), r"layers.3.bias: it has the shape \[4, 2, 1\]"),
    ],
)
def test_wrong_tensors_are_errors(tmp_path, change, says):
    tensors = golden()
    change(tensors)
    with pytest.raises(CheckpointError, match=says):
        read_released(write(tmp_path, tensors))


def test_dead_parameters_of_the_readout_need_not_be_there(tmp_path):
    tensors = {name: value for name, value in golden().items() if name not in UNREAD}
    assert not any("unused" in note for note in read_released(write(tmp_path, tensors)).notes)


def test_damaged_files_and_data_of_other_classes(tmp_path):
    (write(tmp_path) / "model.safetensors").write_bytes(b"garbage")
    with pytest.raises(CheckpointError, match=r"model.safetensors is not a readable safetensors file"):
        read_released(tmp_path)
    tensors = golden()
    for name in ("layers.38.weight_ee", "layers.39.weight_ei"):
        tensors[name] = tensors[name][:8].clone()
    with pytest.raises(
        CheckpointError, match=r"tells 8 classes apart; the data set 'cifar10-sample' has .* 10 classes"
    ):
        load_trained(write(tmp_path, tensors))


def test_written_back_it_is_the_same_file(tmp_path):
    """Bit for bit and name by name, but for what nothing reads."""
    released = read_released(write(tmp_path / "theirs"))
    folder = write_released(released.model, released.config, tmp_path / "ours")
    theirs, again = golden(), load_file(folder / "model.safetensors")
    assert again.keys() == theirs.keys()
    for name in again:
        assert again[name].shape == theirs[name].shape
        assert name in UNREAD or torch.equal(again[name], theirs[name]), name
    settings = json.loads((folder / "config.json").read_text())
    assert settings == SETTINGS | {"dataset": "cifar10-sample", "type": "ei", "arch": "vgg"}
    x = load("vgg8_tiny")["x"]
    assert torch.equal(read_released(folder).model(x), released.model(x))
    with pytest.raises(CheckpointError, match="is there already; choose another folder"):
        write_released(released.model, released.config, folder)


def test_the_size_of_the_images_is_kept(tmp_path):
    """The demo's networks see 16 pixels; at 32 they would answer otherwise without a word."""
    demo = load_trained("demo")
    folder = write_released(demo.model, demo.config, tmp_path / "ours")
    again = read_released(folder)
    assert again.config.data.image_size == 16
    assert not [note for note in again.notes if "no effect" in note]
    assert evaluate(folder)["accuracy"] == evaluate("demo")["accuracy"]


def spaced(model: nn.Module, numbers: list[int]) -> dict[str, Tensor]:
    """Names of `model`'s parameters if its circuits had these layer numbers."""
    names = []
    for number in numbers:
        kinds = ("weight_ee", "weight_ie") if number == numbers[-1] else ("conv_ee.weight", "conv_ie.weight")
        names += [f"layers.{number}.{kind}" for kind in kinds]
        names += [f"layers.{number + 1}.{kind}" for kind in ("weight_ei", "gain_i", "gain_e", "bias")]
    map_ = parameter_map(model, names)
    return {map_[name]: p.detach().clone() for name, p in model.named_parameters()}


def test_other_networks_take_their_numbers_from_a_checkpoint(tmp_path):
    plan = [4, "P", 4, "P", 8, 8, "P", 8, 8, "P", 8, 8, "P"]
    model = VGG(plan, make_layers("ei", eisnn.LIF()), 3, 10, 2)  # type: ignore[arg-type]
    eisnn.ei_init_(model, torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    config = TrainConfig(model="vgg11", dataset="cifar10-sample", time_steps=2)
    with pytest.raises(ValueError, match="known from its checkpoints only: name one of the same network"):
        write_released(model, config, tmp_path / "ours")
    tensors = spaced(model, [2, 9, 16, 22, 29, 35, 42, 48, 56])
    theirs = write(tmp_path / "theirs", tensors, arch="vgg11", num_layers=11, T=2)
    folder = write_released(model, config, tmp_path / "ours", like=theirs)
    again = load_file(folder / "model.safetensors")
    assert set(again) - set(tensors) == {f"layers.57.{kind}" for kind in ("gain_i", "gain_e", "bias")}
    for name, p in read_released(folder).model.named_parameters():
        assert torch.equal(p, dict(model.named_parameters())[name])
    assert json.loads((folder / "config.json").read_text())["arch"] == "vgg11"
    with pytest.raises(CheckpointError, match="feedforward weights of 6 circuits, the network has 9"):
        write_released(model, config, tmp_path / "new", like=write(tmp_path / "vgg8"))


@pytest.mark.parametrize("changes", [{"circuit": "bn"}, {"circuit_options": PLUS}, {"ablation": "floor"}], ids=str)
def test_only_the_paper_s_circuit_is_written(tmp_path, changes):
    model = eisnn.create_model("vgg8", width=0.125, **changes)
    with pytest.raises(ValueError, match="holds VGG networks of the paper's circuit; this is vgg8 with circuit"):
        write_released(model, TrainConfig(**changes), tmp_path / "ours")


def test_export_from_the_command_line(tmp_path, capsys):
    folder = write(tmp_path / "theirs")
    assert main(["export", str(folder), str(tmp_path / "ours")]) == 0
    assert capsys.readouterr().out == f"written: {tmp_path / 'ours'}\n"
    assert main(["export", str(folder), str(tmp_path / "ours")]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "ours"), str(tmp_path / "again"), "--like", str(folder)]) == 0
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("ours", "again"))
    assert all(torch.equal(first[name], second[name]) for name in first)
