"""Cortical layers: the paper's circuit as a limit, the contract of a layer, gradients, and what is refused."""

import copy
import re
from dataclasses import replace

import pytest
import torch
from circuits import assert_agree, rng, spikes

import eisnn
from eisnn.analysis import record
from eisnn.bench import saved_bytes
from eisnn.cortex import LIMIT, CorticalConv2d, CorticalLinear, CorticalOptions
from eisnn.functional import cortex as FC
from eisnn.ops.cortex.torch import CIRCUITS

T, B = 6, 3
PAIRS = {"weight_ee": "weight_ee", "weight_pe": "weight_ie", "weight_ep": "weight_ei", "gain_p": "gain_i"}
PAIRS |= {"gain_e": "gain_e", "bias": "bias"}
FULL = CorticalOptions(
    dt=5.0, tau_ampa=3.0, tau_gaba=4.0, delay=10.0, recurrence=0.05, sst=0.1, vip=0.2, sst_pv=0.01, pv_pv=0.5,
    recurrent_size=3, surround_size=5,
)  # fmt: skip


def inputs(conv: bool, steps: int = T, batch: int = B, seed: int = 0) -> torch.Tensor:
    return spikes((steps, batch, 6, 5, 5) if conv else (steps, batch, 30), seed=seed)


def layer(conv: bool, options: CorticalOptions = FULL, **more):
    made = (
        CorticalConv2d(6, 8, 3, padding=1, options=options, **more)
        if conv
        else CorticalLinear(30, 16, **more, options=options)
    )
    made = made.double()
    eisnn.ei_init_(made, inputs(conv, 30, 4), generator=rng(0))
    return made


def without_shortcut(made):
    """The same layer, forced through the scan step by step."""
    other = copy.deepcopy(made)
    other.stimuli = {"PV": FC.Stimulus()}
    return other


@pytest.fixture(params=["compiled", "all steps at once", "stepwise"])
def way(request, monkeypatch):
    """How layers without feedback run."""
    if request.param != "compiled":
        monkeypatch.setitem(CIRCUITS.serves, "compiled", lambda *_: False)
    return request.param


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("conv", [False, True])
def test_the_papers_circuit_is_a_limit(conv, static, way):
    paper = eisnn.EIConv2d(6, 8, 3, padding=1) if conv else eisnn.EILinear(30, 16)
    x = inputs(conv)
    eisnn.ei_init_(paper.double(), x, generator=rng(1))
    ours = layer(conv, LIMIT)
    with torch.no_grad():
        for mine, theirs in PAIRS.items():
            getattr(ours, mine).copy_(getattr(paper, theirs))
    ours = without_shortcut(ours) if way == "stepwise" else ours
    x = x[:1] if static else x
    results = []
    for each in (paper, ours):
        given = x.clone().requires_grad_()
        out, state = each(given, time_steps=T, return_state=True)
        v = state if each is paper else state.v
        weights = torch.randn(out.shape, generator=rng(2), dtype=out.dtype)
        ((out * weights).sum() + v.sum()).backward()
        results.append((out, v, given.grad))
    for theirs, mine in zip(*results, strict=True):
        assert_agree(mine, theirs, 1e-9)
    assert results[0][0].any()
    for mine, theirs in PAIRS.items():
        assert_agree(getattr(ours, mine).grad, getattr(paper, theirs).grad, 1e-9)


@pytest.mark.parametrize("options", [{}, {"tau_ampa": 3.0}, {"tau_gaba": 4.0}, {"tau_pv": 0.0}])
@pytest.mark.parametrize("conv", [False, True])
def test_without_feedback_all_steps_at_once_are_the_steps_one_by_one(conv, options, way):
    made = layer(conv, CorticalOptions(recurrence=0.0, **options))
    x, results = inputs(conv), []
    with torch.no_grad():
        state = made(inputs(conv, seed=4), return_state=True)[1]
    for each in (made, without_shortcut(made)):
        each.zero_grad()
        out, end = each(x, state=state, return_state=True)
        out.mul(torch.randn(out.shape, generator=rng(2), dtype=out.dtype)).sum().backward()
        results.append([out, end.v, end.pv.u, end.pv.trace, end.feedforward, *(p.grad for p in each.parameters())])
    for one, other in zip(*results, strict=True):
        assert_agree(one, other, 1e-9)


@pytest.mark.parametrize("options", [FULL, CorticalOptions(recurrence=0.0)])
def test_the_unconstrained_twin_follows_the_equations_with_any_signs(options, way):
    made = layer(False, replace(options, dale=False))
    generator = rng(7)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if name not in made.dale_parameters:
                weight.mul_(torch.randint(0, 2, weight.shape, generator=generator) * 2 - 1)
    assert eisnn.dale_violations(made) == {}
    results = []
    for each in (made, without_shortcut(made)):
        each.zero_grad()
        out = each(inputs(False, 30))
        out.mul(torch.randn(out.shape, generator=rng(2), dtype=out.dtype)).sum().backward()
        results.append([out, *(p.grad for p in each.parameters())])
    assert results[0][0].any()
    for one, other in zip(*results, strict=True):
        assert_agree(one, other, 1e-9)


@pytest.mark.parametrize("options", [FULL, CorticalOptions(spiking=True)])
@pytest.mark.parametrize("conv", [False, True])
def test_two_calls_equal_one_of_twice_the_length(conv, options):
    made = layer(conv, options)
    x = inputs(conv, 2 * T)
    with torch.no_grad():
        whole, end = made(x, return_state=True)
        first, state = made(x[:T], return_state=True)
        second, last = made(x[T:], state=state, return_state=True)
        assert torch.equal(torch.cat([first, second]), whole)
        assert torch.equal(last.history, end.history)
        assert not torch.equal(made(x[T:]), second)
        assert torch.equal(made(inputs(conv)[:1], time_steps=T), made(inputs(conv)[:1].expand(T, *x.shape[1:])))


@pytest.mark.parametrize("conv", [False, True])
def test_every_parameter_gets_a_gradient_and_keeps_its_sign(conv):
    made = layer(conv)
    optimizer = torch.optim.SGD(made.parameters(), lr=10.0)
    eisnn.enforce_dale(optimizer, made)
    top_down = torch.full((1, 1, made.sizes["VIP"], *(1, 1) * conv), 1e-3, dtype=torch.float64)
    out = made(inputs(conv, 12), top_down=top_down)
    (out * torch.randn(out.shape, generator=rng(1), dtype=out.dtype)).sum().backward()
    assert [name for name, p in made.named_parameters() if p.grad is None or not p.grad.any()] == []
    optimizer.step()
    assert eisnn.dale_violations(made) == {}
    assert made.sigma.min() >= 0.03
    assert made.bias.min() < 0
    made(inputs(conv, 12))


@pytest.mark.parametrize("options", [{}, {"recurrence": 0.0, "sst": 0.0, "vip": 0.0, "sst_pv": 0.0, "pv_pv": 0.0}])
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("conv", [False, True])
def test_windows_of_time_save_memory_and_change_no_gradient(conv, static, options):
    made = layer(conv, replace(FULL, **options))
    x = inputs(conv, 1 if static else 23)
    with torch.no_grad():
        state = made(inputs(conv, seed=4), return_state=True)[1]
    shape = (23, 1, made.sizes["VIP"], *(1, 1) * conv)
    top_down = torch.rand(shape, generator=rng(3), dtype=torch.float64) if made.options.vip else None
    results, kept = [], []
    for window in (0, 5):
        made.options = replace(made.options, window=window)
        made.zero_grad()
        given = x.clone().requires_grad_()

        def run(given=given):
            return made(given, 23, state, return_state=True, top_down=top_down)

        kept.append(saved_bytes(made, lambda run=run: run()[0]))
        out, end = run()
        (out.mul(torch.randn(out.shape, generator=rng(2), dtype=out.dtype)).sum() + end.v.sum()).backward()
        results.append([out, end.v, end.pv.trace, given.grad, *(p.grad for p in made.parameters())])
    for whole, windows in zip(*results, strict=True):
        assert_agree(windows, whole, 1e-9, scale=1e-6)
    assert kept[1] < kept[0] / 2


def test_gradients_are_those_of_finite_differences():
    """Of what is smooth: the potential of E cells that stay below the threshold, 20 steps on."""
    made = layer(False)
    made.neuron.constants = FULL.lif(theta=1e6).constants
    x = inputs(False, 20)

    def potential(*values):
        names = [name for name, _ in made.named_parameters()]
        state = torch.func.functional_call(made, dict(zip(names, values, strict=True)), (x,), {"return_state": True})[1]
        return state.v.sin().sum() + state.pv.u.square().sum()

    values = [p.detach().clone().requires_grad_() for p in made.parameters()]
    grads = torch.autograd.grad(potential(*values), values, allow_unused=True)
    for i, (name, _) in enumerate(made.named_parameters()):
        if name.startswith("recurrent"):
            continue  # nothing comes back from cells that do not fire
        direction = torch.randn(values[i].shape, generator=rng(i), dtype=torch.float64)
        moved = [[*values[:i], values[i] + sign * 1e-6 * direction, *values[i + 1 :]] for sign in (1, -1)]
        with torch.no_grad():
            slope = (potential(*moved[0]) - potential(*moved[1])) / 2e-6
        # E-I Prop scales the gradient of what inhibits E cells by 1/d.
        scale = made.fan_in if name == "weight_ep" else 1
        given = torch.zeros_like(direction) if grads[i] is None else grads[i] * scale
        assert float((given * direction).sum()) == pytest.approx(float(slope), rel=1e-4, abs=1e-7), name


def test_what_is_recorded_is_what_happened():
    model = torch.nn.Sequential(layer(False))
    x, top_down = inputs(False), torch.rand(1, 1, 2, generator=rng(3), dtype=torch.float64)
    _, state = model[0](inputs(False, seed=5), return_state=True)
    what = ["I_EE", "I_rec", "I_sub", "I_E", "s_PV", "s_SST", "s_VIP", "membrane", "spikes"]
    with record(model, what=what) as seen, torch.no_grad():
        out = model[0](x, state=state, top_down=top_down)
    values = seen["0"]
    assert torch.equal(values["spikes"], out)
    assert torch.equal((values["membrane"] >= 1).double(), out)
    assert values["s_VIP"].shape == (T, B, 2)
    assert values["s_PV"].min() >= 0
    with pytest.raises(ValueError, match="has no gradient"):
        record(model, what="gradient").__enter__()


@pytest.mark.parametrize("conv", [False, True])
@pytest.mark.parametrize("spiking", [False, True])
def test_the_currents_by_source_make_up_the_whole_current(conv, spiking):
    made = layer(conv, replace(FULL, spiking=spiking, tau_gaba=0.0))
    model, x = torch.nn.Sequential(made), inputs(conv, 20)
    inside = (1, 1) if conv else ()
    top_down = torch.rand(20, 1, 1, *inside, generator=rng(3), dtype=torch.float64)
    with record(model, what=made.quantities()) as seen, torch.no_grad():
        made(x, state=made(x, return_state=True)[1], top_down=top_down)
    of = {name: values[:, B:] for name, values in seen["0"].items()}  # of the second call
    assert all(len(values) == 20 for values in of.values())

    def per_cell(values):
        return values.view(-1, *inside)

    w = made.weights()
    inhibition = of["I_sub_PV"] + of["I_sub_SST"]
    divisor = per_cell(w.sigma) + of["I_div_PV"]
    current = per_cell(w.gain_e) * (of["I_EE"] + of["I_rec"] - inhibition) / divisor + per_cell(w.bias)
    assert_agree(current, of["I_E"], 1e-9)
    assert_agree(inhibition, of["I_sub"], 1e-9)
    assert_agree(divisor, of["I_div"], 1e-9)
    assert all(values.any() for values in of.values())
    before = of["s_SST"][:-1]
    for name, weight, source in (("I_sub_PV", w.weight_ep, of["s_PV"]), ("I_sub_SST", w.weight_es, before)):
        assert_agree(torch.einsum("tbn...,mn->tbm...", source, weight), of[name][-len(source) :], 1e-9)
    assert torch.equal(of["top_down"], top_down.expand(20, B, made.sizes["VIP"], *of["s_VIP"].shape[3:]))


def test_interneurons_are_recorded_beside_sampled_cells():
    made, what = layer(False), ["spikes", "s_PV", "top_down"]
    with record(made, what=what, neurons=5) as seen, record(made, what=what) as whole, torch.no_grad():
        made(inputs(False))
    kept, every = seen[""], whole[""]
    assert torch.equal(kept["spikes"], every["spikes"][:, :, seen.neurons[""]])
    assert torch.equal(kept["s_PV"], every["s_PV"])
    assert not every["top_down"].any()  # none is given


def test_checkpoints_hold_everything():
    made = layer(False, CorticalOptions(spiking=True))
    other = CorticalLinear(30, 16, options=CorticalOptions(spiking=True)).double()
    other.load_state_dict(made.state_dict())
    assert torch.equal(other(inputs(False)), made(inputs(False)))
    negative = made.state_dict()
    negative["recurrent_ee"] = -negative["recurrent_ee"]
    with pytest.raises(RuntimeError, match="recurrent_ee violates Dale's law"):
        CorticalLinear(30, 16, options=CorticalOptions(spiking=True)).double().load_state_dict(negative)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dt": 0}, "dt must be a finite number > 0; got 0"),
        ({"dt": -1.0}, "dt must be a finite number > 0; got -1.0"),
        ({"tau_pv": 0.5}, r"tau_pv must be 0 \(no memory\) or at least dt / 10 = 1 ms, .* got 0.5"),
        ({"tau_gaba": float("nan")}, "tau_gaba must be 0"),
        ({"recurrence": 1.0}, r"recurrence must be a share in \[0, 1\); got 1.0"),
        ({"recurrence": 0.0, "sst": 0.2}, "sst=0.2 needs recurrence > 0"),
        ({"vip": 0.2}, "vip=0.2 needs sst > 0"),
        ({"feedback_inhibition": 1.0}, r"feedback_inhibition must be a share in \[0, 1\); got 1.0"),
        ({"recurrence": 0.0, "feedback_inhibition": 0.2}, "feedback_inhibition=0.2 needs recurrence > 0"),
        ({"delay": "1"}, "delay must be a number; got '1'"),
        ({"delay": 3.0}, r"delay must be None \(one step\) or a multiple of dt = 10 ms; got 3.0"),
        ({"delay": 0}, r"delay must be None .* got 0"),
        ({"dt": 0.1, "delay": float("inf")}, "delay must be None .* got inf"),
        ({"window": -1}, "window must be an int >= 0; got -1"),
        ({"surround_size": 4}, "surround_size must be an odd int >= 1; got 4"),
        ({"spiking": True, "interneuron_rate": 60}, "at most half a spike a step, 50 Hz at dt 10 ms; got 60"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        CorticalOptions(**options)


@pytest.mark.parametrize("conv", [False, True])
def test_what_does_not_fit_is_named(conv):
    made, x, inside = layer(conv), inputs(conv), (5, 5) if conv else ()
    plain, n = layer(conv, CorticalOptions()), made.sizes["VIP"]

    def refused(given):
        return re.escape(f"top_down must be a tensor that broadcasts to {[6, 3, n, *inside]}, got {given}")

    with pytest.raises(
        ValueError, match="top_down is current onto VIP cells, of which it has none; give options vip > 0"
    ):
        plain(x, top_down=torch.zeros(1, 1, 1, *inside))
    for wrong, window in ([6, 3, 5, *inside], 0), ([6, 3], 0), ([7, 3, n, *inside], 2):
        made.options = replace(made.options, window=window)
        with pytest.raises(ValueError, match=refused(wrong)):
            made(x, top_down=torch.zeros(wrong))
    _, state = made(x, return_state=True)
    for wrong in (state.v, state[:5], state._replace(v=state.v[:1]), state._replace(history=state.history[:, :1])):
        with pytest.raises(ValueError, match="the state of a cortical layer is a CorticalState"):
            made(x, state=wrong)
    if conv:
        with pytest.raises(ValueError, match="the state of a cortical layer is a CorticalState"):
            made(torch.cat([x, x], -1), state=state)
    with pytest.raises(TypeError, match="neuron must be a module"):
        CorticalLinear(30, 16, neuron=torch.nn.ReLU())
    with pytest.raises(TypeError, match="CorticalLinear: options must be"):
        CorticalLinear(30, 16, options=eisnn.nn.PAPER, neuron=eisnn.LIF())
    with pytest.raises(TypeError, match=r"cortex: options must be .*Options\(...\), got {'sst': 0.4}"):
        eisnn.create_model("mlp", circuit="cortex", circuit_options={"sst": 0.4})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="tau_e must be at least dt = 10 ms, got 5"):
        CorticalOptions().lif(tau_e=5)
    with pytest.raises(RuntimeError, match="never initialised"):
        (CorticalConv2d(6, 8, 3) if conv else CorticalLinear(30, 16))(x.float())
