"""Each ablation leaves out what it names, and nothing else."""

from math import log, pi, sqrt
from typing import Any

import pytest
import torch
from circuits import assert_agree, rng, spikes
from torch import Tensor, nn

import eisnn
import eisnn.functional as EF
from eisnn import ops
from eisnn.analysis import record
from eisnn.methods import ABLATIONS, Ablation
from eisnn.methods.ablations import AblatedConv2d, AblatedLinear, AblatedReadout
from eisnn.nn import PLUS, EILayer

NAMES = pytest.mark.parametrize("name", ABLATIONS)


def network(ablation: str | None = None, **changes: Any) -> nn.Module:
    model = eisnn.create_model("convnet3", width=0.25, time_steps=3, ablation=ablation, **changes)
    return model.double()


def images(seed: int = 0) -> Tensor:
    x = torch.rand(4, 3, 16, 16, generator=rng(seed), dtype=torch.float64)
    x[0, :, :6] = 0  # silent patches
    return x


def initialized(ablation: str | None, **changes: Any) -> nn.Module:
    model = network(ablation, **changes)
    eisnn.ei_init_(model, images(), generator=rng(1))
    return model


def layer(x: Tensor, **missing: Any) -> AblatedLinear:
    made = AblatedLinear(x.shape[-1], 8, neuron=None, ablation=Ablation(**missing)).double()
    eisnn.ei_init_(made, x, generator=rng(2))
    return made


def whole(x: Tensor) -> eisnn.EILinear:
    made = eisnn.EILinear(x.shape[-1], 8, neuron=None).double()
    eisnn.ei_init_(made, x, generator=rng(2))
    return made


def gradients(module: nn.Module, x: Tensor) -> dict[str, Tensor]:
    x = x.clone().requires_grad_()
    out = module(x)
    names, leaves = zip(*module.named_parameters(), strict=True)
    upstream = torch.randn(out.shape, generator=rng(5), dtype=torch.float64)
    return dict(
        zip(["x", *names], torch.autograd.grad(out, [x, *leaves], upstream, materialize_grads=True), strict=True)
    )


@pytest.mark.parametrize("kinds", [(AblatedConv2d, eisnn.EIConv2d), (AblatedLinear, eisnn.EILinear),
                                   (AblatedReadout, eisnn.EIReadout)])  # fmt: skip
def test_with_nothing_ablated_it_is_the_paper_s_circuit(kinds):
    theirs_kind = kinds[1]
    arguments = (3, 8, 3) if theirs_kind is eisnn.EIConv2d else (30, 8)
    x = spikes((3, 4, 3, 9, 9) if theirs_kind is eisnn.EIConv2d else (3, 4, 30), rate=0.05)
    ours, theirs = kinds[0](*arguments, ablation=Ablation()).double(), theirs_kind(*arguments).double()
    for module in (ours, theirs):
        eisnn.ei_init_(module, x, generator=rng(3))
    theirs.load_state_dict(ours.state_dict())
    assert_agree(ours(x), theirs(x), 1e-13)
    expected = gradients(theirs, x)
    for name, grad in gradients(ours, x).items():
        assert_agree(grad, expected[name], 1e-12, scale=1e-3)


@NAMES
def test_every_ablation_trains_keeps_its_law_and_has_no_numbers_that_are_not_finite(name):
    model = initialized(name)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    eisnn.enforce_dale(optimizer, model)
    before = {k: p.detach().clone() for k, p in model.named_parameters()}
    logits = model(images())
    nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    optimizer.step()
    assert logits.shape == (4, 10)
    assert logits.isfinite().all()
    assert eisnn.dale_violations(model) == {}
    # of the readout's W_IE the first gradient is 0: its I neurons are alike, and the logits' gradients sum to 0
    moved = [not torch.equal(p, before[k]) for k, p in model.named_parameters() if k != "readout.weight_ie"
             if k.endswith(("weight_ee", "weight_ie"))]  # fmt: skip
    assert all(moved)
    unused = "gain_i" if name == "subtractive-only" else "none"
    for k, p in model.named_parameters():
        assert k.endswith(unused) if p.grad is None else p.grad.isfinite().all(), k
    again = network(name)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(images()), model(images()))


@NAMES
def test_what_reads_the_weights_alone_refuses_an_ablated_network(name):
    model = initialized(name)
    with pytest.raises(ValueError, match="an ablated circuit cannot be folded"):
        eisnn.fold(model)
    layer = next(m for m in model.modules() if isinstance(m, EILayer))
    assert layer.synapses() is None


@NAMES
def test_the_recorder_shows_the_current_that_an_ablated_network_integrates(name):
    model = initialized(name)
    expected = model(images())
    with record(model, what="I_E") as seen:
        assert torch.equal(model(images()), expected)
    first = next(m for m in model.modules() if isinstance(m, EILayer))
    assert torch.equal(seen[next(iter(seen))]["I_E"], first.integrated(images()[None]).detach())


def test_kaiming_weights():
    """Moments of N(0, 2/d) and of its positive part: mean sqrt(1/(pi d)), second moment 1/d."""
    x = spikes((4, 16, 400))
    free, clamped = (layer(x, kaiming=True, signed=s).weight_ee.detach() for s in (False, True))
    n = free.numel()
    assert abs(float(free.mean())) < 4 * sqrt(2 / 400 / n)
    assert abs(400 * float(free.square().mean()) - 2) < 4 * 2 * sqrt(2 / n)
    assert torch.equal(clamped, free.clamp(min=0))
    assert abs(sqrt(pi * 400) * float(clamped.mean()) - 1) < 0.1
    assert abs(400 * float(clamped.square().mean()) - 1) < 0.15
    expected = whole(x)
    for name in ("weight_ei", "gain_i", "gain_e", "bias"):
        assert torch.equal(getattr(layer(x, kaiming=True), name), getattr(expected, name))


def test_without_the_sign_constraint_nothing_is_clamped_and_the_i_neurons_rectify():
    model = initialized("no-sign-constraint")
    assert list(eisnn.nn.constrained_parameters(model)) == []
    assert min(float(p.detach().min()) for k, p in model.named_parameters() if "weight_ie" in k) < 0
    x = spikes((2, 6, 30))
    free = layer(x, kaiming=True, signed=False)
    i_ie = x @ free.weight_ie.T
    assert bool((i_ie < 0).any())
    assert_agree(free.currents_as_written(x).i_sub, i_ie.clamp(min=0) @ free.weight_ei.T, 1e-13)
    state = free.state_dict()
    free.load_state_dict(state)
    with pytest.raises(RuntimeError, match="violates Dale's law"):
        whole(x).load_state_dict(state)


@pytest.mark.parametrize("epsilon", [1e-8, 1e-2, 10.0])
def test_a_fixed_epsilon_is_added_to_the_divisor(epsilon):
    x = spikes((3, 5, 30), rate=0.1)
    x[0, 0] = 0
    ours = layer(x, epsilon=epsilon)
    i_ee, i_sub, i_div = EF.ei_currents(x, ours.weight_ee, ours.weight_ie, ours.weight_ei, ours.gain_i, ops.Dense())
    assert bool((i_div == 0).any())
    assert_agree(ours(x), (i_ee - i_sub) / (i_div + epsilon), 1e-13)


def test_the_gradient_at_silent_sites_grows_as_one_over_epsilon():
    """(M5), why a fixed epsilon fails. Where nothing arrives, dx = g_E delta W / epsilon."""
    x = torch.zeros(1, 2, 30, dtype=torch.float64)
    x[0, 1] = 1
    sizes = []
    for epsilon in (1e-3, 1e-6):
        ours = layer(spikes((3, 5, 30)), epsilon=epsilon)
        sizes.append(float(gradients(ours, x)["x"][0, 0].abs().max()))
    assert log(sizes[1] / sizes[0]) == pytest.approx(log(1e3), rel=1e-6)


def test_without_straight_through_replaced_sites_add_to_the_smallest_current():
    """Autograd of `min`: the divisor's gradient flows where the minimum is, by finite differences too."""
    i_div = torch.tensor([[[0.5, 0.0, 0.2, 0.0]]], dtype=torch.float64, requires_grad=True)
    upstream = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]], dtype=torch.float64)
    ours = layer(spikes((3, 5, 30)), straight_through=False)
    divisor = ours._divisor(i_div)
    assert_agree(divisor, torch.tensor([[[0.5, 0.2, 0.2, 0.2]]], dtype=torch.float64), 1e-15)
    (grad,) = torch.autograd.grad(divisor, i_div, upstream)
    assert_agree(grad, torch.tensor([[[1.0, 0.0, 9.0, 0.0]]], dtype=torch.float64), 1e-15)
    (grad,) = torch.autograd.grad(layer(spikes((3, 5, 30)))._divisor(i_div), i_div, upstream)
    assert_agree(grad, upstream, 1e-15)


@pytest.mark.parametrize(
    ("name", "times_d"),
    [
        ("no-gradient-scaling", lambda d: d),
        ("gradient-scaling-0.1", lambda d: 0.1),
        ("gradient-scaling-10", lambda d: 10.0),
        ("gradient-scaling-sqrt", lambda d: sqrt(d)),
    ],
)
def test_gradient_scaling_multiplies_the_gradient_of_weight_ei_alone(name, times_d):
    ours, theirs = initialized(name), initialized(None)
    for model in (ours, theirs):
        nn.functional.cross_entropy(model(images()), torch.arange(4)).backward()
    fan_ins = {n: m.fan_in for n, m in theirs.named_modules() if isinstance(m, eisnn.nn.EICircuit)}
    for (parameter, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        circuit, _, kind = parameter.rpartition(".")
        assert_agree(p.grad, q.grad * (times_d(fan_ins[circuit]) if kind == "weight_ei" else 1), 1e-9, scale=1e-6)


def test_with_one_kind_of_inhibition_the_other_is_the_constant_it_is_on_average():
    x = spikes((4, 400, 60), rate=0.3)
    subtractive, divisive, both = layer(x, inhibition="subtractive"), layer(x, inhibition="divisive"), whole(x)
    i_ee, i_sub, i_div = EF.currents_of(x, both.synapses(), ops.Dense())
    mean_div, mean_sub = float(i_div.detach().mean()), float(i_sub.detach().mean())
    assert_agree(subtractive(x), (i_ee - i_sub) * subtractive.gain_e, 1e-13)
    assert float(subtractive.gain_e.detach().mean()) == pytest.approx(1 / mean_div, rel=0.2)  # one draw of 120 weights
    assert_agree(divisive(x), i_ee / i_div + divisive.bias, 1e-13)
    assert float(divisive.bias.detach().mean()) == pytest.approx(-mean_sub / mean_div, rel=1e-2)


@pytest.mark.parametrize("theta", [1.0, 0.1])
def test_floor_counts_whole_spikes_and_passes_the_gradient(theta):
    x = 4 * torch.rand(2, 5, 30, generator=rng(0), dtype=torch.float64)
    ours = layer(x, theta_i=theta)
    counts = ours._inhibitory(x)
    assert_agree(counts, theta * (x @ ours.weight_ie.T / theta).floor(), 1e-13)
    assert float(counts.detach().max()) >= theta
    through = torch.autograd.grad(counts.sum(), ours.weight_ie)[0]
    assert_agree(through, x.sum((0, 1)).expand_as(through), 1e-13)


def test_wrong_names_and_combinations():
    with pytest.raises(ValueError, match="unknown ablation 'epsilon'; known: kaiming-clamped, "):
        network("epsilon")
    with pytest.raises(ValueError, match="without other options"):
        network("floor", circuit_options=PLUS)
    with pytest.raises(TypeError, match="'bn' does not take ablation"):
        network("floor", circuit="bn")
