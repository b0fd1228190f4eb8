"""Population and neuron as torch operators: registered in full, and taken by `torch.compile` without a graph break."""

import pytest
import torch
from torch import nn

import eisnn
from eisnn.functional import LIFConstants
from eisnn.nn.options import PAPER, PLUS


class Net(nn.Module):
    """A circuit of each kind, and a readout."""

    def __init__(self):
        super().__init__()
        self.conv = eisnn.EIConv2d(3, 8, 3, padding=1)
        self.twin = eisnn.LIF()
        self.dense = eisnn.EILinear(8 * 6 * 6, 16)
        self.readout = eisnn.EIReadout(16, 10)

    def forward(self, images):
        spikes = self.conv(images[None], time_steps=3)
        return self.readout(self.dense(self.twin(2 * spikes).flatten(2))).mean(0)


def gradients(model, images, **compile_options):
    forward = torch.compile(model, fullgraph=True, **compile_options) if compile_options else model
    logits = forward(images)
    return logits, torch.autograd.grad(logits.float().logsumexp(1).sum(), list(model.parameters()))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("autocast", [False, True])
def test_one_graph_equal_to_eager(memory_format, autocast):
    torch.manual_seed(0)
    model, images = Net(), torch.rand(4, 3, 6, 6)
    eisnn.ei_init_(model, images)
    model, images = model.to(memory_format=memory_format), images.to(memory_format=memory_format)
    torch._dynamo.reset()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits, grads = gradients(model, images)
        compiled, compiled_grads = gradients(model, images, backend="aot_eager")
    torch.testing.assert_close(compiled, logits)
    for ours, expected in zip(compiled_grads, grads, strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("circuit", ["ei", "plus", "bn"])
def test_a_whole_network_is_one_graph(circuit):
    torch.manual_seed(0)
    options = {"circuit_options": PLUS} if circuit == "plus" else {}
    kind = "bn" if circuit == "bn" else "ei"
    model, images = eisnn.create_model("convnet3", width=0.25, circuit=kind, **options), torch.rand(4, 3, 16, 16)
    eisnn.ei_init_(model, images)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(model.eval(), fullgraph=True, backend="aot_eager")(images), model(images))


@pytest.mark.parametrize("options", [PAPER, PLUS], ids=["paper", "plus"])
def test_a_circuit_compiles_with_the_default_backend(options):
    torch.manual_seed(0)
    model, x = eisnn.EILinear(6, 8, options=options), torch.rand(3, 2, 6)
    eisnn.ei_init_(model, x)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True)
    leaves = list(model.parameters())
    for ours, expected in zip(*(torch.autograd.grad(run(x).sum(), leaves) for run in (compiled, model)), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_a_state_is_checked_within_the_graph():
    torch.manual_seed(0)
    layer, x, v = eisnn.EILinear(6, 8), torch.rand(3, 2, 6), torch.rand(2, 8)
    eisnn.ei_init_(layer, x)
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for ours, expected in zip(compiled(x, 3, v, True), layer(x, 3, v, True), strict=True):
        torch.testing.assert_close(ours, expected)
    lif = torch.compile(eisnn.ops.lif, fullgraph=True, backend="aot_eager")
    for ours, expected in zip(lif(x, LIFConstants(), v[:, :6]), eisnn.LIF()(x, None, v[:, :6], True), strict=True):
        torch.testing.assert_close(ours, expected)


CHECKS = ("test_schema", "test_autograd_registration", "test_faketensor")


@pytest.mark.parametrize("shape", [(3, 2, 7), (3, 2, 7, 4, 3)])
@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
def test_registration(shape, with_state, channels_last):
    torch.manual_seed(0)
    currents = torch.rand(shape)
    if channels_last and len(shape) == 5:
        currents = currents.movedim(2, -1).contiguous().movedim(-1, 2)
    v = torch.rand(shape[1], 5, *shape[3:]) if with_state else None
    gain, bias, weight = torch.rand(5), torch.rand(5), torch.rand(5, 2)
    leaves = [x.requires_grad_() for x in (currents, weight, gain, bias)]
    neuron = LIFConstants().code
    torch.library.opcheck(torch.ops.eisnn.population, (*leaves, v, shape[0], neuron, False), test_utils=CHECKS)
    torch.library.opcheck(
        torch.ops.eisnn.lif, (torch.rand(shape).requires_grad_(), None, shape[0], neuron), test_utils=CHECKS
    )


def test_no_second_derivative():
    current = torch.rand(3, 2, 4, requires_grad=True)
    (grad,) = torch.autograd.grad(eisnn.LIF()(current).sum(), current, create_graph=True)
    with pytest.raises(RuntimeError, match="autograd"):
        grad.sum().backward()
