"""Networks in NIR, read by snnTorch: the same spikes."""

from pathlib import Path
from runpy import run_path

import pytest
import snntorch
import torch
from networks import images, small

import eisnn
from eisnn.deploy import hold, nir_graph, write_nir

READER = Path(__file__).parents[2] / "benchmarks" / "nir_reader.py"


@pytest.mark.parametrize("circuit", ["ei", "bn"])
@pytest.mark.parametrize(
    ("reset", "kind", "same"), [("hard", "Leaky", 0.999), ("soft", "Leaky", 0.99), ("soft", "Subtracting", 0.999)]
)
def test_snntorch_gives_the_same_spikes(circuit, reset, kind, same, tmp_path):
    """Where a potential is still above the threshold after one was subtracted, snnTorch's own neuron subtracts the next
    one before it fires, and gives fewer spikes than eq. (3)."""
    reader = run_path(str(READER))
    kinds = {"Leaky": snntorch.Leaky, "Subtracting": reader["Subtracting"]}
    x, neuron = images(6, dtype=torch.float32), eisnn.LIF(reset=reset)
    if circuit == "ei":
        model = hold(small(dtype=torch.float32, neuron=neuron), x)
    else:
        model = eisnn.create_model("convnet3", circuit="bn", width=0.25, time_steps=3, neuron=neuron)
        for _ in range(20):
            model(x)
        for layer in model.layers:
            layer.norm.bias.data.fill_(0.5)  # so that all layers fire
        model = eisnn.fold(model).to(memory_format=torch.channels_last)  # as training leaves them
    ours, expected = reader["ours"](model, x)
    file = write_nir(model, (3, 8, 8), tmp_path / "n.nir")
    spikes, logits = reader["simulate"](file, x, 3, kinds[kind])
    assert len(spikes) == len(ours) == 3
    for theirs, mine in zip(spikes, ours, strict=True):
        assert 0.01 < float(mine.mean()) < 0.99
        assert float((theirs.reshape(mine.shape) == mine).float().mean()) >= same
    if same > 0.99:
        torch.testing.assert_close(logits, expected, atol=1e-3, rtol=0)


def test_live_division_is_refused():
    with pytest.raises(ValueError, match=r"layers\.0, layers\.1, layers\.2 divide by a current.*deploy\.hold"):
        nir_graph(small(), (3, 8, 8))


def test_an_mlp_and_shapes():
    model = eisnn.create_model("mlp", circuit="bn", image_size=8, width=0.1)
    with pytest.raises(ValueError, match=r"layers\.0\.\w+, .*never saw a batch.*: train the network, or load"):
        nir_graph(model, (3, 8, 8))
    model(images(dtype=torch.float32))
    graph = nir_graph(model, (3, 8, 8))
    kinds = [type(node).__name__ for node in graph.nodes.values()]
    assert kinds[:4] == ["Input", "Flatten", "Affine", "LIF"]
    assert list(graph.nodes["output"].output_type["output"]) == [10]
