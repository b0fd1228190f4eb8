"""Networks in NIR, read by snnTorch: the same spikes."""

import nir
import nirtorch
import pytest
import snntorch
import torch
from networks import images, small

import eisnn
from eisnn.deploy import hold, nir_graph, write_nir
from eisnn.deploy.nir_graph import STEP


class Leaky(torch.nn.Module):
    """snnTorch's neuron, as its own reader of NIR makes it, but for the reset that the metadata name."""

    def __init__(self, node):
        super().__init__()
        beta = float((1 - STEP / node.tau).flat[0])
        threshold = float((node.v_threshold / (node.r * STEP / node.tau)).flat[0])
        reset = node.metadata["reset"]
        self.neuron = snntorch.Leaky(beta, threshold, reset_mechanism=reset, reset_delay=False)
        self.spikes = []

    def forward(self, current):
        spikes, _ = self.neuron(current)
        self.spikes.append(spikes)
        return spikes


def affine(node):
    layer = torch.nn.Linear(*node.weight.shape[::-1])
    layer.load_state_dict({"weight": torch.from_numpy(node.weight), "bias": torch.from_numpy(node.bias)})
    return layer


NODES = {nir.LIF: Leaky, nir.Flatten: lambda node: torch.nn.Flatten(1), nir.Affine: affine}


def simulate(file, x, steps):
    """Spikes of each layer `[T, B, ...]` and mean output of the graph in `file`."""
    net = nirtorch.nir_to_torch(nir.read(str(file)), NODES)
    outputs = []
    with torch.no_grad():
        for _ in range(steps):
            out = net(x)
            outputs.append(out[0] if isinstance(out, tuple) else out)
    found = {m: torch.stack(m.spikes) for m in net.modules() if isinstance(m, Leaky)}
    return list(found.values()), torch.stack(outputs).mean(0)


@pytest.mark.parametrize("circuit", ["ei", "bn"])
@pytest.mark.parametrize(("reset", "same"), [("hard", 0.999), ("soft", 0.99)])
def test_snntorch_gives_the_same_spikes(circuit, reset, same, tmp_path):
    """Where a potential is still above the threshold after one was subtracted, snnTorch subtracts the next one before
    it fires, and gives fewer spikes than eq. (3)."""
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
    ours = []
    for layer in model.layers:
        layer.register_forward_hook(lambda m, args, out: ours.append(out[0] if isinstance(out, tuple) else out))
    with torch.no_grad():
        expected = model(x)
    spikes, logits = simulate(write_nir(model, (3, 8, 8), tmp_path / "n.nir"), x, 3)
    assert len(spikes) == len(ours) == 3
    for theirs, mine in zip(spikes, ours, strict=True):
        assert 0.01 < float(mine.mean()) < 0.99
        assert float((theirs.reshape(mine.shape) == mine).float().mean()) >= same
    if reset == "hard":
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
