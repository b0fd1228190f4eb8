"""`eisnn.convert` on real networks of SpikingJelly, snnTorch and Norse and on plain torch: what is replaced, kept and
refused, the neuron's spikes, and training afterwards."""

import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import eisnn
from eisnn.interop.convert import lif_of
from eisnn.nn import layers_of

jelly = pytest.importorskip("spikingjelly.activation_based")
snn = pytest.importorskip("snntorch")
snn_utils = pytest.importorskip("snntorch.utils")
from spikingjelly.activation_based import functional, layer, neuron, surrogate  # noqa: E402

LABELS = torch.arange(8) % 4


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def images(*shape: int) -> Tensor:
    """Images of four classes: each has its own bright stripe, and its own bright channel where there are several."""
    x = torch.rand(8, *shape, generator=torch.Generator().manual_seed(0)) * 0.4
    for image, label in zip(x, LABELS.tolist(), strict=True):
        image.chunk(4, -1)[label].add_(0.6)
        if len(shape) == 3:
            image[label % shape[0]] += 0.3
    return x


def lif(**changes) -> neuron.LIFNode:
    return neuron.LIFNode(step_mode="m", **{"surrogate_function": surrogate.ATan()} | changes)


def losses(model: nn.Module, logits, x: Tensor, steps: int = 12, lr: float = 0.01) -> list[float]:
    """Of training on one batch, with Dale's law enforced."""
    optimizer = torch.optim.Adam(model.parameters(), lr)
    eisnn.enforce_dale(optimizer, model)
    found = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(logits(model, x), LABELS)
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def learns(model: nn.Module, logits, x: Tensor, **changes) -> None:
    torch.manual_seed(0)
    found = losses(model.train(), logits, x, **changes)
    assert sum(found[-3:]) < 0.9 * sum(found[:3]), found
    assert eisnn.dale_violations(model) == {}


def jelly_logits(model: nn.Module, x: Tensor) -> Tensor:
    functional.reset_net(model)
    return model(x).mean(0)


@pytest.fixture
def torchvision(monkeypatch):
    """SpikingJelly's networks import one function from torchvision, to download weights."""
    for name in ("torchvision", "torchvision.models", "torchvision.models.utils"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["torchvision.models.utils"].load_state_dict_from_url = None


def narrow_vgg() -> nn.Module:
    from spikingjelly.activation_based.model.spiking_vgg import SpikingVGG

    net = SpikingVGG([8, "M", 16, "M"], True, spiking_neuron=neuron.LIFNode, decay_input=False, detach_reset=True)
    net.avgpool = layer.AdaptiveAvgPool2d((2, 2))
    net.classifier = nn.Sequential(layer.Linear(64, 32), lif(), layer.Dropout(), layer.Linear(32, 4))
    return net


@pytest.mark.parametrize("options", [eisnn.nn.PAPER, eisnn.PLUS])
def test_spiking_vgg(torchvision, options):
    net = narrow_vgg()
    functional.set_step_mode(net, "m")
    x = images(3, 12, 12).expand(3, -1, -1, -1, -1)
    model, report = eisnn.convert(net, x, options=options)
    assert [type(c).__name__ for c in layers_of(model).values()] == ["EIConv2d", "EIConv2d", "EILinear", "EIReadout"]
    assert [type(c.neuron) for c in layers_of(model).values()][:3] == [eisnn.LIF] * 3
    assert {part.fate for part in report.parts} == {"replaced"}
    assert isinstance(net.features[0], layer.Conv2d)
    learns(model, jelly_logits, x, steps=30, lr=0.003)


def test_sew_resnet(torchvision):
    from spikingjelly.activation_based.model.sew_resnet import BasicBlock, SEWResNet

    net = SEWResNet(
        BasicBlock, [1, 1, 1, 1], 4, cnf="ADD", spiking_neuron=neuron.IFNode, v_threshold=0.5, detach_reset=True
    )
    functional.set_step_mode(net, "m")
    x = images(3, 24, 24).expand(2, -1, -1, -1, -1)
    model, report = eisnn.convert(net, x, options=eisnn.PLUS)
    assert len(layers_of(model)) == 13
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert {part.fate for part in report.parts} == {"replaced"}
    learns(model, jelly_logits, x, steps=10, lr=0.001)


def test_qkformer(torchvision):
    """Its attention and its MLPs are 1D convolutions over tokens; its last attention is silent, before and after."""
    from spikingjelly.activation_based.model.qkformer import QKFormer

    net = QKFormer(T=2, num_classes=4, embed_dims=32, num_heads=(1, 1, 2), depths=(1, 1, 1), mlp_ratio=2.0)
    x, silent = images(3, 16, 16), "stage3.0.attn.proj_conv_bn.0"
    with pytest.raises(ValueError, match=f"the input of {silent} is zero everywhere.*keep="):
        eisnn.convert(net, x, options=eisnn.PLUS)
    with pytest.raises(ValueError, match=r"keep has stage9; the projections are patch_embed1\.conv1, "):
        eisnn.convert(net, x, keep=["stage9"])
    model, report = eisnn.convert(net, x, options=eisnn.PLUS, keep=[silent])
    assert report.of("refused") == [(silent, "refused", "Conv1d", "it is in keep")]
    assert len(report.of("replaced")) == 22
    why = {part.name: part.why for part in report.of("kept")}
    assert why["patch_embed2.lif1"].startswith("it reads patch_embed2.pool, which is no projection that was replaced;")
    assert not model.patch_embed2.lif1.decay_input  # it receives the current of a circuit
    assert model.stage1[0].attn.attn_lif.decay_input  # it receives products of spikes
    learns(model, lambda model, x: (functional.reset_net(model), model(x))[1], x, steps=20, lr=0.01)


@pytest.mark.parametrize("mode", ["m", "s"])
def test_parametric_lif_net(mode):
    """Its last projection ends in neurons, which stay; step by step all neurons do."""
    from spikingjelly.activation_based.model.parametric_lif_net import MNISTNet

    net = MNISTNet(4, neuron.LIFNode, detach_reset=True)
    net.conv_fc[9] = net.conv_fc[12] = nn.Identity()
    net.conv_fc[10] = layer.Linear(4 * 7 * 7, 64)
    net.conv_fc[13], net.conv_fc[15] = layer.Linear(64, 40), layer.VotingLayer(10)
    functional.set_step_mode(net, mode)

    def forward(model: nn.Module, x: Tensor) -> Tensor:
        functional.reset_net(model)
        steps = x.expand(4, *x.shape)
        return model(steps).mean(0) if mode == "m" else torch.stack([model(step) for step in steps]).mean(0)

    x = images(1, 28, 28)
    model, report = eisnn.convert(net, x, options=eisnn.PLUS, run=forward)
    assert len(report.of("replaced")) == 4
    neurons = [part.name for part in report.of("kept") if part.what == "LIFNode"]
    assert neurons == (["conv_fc.14"] if mode == "m" else ["conv_fc.2", "conv_fc.6", "conv_fc.11", "conv_fc.14"])
    learns(model, forward, x, lr=0.003)


class Tutorial5(nn.Module):
    """The network of snnTorch's tutorial 5, narrower; its loop over time lies inside."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(64, 32)
        self.lif1 = snn.Leaky(beta=0.95)
        self.fc2 = nn.Linear(32, 4)
        self.lif2 = snn.Leaky(beta=0.95)

    def forward(self, x):
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        spk2_rec, mem2_rec = [], []
        for _ in range(6):
            cur1 = self.fc1(x)
            spk1, mem1 = self.lif1(cur1, mem1)
            cur2 = self.fc2(spk1)
            spk2, mem2 = self.lif2(cur2, mem2)
            spk2_rec.append(spk2)
            mem2_rec.append(mem2)
        return torch.stack(spk2_rec, dim=0), torch.stack(mem2_rec, dim=0)


def test_snntorch_tutorial_5():
    x = images(64)
    model, report = eisnn.convert(Tutorial5(), x, options=eisnn.PLUS)
    assert [part.fate for part in report.parts] == ["replaced", "kept", "replaced", "kept"]
    assert float(model.lif1.beta) == pytest.approx(0.95)
    learns(model, lambda model, x: model(x)[1].mean(0), x)


def test_snntorch_tutorial_6():
    """Max pooling lies between the convolution and its neurons, which hold their potentials; the loop is outside."""
    grad = snn.surrogate.fast_sigmoid(slope=25)

    def leaky(**changes):
        return snn.Leaky(beta=0.5, spike_grad=grad, init_hidden=True, **changes)

    net = nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.MaxPool2d(2), leaky(),
        nn.Conv2d(6, 8, 5), nn.MaxPool2d(2), leaky(),
        nn.Flatten(), nn.Linear(8 * 4 * 4, 4), leaky(output=True),
    )  # fmt: skip

    def forward(model: nn.Module, x: Tensor) -> Tensor:
        snn_utils.reset(model)
        return torch.stack([model(x)[1] for _ in range(4)]).mean(0)

    x = images(1, 28, 28)
    model, report = eisnn.convert(net, x, options=eisnn.PLUS, run=forward)
    assert [part.name for part in report.of("replaced")] == ["0", "3", "7"]
    learns(model, forward, x, lr=0.003)


def test_norse():
    """The network of Norse's MNIST task, narrower: its cells hand their state on, and the loop is outside."""
    norse = pytest.importorskip("norse.torch")  # pip install --no-deps norse builds it, in minutes
    net = norse.SequentialState(
        nn.Conv2d(1, 8, 5), norse.LIFCell(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 5), norse.LIFBoxCell(), nn.Flatten(), nn.Linear(8 * 8 * 8, 4), norse.LICell(),
    )  # fmt: skip

    def forward(model: nn.Module, x: Tensor) -> Tensor:
        state, potential = None, []
        for _ in range(8):
            v, state = model(x, state)
            potential.append(v)
        return torch.stack(potential).mean(0)

    x = images(1, 28, 28)
    model, report = eisnn.convert(net, x, options=eisnn.PLUS, run=forward)
    assert [part.name for part in report.of("replaced")] == ["0", "3", "6"]
    assert [part.what for part in report.of("kept")] == ["LIFCell", "LIFBoxCell", "LICell"]
    learns(model, forward, x, steps=20, lr=0.01)


class Plain(nn.Module):
    """Plain torch: steps in the axis of images for the convolution, residual currents, a readout with no neuron."""

    def __init__(self, **conv):
        super().__init__()
        self.conv1 = nn.Conv2d(4, 8, 3, padding=1, **conv)
        self.norm1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(8)
        self.fire = eisnn.LIF()
        self.out = nn.Linear(8, 4)

    def forward(self, x):
        x = x.expand(4, *x.shape)
        s = self.fire(self.norm1(self.conv1(x.flatten(0, 1))).unflatten(0, x.shape[:2]))
        current = self.norm2(self.conv2(s.flatten(0, 1))) + s.flatten(0, 1)
        return self.out(self.fire(current.unflatten(0, x.shape[:2])).mean((3, 4))).mean(0)


def test_plain_torch():
    x = images(4, 8, 8)
    model, report = eisnn.convert(Plain(), x)
    assert len(report.of("replaced")) == 3
    assert isinstance(model.norm2, nn.Identity)
    learns(model, lambda model, x: model(x), x)


def test_a_network_that_does_not_spike_is_told_of():
    net = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))
    model, report = eisnn.convert(net, images(4, 8, 8))
    assert [(part.name, part.what, part.why) for part in report.of("kept")] == [("2", "ReLU", "its units do not spike")]
    assert "the new network does not either" in report.note
    assert str(report).splitlines()[-1] == f"note: {report.note}"
    assert isinstance(model[2], nn.ReLU)
    assert eisnn.convert(Plain(), images(4, 8, 8))[1].note == ""


class Tokens(nn.Module):
    """A mixer of patches, `[T, B, N, C]`."""

    def __init__(self, fire):
        super().__init__()
        self.embed, self.fire, self.out = nn.Linear(64, 16), fire, nn.Linear(16, 4)

    def forward(self, x):
        patches = nn.functional.unfold(x, 4, stride=4).transpose(1, 2)  # [B, N, 64]
        return self.out(self.fire(self.embed(patches.expand(3, *patches.shape)))).mean((0, 2))


@pytest.mark.parametrize("inside", [False, True])
def test_a_linear_on_tokens_is_the_circuit_at_each_token(inside):
    lif = neuron.LIFNode(v_reset=None, surrogate_function=surrogate.Sigmoid(), step_mode="m") if inside else eisnn.LIF()
    x = images(4, 8, 8)
    model, report = eisnn.convert(Tokens(lif), x, options=eisnn.PLUS)
    assert [part.name for part in report.of("replaced")] == ["embed", "out"]
    circuit, patches = model.embed.circuit, nn.functional.unfold(x, 4, stride=4).transpose(1, 2)
    whole = model.embed(patches.expand(3, *patches.shape))
    assert whole.shape == (3, len(x), 4, 16)
    for n in range(4):
        assert torch.equal(whole[:, :, n], circuit(patches[:, n].expand(3, len(x), 64)))
    learns(model, lambda model, x: model(x), x)


@pytest.mark.parametrize(
    ("conv", "shift", "why"),
    [({"groups": 2}, 0, "groups=2"), ({}, -0.5, "mean-subtracted"), ({"padding_mode": "circular"}, 0, "circular")],
)
def test_refused_and_kept(conv, shift, why):
    net = Plain(**conv)
    model, report = eisnn.convert(net, images(4, 8, 8) + shift)
    (refused,) = report.of("refused")
    assert refused.name == "conv1"
    assert why in refused.why
    assert torch.equal(model.conv1.weight, net.conv1.weight)
    assert isinstance(model.norm1, nn.BatchNorm2d)
    assert str(report).splitlines()[0].startswith("refused")


def test_a_projection_with_two_names_is_replaced_under_both():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(8, 8)
            self.second = self.first
            self.out = nn.Linear(8, 4)

        def forward(self, x):
            return self.out(self.second(self.first(x).relu()).relu())

    model, _ = eisnn.convert(Tied(), torch.rand(6, 8))
    assert model.second is model.first
    assert not isinstance(model.first, nn.Linear)
    assert model(torch.rand(6, 8)).shape == (6, 4)


def test_what_else_reads_a_current_keeps_the_neuron_outside():
    class Shortcut(nn.Module):
        def __init__(self):
            super().__init__()
            self.project, self.fire, self.out = layer.Linear(8, 8), neuron.IFNode(step_mode="m"), layer.Linear(8, 4)

        def forward(self, x):
            current = self.project(x)
            return self.out(self.fire(current) + current.relu())

    model, report = eisnn.convert(Shortcut(), torch.rand(3, 8, 8) * 2)
    assert report.of("kept") == [("fire", "kept", "IFNode", "something else reads the output of project too")]
    assert model.project.neuron is None


@pytest.mark.parametrize("why", ["keep", "refused"])
def test_what_stays_answers_as_before(why):
    """A part that no circuit drives: its neurons divide their input as they did; those behind a circuit do not."""
    neurons = [neuron.LIFNode(step_mode="m", v_threshold=0.1, v_reset=to) for to in (0.0, 0.05)]  # one stays outside
    shared = {"step_mode": "m"}
    first = [layer.Conv2d(3, 4, 3, padding=1, **shared), layer.BatchNorm2d(4, **shared), layer.AvgPool2d(2, **shared)]
    net = nn.Sequential(*first, neurons[0], layer.Conv2d(4, 8, 3, **shared), layer.BatchNorm2d(8, **shared), neurons[1])
    x = torch.rand(4, 2, 3, 8, 8) * 4 - 2 * (why == "refused")
    model, report = eisnn.convert(net, x, keep=["0"] if why == "keep" else [])
    assert [part.name for part in report.parts if part.fate == "refused"] == ["0"]
    functional.reset_net(model)
    functional.reset_net(net)
    before, after = net[:4](x), model[:4](x)
    assert before.any()
    assert torch.equal(before, after)
    assert model[3].decay_input
    assert not model[6].decay_input


def test_names_to_keep_are_not_one_string():
    with pytest.raises(TypeError, match=r"keep must be a collection of names, such as keep=\['01'\], got the string"):
        eisnn.convert(nn.Linear(3, 3), torch.rand(2, 3), keep="01")


def test_the_model_given_stays_as_it_was_and_no_potential_is_left():
    net = nn.Sequential(layer.Linear(8, 16), neuron.LIFNode(), nn.Dropout(), layer.Linear(16, 4))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    model, _ = eisnn.convert(net, torch.rand(8, 8) * 2, generator=torch.Generator().manual_seed(1))
    again, _ = eisnn.convert(net, torch.rand(8, 8) * 2, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(net.state_dict(), before)
    assert net[1].decay_input
    assert model[1].v == 0.0
    assert model.training
    assert model[2].training
    assert not torch.equal(model[0].circuit.weight_ee, again[0].circuit.weight_ee)


def test_nothing_to_replace_is_an_error_with_reasons():
    with pytest.raises(ValueError, match="no circuit is like Conv3d: its signed weights stay"):
        eisnn.convert(nn.Sequential(nn.Conv3d(1, 1, 1)), torch.rand(2, 1, 5, 5, 5))
    with pytest.raises(ValueError, match=r"no torch.nn.Conv2d, Conv1d and Linear"):
        eisnn.convert(nn.ReLU(), torch.rand(2, 3))
    with pytest.raises(TypeError, match=r"options must be eisnn.PLUS or .*, got 'plus'"):
        eisnn.convert(nn.Linear(3, 3), torch.rand(2, 3), options="plus")


class Branches(nn.Module):
    """One of two branches runs; attention, an embedding and a recurrent neuron have weights of their own."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.out = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)
        self.attention = nn.MultiheadAttention(8, 2)
        self.fire = snn.RLeaky(beta=0.5, linear_features=8)

    def forward(self, x):
        spikes, _ = self.fire(self.left(x) if x.mean() < 9 else self.right(x), *self.fire.init_rleaky())
        return self.out(self.attention(spikes, spikes, spikes)[0].relu())


def test_no_signed_weight_is_passed_over_in_silence():
    model, report = eisnn.convert(Branches(), torch.rand(6, 8))
    told = {part.name: part for part in report.parts}
    named = {name.partition(".")[0] for name, p in model.named_parameters() if p.ndim > 1}
    assert named == {"left", "right", "out", "attention", "fire"}
    assert named <= set(told)
    assert told["right"].fate == told["attention"].fate == "refused"
    assert "the sample did not reach it" in told["right"].why
    assert "no circuit is like MultiheadAttention" in told["attention"].why
    assert "the weights in RLeaky stay signed" in told["fire"].why


@pytest.mark.parametrize("top", [1.0, 255.0])
def test_pixels_up_to_255_are_scaled_for_and_said(top):
    _, report = eisnn.convert(Plain(), images(4, 8, 8).clamp(max=1) * top)
    (first, *_) = report.of("replaced")
    assert ("its input reaches 255 and it is scaled to that" in first.why) == (top == 255)
    assert not any("reaches" in part.why for part in report.of("replaced")[1:])
    small = eisnn.convert(Plain(), images(4, 8, 8).clamp(max=1), generator=torch.Generator().manual_seed(0))[0]
    large = eisnn.convert(Plain(), images(4, 8, 8).clamp(max=1) * top, generator=torch.Generator().manual_seed(0))[0]
    expected, found = (m(images(4, 8, 8).clamp(max=1) * s) for m, s in ((small, 1), (large, top)))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("sample", "error", "message"),
    [
        (images(4, 8, 8).mul(99).byte(), TypeError, r"conv1 receives torch.uint8.*x / 255"),
        (None, TypeError, "sample must be what model.sample. takes, a batch of images as a tensor, got NoneType"),
        ([], TypeError, "sample must be what"),
        (torch.zeros(0, 4, 8, 8), ValueError, r"conv1 receives an empty tensor, \[0, 4, 8, 8\]"),
        (images(4, 8, 8) * torch.nan, ValueError, "NaN|finite"),
        (torch.zeros(8, 4, 8, 8), ValueError, "conv1 is zero everywhere"),
    ],
)
def test_odd_samples(sample, error, message):
    class Net(Plain):
        def forward(self, x):
            return self.out(self.fire(self.norm1(self.conv1(x))[None])[0].mean((2, 3)))

    with pytest.raises(error, match=message):
        eisnn.convert(Net(), sample)


def test_a_single_image_is_no_batch():
    with pytest.raises(ValueError, match=r"its input has 3 axes; \[B, C, H, W\], or \[T, B, C, H, W\]"):
        eisnn.convert(nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU()), images(4, 8, 8)[0])


@pytest.mark.parametrize("reset", [None, 0.0])
@pytest.mark.parametrize("decay", [True, False])
@pytest.mark.parametrize("gradient", [surrogate.ATan(3.0), surrogate.Sigmoid(2.0), surrogate.PiecewiseQuadratic(0.7)])
def test_the_neuron_in_the_circuit_spikes_as_theirs_and_has_its_gradient(reset, decay, gradient):
    theirs = lif(tau=3.0, v_threshold=0.4, v_reset=reset, decay_input=decay, surrogate_function=gradient)
    ours, current = lif_of(theirs), torch.randn(6, 5, 40, generator=torch.Generator().manual_seed(2)).double() * 2
    results = []
    for run in (theirs, ours):
        i = current.clone().requires_grad_()
        spikes = run(i / 3 if decay and run is ours else i)
        (spikes * torch.linspace(-1, 1, 40)).sum().backward()
        results.append((spikes.detach(), i.grad))
    assert 0.02 < results[0][0].mean() < 0.9
    torch.testing.assert_close(results[1], results[0])


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"v_reset": -0.1}, "resets to -0.1"),
        ({"surrogate_function": surrogate.Erf()}, "Erf"),
        ({"step_mode": "s"}, "step"),
    ],
)
def test_a_neuron_that_ours_is_not_stays(changes, why):
    assert why in lif_of(neuron.LIFNode(**{"step_mode": "m", "surrogate_function": surrogate.ATan()} | changes))
