"""DANN (Cornford et al. 2021): its equation, its initialisation, its corrected updates, and Dale's law."""

from math import exp, pi, sqrt

import pytest
import torch
from circuits import assert_agree, gradients, rng
from torch import Tensor, nn
from torch.nn import functional as F

import eisnn
import eisnn.functional as EF
from eisnn.init import InputStatistics, inhibitory_gain, weight_scale
from eisnn.methods.dann import EPSILON, DANNConv2d, DANNLinear, DANNReadout, FoldedDANN

GEOMETRIES = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)},
]
LAYERS = [
    *[lambda g=g: DANNConv2d(3, 12, neuron=None, **g) for g in GEOMETRIES],
    lambda: DANNLinear(15, 12, neuron=None),
    lambda: DANNReadout(15, 12),
]


def rectified(*shape: int, seed: int = 0) -> Tensor:
    """The inputs that the initialisation assumes."""
    return torch.randn(shape, generator=rng(seed), dtype=torch.float64).relu()


def trained(make) -> nn.Module:
    """A layer in float64 as after some training: some weights clamped to 0, all parameters of their own."""
    torch.manual_seed(0)
    layer, generator = make().double(), rng(1)
    with torch.no_grad():
        for name, p in layer.named_parameters():
            if name in layer.dale_parameters:
                p.mul_(torch.rand(p.shape, generator=generator, dtype=torch.float64) - 0.2).clamp_(min=0)
            else:
                p.add_(torch.randn(p.shape, generator=generator, dtype=torch.float64))
    return layer


def input_of(layer: nn.Module, t: int = 2, b: int = 4) -> Tensor:
    return rectified(t, b, 3, 9, 8) if isinstance(layer.connection, EF.Conv) else rectified(t, b, 15)


def as_written(layer: nn.Module, x: Tensor) -> Tensor:
    """The equations of the paper, each projection on its own, without corrections."""
    h_i = layer.connection.feedforward(x, layer.weight_ie)
    gamma = EF.lateral(EF.per_neuron(layer.alpha.exp(), h_i) * h_i, layer.weight_ei)
    z = layer.connection.feedforward(x, layer.weight_ee) - EF.lateral(h_i, layer.weight_ei)
    return EF.per_neuron(layer.gain_e, z) / (gamma + EPSILON) * z + EF.per_neuron(layer.bias, z)


# ---------------------------------------------------------------------------------------------- equation, updates


@pytest.mark.parametrize("make", LAYERS)
def test_output_and_corrected_gradients(make):
    """Those of W_IE, W_EI and alpha are 1/sqrt(n_E), 1/d and 1/(d sqrt(n_E)) of the plain ones, all others the same."""
    layer = trained(make)
    x, n_e, d = input_of(layer).requires_grad_(), layer.n_e, layer.weight_ee[0].numel()
    assert layer.fan_in == d
    leaves = {"x": x, **dict(layer.named_parameters())}
    ours, plain = layer(x), as_written(layer, x)
    assert_agree(ours, plain, 1e-12)
    corrected, gradient = gradients(ours, leaves), gradients(plain, leaves)
    factors = {"weight_ie": 1 / sqrt(n_e), "weight_ei": 1 / d, "alpha": 1 / (d * sqrt(n_e))}
    assert set(leaves) == {"x", "weight_ee", "weight_ie", "weight_ei", "alpha", "gain_e", "bias"}
    for name in leaves:
        assert_agree(corrected[name], factors.get(name, 1) * gradient[name], 1e-10)
        assert gradient[name].any()


def test_the_scale_of_the_weights_cancels():
    """Only their ratio matters: z stays under (W_EE, W_IE) -> c (W_EE, W_IE)."""
    torch.manual_seed(0)
    layer = LAYERS[0]().double()
    x = input_of(layer)
    before = layer(x)
    with torch.no_grad():
        layer.weight_ee.mul_(7)
        layer.weight_ie.mul_(7)
    assert_agree(layer(x), before, 1e-6)


@pytest.mark.parametrize("make", LAYERS)
def test_a_silent_input_gives_the_bias_and_finite_gradients(make):
    layer = trained(make)
    x = torch.zeros_like(input_of(layer)).requires_grad_()
    z = layer(x)
    assert_agree(z, EF.per_neuron(layer.bias, z).expand_as(z), 0)
    z.sum().backward()
    assert all(p.grad.isfinite().all() for p in (x, *layer.parameters()))


# ---------------------------------------------------------------------------------------------- initialisation


def test_the_constants_are_those_of_e_i_init_for_rectified_normal_inputs():
    statistics = InputStatistics(1 / sqrt(2 * pi), 0.5, 0.5 - 1 / (2 * pi))  # of ReLU(N(0, 1))
    for d in (27, 576):
        layer = DANNLinear(d, 8)
        assert layer.alpha.detach().exp().tolist() == pytest.approx([inhibitory_gain(statistics, d)] * 2, rel=1e-5)
        layer = DANNLinear(d, 4000 // 9)
        unit = weight_scale(statistics, d) / sqrt(statistics.variance)  # E-I Init keeps std(x), DANN makes it 1
        for weight in (layer.weight_ee, layer.weight_ie):
            assert weight.min() >= 0
            assert weight.mean().item() == pytest.approx(unit, rel=0.05)
            assert weight.std().item() == pytest.approx(unit, rel=0.05)
        assert (layer.weight_ei == 1 / layer.n_i).all()
        assert (layer.gain_e == 1).all()
        assert not layer.bias.any()


def test_inhibition_starts_as_the_mean_and_the_deviation_of_excitation():
    """Over units and inputs: E[I_EE - I_sub] = 0 and E[gamma] = std(I_EE) = 1."""
    torch.manual_seed(0)
    layer = DANNLinear(200, 400, neuron=None).double()
    x = rectified(1, 500, 200)
    i_ee, h_i = x @ layer.weight_ee.T, x @ layer.weight_ie.T
    gamma = (h_i * layer.alpha.exp()) @ layer.weight_ei.T
    assert i_ee.std().item() == pytest.approx(1, rel=0.05)
    assert gamma.mean().item() == pytest.approx(1, rel=0.05)
    assert (i_ee - h_i @ layer.weight_ei.T).mean().item() == pytest.approx(0, abs=0.1)
    assert i_ee.mean().item() > 5  # what is balanced is large


def test_the_layer_starts_as_layer_normalization():
    """Up to the factor between the deviation over units and inputs and that over units alone, sqrt(pi / (2 pi - 1))."""
    torch.manual_seed(0)
    layer = DANNLinear(400, 2000, ei_ratio=1, neuron=None).double()
    x = rectified(1, 20, 400)
    normalized = F.layer_norm(x @ layer.weight_ee.T, (2000,))
    assert (layer(x) - sqrt(pi / (2 * pi - 1)) * normalized).abs().mean() < 0.1
    with torch.no_grad():
        layer.weight_ie.copy_(layer.weight_ee)  # I units that hear what E units hear: centred exactly
    z = layer(x)
    assert_agree(z.mean(-1), torch.zeros_like(z[..., 0]), 1e-5, scale=1)
    assert_agree(z / z.std(-1, correction=0, keepdim=True), normalized, 1e-4)


def test_the_single_i_unit_of_the_readout_centres_its_logits():
    torch.manual_seed(0)
    layer = DANNReadout(30, 10).double()
    logits = layer(rectified(1, 5, 30))
    assert layer.n_i == 1
    assert_agree(logits.sum(-1), torch.zeros(1, 5), 1e-6, scale=1)
    assert logits.std() > 0.3


def test_the_constructor_fills_the_weights():
    layers = []
    for _ in range(2):
        torch.manual_seed(3)
        layers.append(DANNConv2d(3, 8, 3))
    assert all(torch.equal(a, b) for a, b in zip(layers[0].parameters(), layers[1].parameters(), strict=True))
    layers[0].reset_parameters(rng(5))
    assert not torch.equal(layers[0].weight_ee, layers[1].weight_ee)
    layers[1].reset_parameters(rng(5))
    assert torch.equal(layers[0].weight_ee, layers[1].weight_ee)
    model = eisnn.create_model("vgg8", circuit="dann", width=1 / 16)
    before = [p.clone() for p in model.parameters()]
    assert eisnn.ei_init_(model, torch.rand(4, 3, 32, 32)) == {}  # nothing is left to do
    assert all(torch.equal(p, q) for p, q in zip(before, model.parameters(), strict=True))


# ---------------------------------------------------------------------------------------------- Dale's law


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_dales_law_under_sgd(momentum):
    torch.manual_seed(0)
    model = eisnn.create_model("convnet3", circuit="dann", width=0.25, time_steps=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=momentum)
    handle = eisnn.enforce_dale(optimizer, model)
    images, labels = torch.rand(16, 3, 32, 32, generator=rng(0)), torch.arange(16) % 10

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    for _ in range(5):
        step()
        assert eisnn.dale_violations(model) == {}
    named = dict(model.named_parameters())
    bound = {name for name, p in named.items() if (p.detach() == 0).any()}
    assert bound  # the constraint was felt
    assert {name.rsplit(".", 1)[-1] for name in bound} <= {"weight_ee", "weight_ie", "weight_ei", "gain_e"}
    assert any((p < 0).any() for name, p in named.items() if name.endswith(("alpha", "bias")))
    handle.remove()
    step()
    assert eisnn.dale_violations(model)  # and would be broken without it


def test_one_clamp_for_all_circuits():
    model = eisnn.create_model("convnet3", circuit="dann", width=1 / 16)
    names = {name.rsplit(".", 1)[-1] for name, _ in eisnn.nn.constrained_parameters(model)}
    assert names == {"weight_ee", "weight_ie", "weight_ei", "gain_e"}


@pytest.mark.parametrize("value", [-1e-3, float("nan")])
@pytest.mark.parametrize("name", ["weight_ei", "gain_e"])
def test_loading_negative_weights_is_an_error(name, value):
    torch.manual_seed(0)
    layer, other = DANNLinear(5, 4), DANNLinear(5, 4)
    state = {key: v.clone() for key, v in other.state_dict().items()}
    state[name].view(-1)[1] = value
    before = layer.weight_ee.clone()
    with pytest.raises(RuntimeError, match=f"{name} violates Dale's law: 1 negative or NaN entries"):
        layer.load_state_dict(state)
    assert torch.equal(layer.weight_ee, before)
    layer.load_state_dict(other.state_dict() | {"bias": -torch.ones(4), "alpha": -torch.ones(1)})
    assert torch.equal(layer.weight_ee, other.weight_ee)


# ---------------------------------------------------------------------------------------------- as a layer


@pytest.mark.parametrize("name", ["vgg8", "vgg11", "vgg16", "vgg19"])
def test_the_networks_of_the_comparison(name):
    torch.manual_seed(0)
    model = eisnn.create_model(name, circuit="dann", width=1 / 8)
    images = torch.rand(4, 3, 32, 32, generator=rng(0))
    seen = []
    for layer in model.layers:
        assert layer.n_i == max(1, layer.n_e // 4)
        layer.register_forward_hook(lambda m, a, out: seen.append(out))
    logits = model(images)
    assert logits.shape == (4, 10)
    assert all(out.shape[0] == 1 for out in seen)  # no step is computed twice
    assert all(out.std() > 0.05 for out in seen)  # activity reaches the last layer
    assert_agree(model(images.expand(4, *images.shape)), logits, 1e-5)


def test_the_ratio_and_the_unit_can_be_chosen():
    model = eisnn.create_model("vgg8", circuit="dann", ei_ratio=8)
    assert [layer.n_i for layer in model.layers] == [8, 16, 32, 64, 64]
    assert isinstance(model.layers[0].neuron, nn.ReLU)
    spiking = eisnn.create_model("convnet3", circuit="dann", width=1 / 4, neuron=eisnn.LIF())
    out, state = spiking.layers[0](torch.rand(1, 2, 3, 8, 8), 4, return_state=True)
    assert out.shape[0] == 4
    assert set(out.unique().tolist()) <= {0.0, 1.0}
    assert state.shape == out.shape[1:]


def test_what_does_not_fit_is_named():
    layer = DANNLinear(5, 4)
    with pytest.raises(TypeError, match="the neuron ReLU keeps no state"):
        layer(torch.rand(2, 3, 5), return_state=True)
    with pytest.raises(ValueError, match="a layer with neuron=None keeps no state"):
        DANNReadout(5, 4)(torch.rand(2, 3, 5), state=torch.zeros(3, 4))
    with pytest.raises(ValueError, match="DANNLinear has 5 inputs, got 6"):
        layer(torch.rand(2, 3, 6))
    with pytest.raises(ValueError, match="DANNConv2d: ei_ratio must be an int >= 1, got 0"):
        DANNConv2d(3, 4, 3, ei_ratio=0)
    with pytest.raises(ValueError, match="DANNConv2d: in_channels must be an int >= 1, got 0"):
        DANNConv2d(0, 4, 3)
    with pytest.raises(TypeError, match="the circuit 'dann' does not take options; its options: ei_ratio"):
        eisnn.create_model("vgg8", circuit="dann", circuit_options=eisnn.nn.PLUS)


def test_folding_keeps_the_output():
    torch.manual_seed(0)
    model = eisnn.create_model("convnet3", circuit="dann", width=1 / 4)
    folded, x = eisnn.fold(model), torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        assert_agree(folded(x), model(x), 1e-6)
    assert list(folded.parameters()) == []
    assert sum(isinstance(m, FoldedDANN) for m in folded.modules()) == 4
    with pytest.raises(RuntimeError, match="an E-I network must be >= 0 and finite"):
        folded(-x)


def test_autocast_is_close_to_float32():
    torch.manual_seed(0)
    layer, x = DANNConv2d(16, 32, 3, padding=1, neuron=None), torch.randn(1, 4, 16, 8, 8).relu()
    exact = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        low = layer(x)
    assert low.isfinite().all()
    assert (low.float() - exact).abs().mean() < 0.02
    assert exp(layer.alpha[0].item()) == pytest.approx(sqrt((2 * pi - 1) / 144), rel=1e-5)
