"""The normalizations for spiking networks: the property that defines each, time, state, folding."""

import copy

import pytest
import torch
from circuits import assert_agree, rng
from torch import Tensor, nn

import eisnn
from eisnn.methods import make_layers
from eisnn.methods.bn import BNConv2d
from eisnn.methods.bntt import BNTT
from eisnn.methods.neunorm import NeuNorm
from eisnn.methods.normalization import NormalizedLayer
from eisnn.methods.tab import TAB
from eisnn.methods.tdbn import TDBN
from eisnn.methods.tebn import TEBN
from eisnn.nn.projection import ProjectionLayer

T, B, C = 4, 5, 3
TIMED = {"bntt": BNTT, "tebn": TEBN, "tab": TAB}


def currents(steps: int = T, spatial: bool = True, seed: int = 0) -> Tensor:
    """Random currents whose mean and scale differ by channel and drift over time."""
    shape = (steps, B, C, 4, 3) if spatial else (steps, B, C)
    x = torch.randn(shape, generator=rng(seed), dtype=torch.float64)
    ends = (1,) * (len(shape) - 3)
    time, channel = torch.arange(1.0, steps + 1).view(-1, 1, 1, *ends), torch.arange(1.0, C + 1).view(1, 1, -1, *ends)
    return x * time * channel + 2 * time - channel


def make(kind: type, **options) -> nn.Module:
    """A normalization of `C` channels whose parameters are not those of the start."""
    norm = (kind(C, **options) if kind in (TDBN, NeuNorm) else kind(C, T, **options)).double()
    generator = rng(0)
    with torch.no_grad():
        for p in norm.parameters():
            p.copy_(0.5 + torch.rand(p.shape, generator=generator, dtype=torch.float64))
    return norm


def moments(x: Tensor, steps: slice) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance of each channel over the batch, positions and these steps."""
    flat = x[steps].movedim(2, 0).flatten(1)
    return flat.mean(1), flat.var(1, correction=0)


def standard(x: Tensor, t: int, steps: slice, eps: float = 1e-5) -> Tensor:
    mean, var = moments(x, steps)
    ends = (-1, *(1,) * (x.ndim - 3))
    return (x[t] - mean.view(ends)) / (var.view(ends) + eps).sqrt()


def by_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.view(-1, *(1,) * (x.ndim - 3))


# ---------------------------------------------------------------------------------------------- what defines each


@pytest.mark.parametrize("spatial", [True, False])
def test_tdbn_shares_statistics_over_time_and_scales_to_the_threshold(spatial):
    x, norm = currents(spatial=spatial), TDBN(C, threshold=0.7, alpha=0.5).double()
    y = norm(x)
    mean, var = moments(y, slice(None))
    assert_agree(mean, torch.zeros(C), 1e-12, scale=1)
    assert_agree(var.sqrt(), torch.full((C,), 0.35), 1e-5)
    norm = make(TDBN, threshold=0.7, alpha=0.5)
    expected = [
        0.7 * 0.5 * by_channel(norm.weight, x) * standard(x, t, slice(None)) + by_channel(norm.bias, x)
        for t in range(T)
    ]
    assert_agree(norm(x), torch.stack(expected), 1e-12)


def test_tdbn_at_threshold_one_is_batch_norm_of_the_merged_axis():
    x, norm, bn = currents(), make(TDBN), nn.BatchNorm2d(C).double()
    with torch.no_grad():
        bn.weight.copy_(norm.weight)
        bn.bias.copy_(norm.bias)
    for _ in range(2):
        assert_agree(norm(x), bn(x.flatten(0, 1)).unflatten(0, x.shape[:2]), 1e-12)
        norm.eval(), bn.eval()


@pytest.mark.parametrize("spatial", [True, False])
def test_bntt_keeps_every_step_to_itself_and_has_no_shift(spatial):
    x, norm = currents(spatial=spatial), make(BNTT)
    expected = [by_channel(norm.steps[t].weight, x) * standard(x, t, slice(t, t + 1), 1e-4) for t in range(T)]
    assert_agree(norm(x), torch.stack(expected), 1e-12)
    assert {name.rsplit(".", 1)[-1] for name, _ in norm.named_parameters()} == {"weight"}
    changed = x.clone()
    changed[2] *= 3
    assert torch.equal(norm(changed)[[0, 1, 3]], norm(x)[[0, 1, 3]])
    means = torch.stack([step.running_mean for step in make_and_run(BNTT, x).steps])
    assert_agree(means, 0.1 * torch.stack([moments(x, slice(t, t + 1))[0] for t in range(T)]), 1e-12)


@pytest.mark.parametrize("spatial", [True, False])
def test_tebn_weighs_the_steps_of_one_batch_norm(spatial):
    x, norm = currents(spatial=spatial), make(TEBN)
    y = norm(x)
    for t in range(T):
        shared = by_channel(norm.norm.weight, x) * standard(x, t, slice(None)) + by_channel(norm.norm.bias, x)
        assert_agree(y[t], norm.p[t] * shared, 1e-12)
    assert sum(p.numel() for p in norm.parameters()) == 2 * C + T


@pytest.mark.parametrize("spatial", [True, False])
def test_tab_accumulates_the_statistics_of_the_past(spatial):
    x, norm = currents(spatial=spatial), make(TAB)
    y = norm(x)
    for t in range(T):
        own = by_channel(norm.weight[t], x) * standard(x, t, slice(0, t + 1)) + by_channel(norm.bias[t], x)
        assert_agree(y[t], norm.p[t] ** 2 * own, 1e-12)
    changed = x.clone()
    changed[2:] *= 3  # the future changes nothing
    assert torch.equal(norm(changed)[:2], y[:2])
    assert not torch.allclose(norm(changed)[2], y[2])


def make_and_run(kind: type, x: Tensor) -> nn.Module:
    norm = make(kind)
    norm(x)
    return norm


def test_tab_has_the_running_statistics_and_gradients_of_torch():
    """Of batch norms of x[1..t], one for each t."""
    x, norm = currents(), make(TAB)
    torchs = [nn.BatchNorm2d(C).double() for _ in range(T)]
    leaves = [x.clone().requires_grad_() for _ in range(2)]
    with torch.no_grad():
        for t, bn in enumerate(torchs):
            bn.weight.copy_(norm.weight[t])
            bn.bias.copy_(norm.bias[t])
    ours = norm(leaves[0])
    theirs = torch.stack([norm.p[t] ** 2 * bn(leaves[1][: t + 1].flatten(0, 1))[-B:] for t, bn in enumerate(torchs)])
    assert_agree(ours, theirs, 1e-12)
    upstream = torch.randn(ours.shape, generator=rng(3), dtype=torch.float64)
    assert_agree(
        *(torch.autograd.grad(y, leaf, upstream)[0] for y, leaf in zip((ours, theirs), leaves, strict=True)), 1e-10
    )
    assert_agree(norm.running_mean, torch.stack([bn.running_mean for bn in torchs]), 1e-12)
    assert_agree(norm.running_var, torch.stack([bn.running_var for bn in torchs]), 1e-12)


def test_neunorm_inhibits_by_the_recent_activity_of_all_channels():
    spikes = (currents() > 0).double()
    norm = make(NeuNorm, decay=0.6)
    a, expected = torch.zeros(B, 1, 4, 3, dtype=torch.float64), []
    for o in spikes:
        a = 0.6 * a + (1 - 0.6) / C**2 * o.sum(1, keepdim=True)
        expected.append(o - by_channel(norm.u, spikes) * a)
    assert_agree(norm(spikes), torch.stack(expected), 1e-12)
    a = norm(torch.ones(1, B, C, 4, 3).double(), 200, return_state=True)[1]
    assert_agree(a, torch.full_like(a, 1 / C), 1e-12)  # k + v F = 1: at most 1/F


# ---------------------------------------------------------------------------------------------- time and state


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", [TDBN, BNTT, TEBN, TAB, NeuNorm])
def test_a_static_input_equals_its_repetition(kind, training):
    x = currents(1)
    norm = make_and_run(kind, currents()).train(training)
    once, repeated = (copy.deepcopy(norm) for _ in range(2))
    y = once(x, T).expand(T, *x.shape[1:])
    assert_agree(y, repeated(x.expand(T, *x.shape[1:])), 1e-12)
    if kind in (BNTT, TEBN):  # parameters of each step
        assert not torch.allclose(y[0], y[1])
    for (name, ours), theirs in zip(once.named_buffers(), repeated.buffers(), strict=True):
        # TDBN and TEBN see a static input once, so that n/(n - 1) of the running variance has the smaller n.
        assert_agree(ours, theirs, 0.02 if kind in (TDBN, TEBN) and name.endswith("var") else 1e-12)


@pytest.mark.parametrize("kind", [TDBN, BNTT, TEBN, TAB, NeuNorm])
def test_the_time_index_continues(kind):
    x, norm = currents(), make_and_run(kind, currents(seed=1)).eval()
    first, state = norm(x[:1], return_state=True)
    second, state = norm(x[1:3], state=state, return_state=True)
    third = norm(x[3:], state=state)
    assert torch.equal(torch.cat([first, second, third]), norm(x))


@pytest.mark.parametrize("name", TIMED)
def test_the_time_index_of_a_layer_continues_beside_the_membrane(name):
    torch.manual_seed(0)
    layer = NormalizedLayer(nn.Conv2d(2, C, 3, padding=1, bias=False), TIMED[name](C, T), eisnn.LIF())
    x = torch.rand(T, B, 2, 6, 6)
    layer(x)
    layer.eval()
    whole, end = layer(x, return_state=True)
    first, state = layer(x[:3], return_state=True)
    second, last = layer(x[3:], state=state, return_state=True)
    assert torch.equal(torch.cat([first, second]), whole)
    assert last[0] == end[0] == T
    assert_agree(last[1], end[1], 1e-6)
    with pytest.raises(ValueError, match=rf"{name.upper()} has parameters for 4 time steps and cannot go beyond"):
        layer(x[3:], state=last)
    with pytest.raises(ValueError, match=rf"state of its {name.upper()}, state of its neurons\), got Tensor"):
        layer(x[3:], state=last[1])


def test_tab_trains_on_whole_sequences_only():
    norm = make(TAB)
    _, state = norm(currents(2), return_state=True)
    with pytest.raises(ValueError, match=r"this one starts at step 2: train on whole sequences, or call eval\(\)"):
        norm(currents(2), state=state)


@pytest.mark.parametrize("kind", [BNTT, TEBN, TAB])
def test_wrong_sequences_and_states_are_named(kind):
    norm = make(kind).eval()
    with pytest.raises(ValueError, match=rf"{kind.__name__} takes \[T, B, 3, \.\.\.\], got shape \[4, 5, 2\]"):
        norm(torch.zeros(4, 5, 2))
    with pytest.raises(ValueError, match="time_steps must be an int >= 1, got 0"):
        kind(C, 0)
    with pytest.raises(ValueError, match=r"the index of the next step, an int >= 0, got -1"):
        norm(currents(1), state=-1)
    with pytest.raises(ValueError, match="steps 0 to 4"):
        norm(currents(5))


@pytest.mark.parametrize("kind", [TDBN, BNTT, TEBN, TAB])
def test_a_single_value_cannot_be_normalized(kind):
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        make(kind)(torch.zeros(1, 1, C).double())


def test_options_out_of_range_are_named():
    with pytest.raises(ValueError, match=r"threshold and alpha must be > 0, got 0 and 1\.0"):
        TDBN(C, threshold=0)
    with pytest.raises(ValueError, match=r"decay must lie in \[0, 1\), got 1"):
        NeuNorm(C, decay=1)
    with pytest.raises(ValueError, match="BNTT has parameters for each time step: give time_steps"):
        make_layers("bntt", eisnn.LIF())
    with pytest.raises(ValueError, match=r"auxiliary potential, here of shape \[5, 1, 4, 3\], got int"):
        make(NeuNorm)(currents(), state=3)


# ---------------------------------------------------------------------------------------------- layers, folding


def test_tdbn_takes_the_threshold_of_its_neuron():
    model = eisnn.create_model("convnet3", circuit="tdbn", width=1 / 16, neuron=eisnn.LIF(theta=0.5))
    assert [layer.norm.scale for layer in model.layers] == [0.5] * 3


@pytest.mark.parametrize(
    ("circuit", "merged"), [("tdbn", True), *[(name, False) for name in TIMED], ("neunorm", False)]
)
def test_folding_merges_what_is_one_affine_map(circuit, merged):
    torch.manual_seed(0)
    net = eisnn.create_model("convnet3", time_steps=3, width=0.25, circuit=circuit, neuron=eisnn.LIF(theta=0.8))
    for _ in range(5):
        net(torch.rand(6, 3, 32, 32))
    net = net.double().eval()
    folded = eisnn.fold(net)
    assert any(type(m) is ProjectionLayer for m in folded.modules()) == merged
    assert not any(p.requires_grad for m in folded.modules() if isinstance(m, ProjectionLayer) for p in m.parameters())
    assert all(p.requires_grad for p in net.parameters())
    for name, layer in net.named_modules():
        if isinstance(layer, ProjectionLayer):
            x = torch.rand(1, 2, layer.projection.in_channels, 8, 8, dtype=torch.float64)
            layer.neuron = folded.get_submodule(name).neuron = None  # compare currents: no spike flips by rounding
            with torch.no_grad():
                assert_agree(folded.get_submodule(name)(x, 3), layer(x, 3), 1e-10)


def test_a_bias_of_the_projection_is_merged_too():
    torch.manual_seed(0)
    layer = NormalizedLayer(nn.Conv2d(2, C, 3), TDBN(C), None).double().eval()
    with torch.no_grad():
        layer.norm.standardize.running_mean.uniform_()
    x = torch.rand(2, 3, 2, 5, 5, dtype=torch.float64)
    assert_agree(eisnn.fold(layer)(x), layer(x), 1e-12)


def test_norm_layers_check_like_their_kin():
    layers = make_layers("tdbn", eisnn.LIF())
    with pytest.raises(ValueError, match="conv: kernel_size must be an int >= 1"):
        layers.conv(3, 4, 0)
    with pytest.raises(ValueError, match="linear: in_features must be an int >= 1, got 0"):
        layers.linear(0, 4)
    x = torch.rand(2, 3, 3, 8, 8)
    torch.manual_seed(0)
    ours = layers.conv(3, 4, 3, padding=1)
    torch.manual_seed(0)
    assert_agree(ours(x), BNConv2d(3, 4, 3, padding=1)(x), 0)
    with pytest.raises(ValueError, match="NormalizedLayer has 3 inputs, got 2"):
        ours(x[:, :, :2])
