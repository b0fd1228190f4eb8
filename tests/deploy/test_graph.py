"""Exported graphs give what the network gives, for any batch, where this package cannot be imported."""

import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch
from networks import images

import eisnn
from eisnn.deploy import Division, divide, exported, write_aoti, write_onnx, write_torch
from eisnn.nn import PLUS, CircuitOptions

NETWORKS = {
    "paper": {},
    "plus": {"options": PLUS},
    "conserved": {"options": CircuitOptions(conserved=True)},
    "bn": {"circuit": "bn"},
    "resnet": {"model": "resnet18", "width": 1 / 16},
    "mlp": {"model": "mlp", "image_size": 8},
}
WITHOUT_EISNN = """
import sys
sys.modules["eisnn"] = None  # importing it fails
import torch
images = torch.load({images!r})
with torch.no_grad():
    torch.save({network}(images), {out!r})
"""


def network(options=None, circuit="ei", model="convnet3", **changes):
    torch.manual_seed(0)
    made = eisnn.create_model(
        model, circuit=circuit, circuit_options=options, time_steps=3, **{"width": 0.25, **changes}
    )
    if circuit == "ei":
        eisnn.ei_init_(made, images(8, seed=1, dtype=torch.float32))
    else:  # running statistics as after some training
        for _ in range(20):
            made(images(8, seed=1, dtype=torch.float32))
    return made.eval().to(memory_format=torch.channels_last)  # as training leaves them


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_graph_of_torch_s_own_operators_for_any_batch(kind):
    model = network(**NETWORKS[kind])
    program = exported(model, images(1, dtype=torch.float32))
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert targets
    assert not any("eisnn" in target or "_assert_async" in target for target in targets), targets
    for count in (1, 5):
        x = images(count, dtype=torch.float32)
        with torch.no_grad():
            torch.testing.assert_close(program.module()(x), eisnn.fold(model)(x), atol=1e-5, rtol=0)


def test_sequences_are_exported_with_their_time():
    model, x = network(), torch.rand(3, 2, 3, 8, 8)
    program = exported(model, x)
    more = torch.rand(3, 5, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(more), model(more), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["paper", "plus", "bn"])
def test_onnx_in_onnx_runtime(kind, tmp_path):
    model, x = network(**NETWORKS[kind]), images(7, dtype=torch.float32)
    file = write_onnx(model, x[:2], tmp_path / "new" / "network.onnx")
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for count in (1, 7):
        (found,) = session.run(["logits"], {"images": x[:count].numpy()})
        with torch.no_grad():
            expected = eisnn.fold(model)(x[:count])
        assert np.abs(found - expected.numpy()).max() < 1e-5


def test_onnx_has_no_shifts(tmp_path):
    model = divide(network(), Division("shift"))
    with pytest.raises(ValueError, match=r"divides by shift, and ONNX has no operator .* export it as c or torch"):
        write_onnx(model, images(2, dtype=torch.float32), tmp_path / "network.onnx")
    assert not list(tmp_path.iterdir())


def test_a_program_that_shifts_gives_the_same():
    model, x = divide(network(), Division("shift")), images(5, dtype=torch.float32)
    with torch.no_grad():
        assert torch.equal(exported(model, x[:2]).module()(x), model(x))


def alone(tmp_path, call, x):
    """What a program gives that cannot import eisnn."""
    files = {"images": str(tmp_path / "images.pt"), "out": str(tmp_path / "out.pt")}
    torch.save(x, files["images"])
    code = WITHOUT_EISNN.format(network=call, **files)
    subprocess.run([sys.executable, "-I", "-c", code], check=True, cwd=tmp_path)
    return torch.load(files["out"])


def test_a_program_of_torch_export_runs_without_this_package(tmp_path):
    model, x = network(**NETWORKS["plus"]), images(5, dtype=torch.float32)
    file = write_torch(model, x[:2], tmp_path / "network.pt2")
    with torch.no_grad():
        expected = eisnn.fold(model)(x)
    found = alone(tmp_path, f"torch.export.load({str(file)!r}).module()", x)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_program_keeps_no_images(tmp_path):
    model, x = network(), torch.rand(1000, 3, 32, 32)
    file = write_torch(model, x, tmp_path / "network.pt2")
    weights = sum(t.nbytes for t in eisnn.fold(model).state_dict().values())
    assert file.stat().st_size < weights + 500_000  # the graph; the images are 12 MB
    ((shown,), _) = torch.export.load(file).example_inputs
    assert shown.shape == (2, 3, 32, 32)
    assert shown.untyped_storage().nbytes() == shown.nbytes
    assert not shown.any()


@pytest.mark.slow
def test_a_compiled_program_runs_without_this_package(tmp_path):
    model, x = network(), images(5, dtype=torch.float32)
    file = write_aoti(model, x[:2], tmp_path / "compiled.pt2")
    with torch.no_grad():
        expected = eisnn.fold(model)(x)
    found = alone(tmp_path, f"torch._inductor.aoti_load_package({str(file)!r})", x)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_what_was_never_initialised_is_not_exported():
    with pytest.raises(RuntimeError, match="never initialised"):
        exported(eisnn.create_model("convnet3"), images(2, dtype=torch.float32))
    with pytest.raises(ValueError, match=r"stem\.norm, .*never saw a batch.*: train the network, or load"):
        exported(eisnn.create_model("resnet18", circuit="bn", width=1 / 16), images(2, dtype=torch.float32))
