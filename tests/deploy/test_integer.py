"""Integers: near the float network, saved and loaded, and C that gives the same bits."""

import shutil
import subprocess

import numpy as np
import pytest
import torch
from networks import SEMISATURATED

import eisnn
from eisnn.data import load
from eisnn.deploy import Division, IntegerNetwork, integer, write_c
from eisnn.deploy.c import state_bytes, weight_bytes
from eisnn.deploy.integer import _exponent, rounded
from eisnn.nn import PLUS

STRICT = "cc -std=c99 -O1 -Wall -Wextra -Werror -pedantic -fsanitize=undefined -fno-sanitize-recover -o classify"
ARM, ON_ARM = "arm-linux-gnueabihf-gcc", "-std=c99 -O2 -Wall -Wextra -Werror -pedantic -static -o classify"
NETWORKS = {
    "paper": {},
    "plus": {"options": PLUS},
    "semisaturated": {"options": SEMISATURATED},
    "bn": {"circuit": "bn"},
    "mlp": {"model": "mlp", "image_size": 16},
    "odd": {"neuron": eisnn.LIF(tau=3.0, theta=0.7, reset="hard"), "time_steps": 2},
}


@pytest.fixture(scope="module")
def pixels(own_cache):
    return load("cifar10-sample", size=16).test.pixels[:24, :, ::2, ::2].contiguous()


def network(pixels, options=None, circuit="ei", model="convnet3", **changes):
    torch.manual_seed(0)
    made = eisnn.create_model(
        model, circuit=circuit, circuit_options=options, **{"width": 0.5, "time_steps": 4, **changes}
    )
    if circuit == "ei":
        eisnn.ei_init_(made, pixels.float() / 255)
    else:
        for _ in range(20):
            made(pixels.float() / 255)
        for layer in made.layers:
            layer.norm.bias.data.fill_(0.5)  # so that all layers fire
    return made.eval().to(memory_format=torch.channels_last)  # as training leaves them


@pytest.mark.parametrize(
    ("kind", "division"),
    [*((kind, Division("lut")) for kind in NETWORKS), ("paper", Division("shift")), ("plus", Division("lut", 1024))],
    ids=str,
)
def test_c_gives_the_same_bits(kind, division, pixels, tmp_path):
    whole = integer(network(pixels, **NETWORKS[kind]), tuple(pixels.shape[1:]), division)
    folder = write_c(whole, [f"class {k}" for k in range(10)], tmp_path)
    subprocess.run([*STRICT.split(), "main.c", "network.c", "weights.c"], cwd=folder, check=True)
    black_and_white = torch.stack([torch.zeros_like(pixels[0]), torch.full_like(pixels[0], 255)])
    shown = torch.cat([pixels, black_and_white])
    out = subprocess.run(
        ["./classify", "-"], cwd=folder, input=shown.numpy().tobytes(), capture_output=True, check=True
    )
    found = torch.tensor([list(map(int, line.split())) for line in out.stdout.decode().splitlines()])
    assert torch.equal(found, whole(shown))
    assert len(found.unique(dim=0)) > 10
    assert torch.equal(IntegerNetwork.load(folder / "integer.safetensors")(shown), found)
    readme = (folder / "README.md").read_text()
    assert f"| {state_bytes(whole):,} |" in readme
    assert "size network.o" in readme
    assert "time ./classify" in readme
    assert weight_bytes(whole) > 10_000
    text = (folder / "network.c").read_text()
    assert not any(word in text for word in ("float ", "double ", "malloc", "<stdlib.h>", "<math.h>"))


@pytest.mark.skipif(
    not (shutil.which(ARM) and shutil.which("qemu-arm")), reason="needs gcc-arm-linux-gnueabihf and qemu-user (Debian)"
)
@pytest.mark.parametrize("kind", ["paper", "semisaturated"])
def test_c_gives_the_same_bits_on_a_32_bit_arm_processor(kind, pixels, tmp_path):
    whole = integer(network(pixels, **NETWORKS[kind]), tuple(pixels.shape[1:]))
    folder = write_c(whole, [f"class {k}" for k in range(10)], tmp_path)
    subprocess.run([ARM, *ON_ARM.split(), "main.c", "network.c", "weights.c"], cwd=folder, check=True)
    shown, command = pixels[:6], ["qemu-arm", "./classify", "-"]
    out = subprocess.run(command, cwd=folder, input=shown.numpy().tobytes(), capture_output=True, check=True)
    found = torch.tensor([list(map(int, line.split())) for line in out.stdout.decode().splitlines()])
    assert torch.equal(found, whole(shown))


def test_main_classifies_image_files(pixels, tmp_path):
    from PIL import Image

    whole = integer(network(pixels), (3, 16, 16))
    folder = write_c(whole, [f"class {k}" for k in range(10)], tmp_path)
    subprocess.run([*STRICT.split(), "main.c", "network.c", "weights.c"], cwd=folder, check=True)
    for k in range(3):
        Image.fromarray(pixels[k].permute(1, 2, 0).numpy()).save(folder / f"{k}.ppm")
    out = subprocess.run(
        ["./classify", "0.ppm", "1.ppm", "2.ppm"], cwd=folder, capture_output=True, check=True, text=True
    )
    assert out.stdout == "".join(f"{k}.ppm: class {int(c)}\n" for k, c in enumerate(whole(pixels[:3]).argmax(1)))
    Image.new("RGB", (8, 16)).save(folder / "small.ppm")
    (folder / "short.ppm").write_bytes((folder / "0.ppm").read_bytes()[:-1])
    for name, problem in [
        ("small.ppm", "another size"),
        ("short.ppm", "ends too early"),
        ("network.c", "is no binary"),
    ]:
        run = subprocess.run(["./classify", name], cwd=folder, capture_output=True, text=True)
        assert run.returncode == 2
        assert problem in run.stderr


@pytest.mark.parametrize("kind", ["paper", "semisaturated", "bn"])
def test_currents_of_the_first_layer_are_near_those_of_the_float_network(kind, pixels):
    """Where quantization is all that differs; further on, spikes that differ make more of them."""
    from eisnn.deploy.integer import ONE, _current
    from eisnn.deploy.stages import stages

    model = network(pixels, **NETWORKS[kind])
    stage = integer(model, (3, 16, 16), Division("lut", 1024)).stages[0]
    layer = eisnn.fold(model).layers[0]
    expected = layer.measure(pixels.float()[None] / 255, pixels)["I_E"] if kind != "bn" else None
    a = torch.nn.functional.conv2d(pixels.double(), torch.from_numpy(stage.weight).double(), padding=1).long()[None]
    n = stage.outputs[0]
    found = (
        _current(stage, a[:, :, :n], a[:, :, n:], Division("lut", 1024)) + torch.from_numpy(stage.bias)[:, None, None]
    )
    if expected is None:
        first = stages(model, (3, 16, 16))[0]
        expected = torch.nn.functional.conv2d(pixels.float() / 255, first.kernel, first.bias, padding=1)[None]
    error = (found / ONE - expected).std() / expected.std()
    assert 0 < error < 0.05, error


@pytest.mark.parametrize("kind", ["paper", "bn"])
def test_logits_are_near_those_of_the_float_network(kind, pixels):
    model = network(pixels, **NETWORKS[kind])
    whole = integer(model, (3, 16, 16), Division("lut", 256))
    with torch.no_grad():
        expected = model(pixels.float() / 255)
    found = whole(pixels) * whole.logit_scale
    assert (found - expected).std() < 0.2 * expected.std()


def test_networks_of_the_package_are_the_same_when_saved_and_loaded(pixels, tmp_path):
    whole = integer(eisnn.load("demo-plus"), (3, 16, 16))
    whole.save(tmp_path / "network.safetensors")
    assert torch.equal(IntegerNetwork.load(tmp_path / "network.safetensors")(pixels), whole(pixels))


def test_rounding():
    a = torch.arange(-40, 41)
    for shift in (1, 2, 5):
        assert torch.equal(rounded(a, torch.tensor(shift)), (a.double() / 2**shift + 0.5).floor().long())
    assert torch.equal(rounded(a, torch.tensor(0)), a)
    assert torch.equal(rounded(a, torch.tensor(-3)), a)
    for largest in (1e-3, 0.99, 1.0, 127.0, 128.0):
        e = _exponent(np.array([largest, -largest / 3]), 127)
        assert 63.5 < largest * 2.0**e <= 127


def test_errors(pixels, tmp_path):
    model = network(pixels)
    with pytest.raises(ValueError, match="divide by shift or lut"):
        integer(model, (3, 16, 16), Division())
    with pytest.raises(ValueError, match="take VGG and MLP networks, got SEWResNet"):
        integer(eisnn.create_model("resnet18", circuit="bn", width=0.1), (3, 16, 16))
    with pytest.raises(RuntimeError, match="never initialised"):
        integer(eisnn.create_model("convnet3"), (3, 16, 16))
    with pytest.raises(ValueError, match=r"layers\.0\.\w+, .*never saw a batch.*: train the network, or load"):
        integer(eisnn.create_model("convnet3", circuit="bn"), (3, 16, 16))
    with pytest.raises(ValueError, match=r"neurons of layers\.0 must be LIF, got PLIF"):
        integer(network(pixels, neuron=eisnn.nn.PLIF()), (3, 16, 16))
    with pytest.raises(ValueError, match=r"layers\.0 is a .*does not fold"):
        integer(eisnn.create_model("convnet3", circuit="tebn", width=0.25, time_steps=4), (3, 16, 16))
    with pytest.raises(TypeError, match=r"as Division\('shift'\), got 'lut'"):
        integer(model, (3, 16, 16), "lut")
    whole = integer(model, (3, 16, 16))
    whole.save(str(tmp_path / "network.safetensors"))
    assert torch.equal(IntegerNetwork.load(str(tmp_path / "network.safetensors"))(pixels), whole(pixels))
    with pytest.raises(TypeError, match="takes uint8 pixels"):
        whole(pixels.float())
    with pytest.raises(ValueError, match=r"takes images \[N, 3, 16, 16\], got \[24, 3, 8, 8\]"):
        whole(pixels[..., ::2, ::2])
    for shape in [(3, 4, 16), (1, 16, 16), (16, 16)]:
        with pytest.raises(ValueError, match=r"takes images of 3 channels, at least 8 pixels .*got \(\d+, "):
            integer(model, shape)
    with pytest.raises(ValueError, match="takes 768 inputs; images of this size give 192"):
        integer(network(pixels, model="mlp", image_size=16), (3, 8, 8))
    with pytest.raises(ValueError, match="has 10 classes, got 2 names"):
        write_c(whole, ["a", "b"], tmp_path / "c")
    (tmp_path / "other").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="other is no integer network"):
        IntegerNetwork.load(tmp_path / "other")
    with torch.no_grad():
        model.layers[0].bias.fill_(1e6)
    with pytest.raises(ValueError, match=r"layers\.0 cannot run in integers: its bias is too large"):
        integer(model, (3, 16, 16))
