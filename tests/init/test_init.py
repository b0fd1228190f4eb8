"""E-I Init: its theory (docs/science/method.md, section 3) with tolerances, order of the layers, errors that leave the
model alone."""

import math
import re
from datetime import timedelta

import pytest
import torch
from circuits import assert_agree, rng, spikes
from golden import load
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, distributed, nn

import eisnn
from eisnn.cortex import CorticalLinear, CorticalOptions
from eisnn.init import (
    InputStatistics,
    bernoulli_statistics,
    fill_,
    inhibitory_gain,
    measure_input,
    weight_scale,
)
from eisnn.init.statistics import standard_deviation
from eisnn.nn import CircuitOptions, EICircuit

EVEN = CircuitOptions(even_gradients=True)
SIGMAS = 5  # how many standard errors a Monte Carlo estimate may be off


def test_standard_deviation_is_about_the_mean():
    assert standard_deviation(torch.tensor([[3.0, 5.0], [7.0, 9.0]])) == pytest.approx(5**0.5)
    assert standard_deviation(torch.full((4,), 2.0)) == 1e-12


def linear(d: int, n_e: int, p: float = 0.2, seed: int = 0, rows: int = 2000) -> tuple[nn.Module, InputStatistics]:
    """A dense circuit that returns I_E, initialised from i.i.d. spikes of probability p."""
    layer = eisnn.EILinear(d, n_e, neuron=None, dtype=torch.float64)
    statistics = measure_input(spikes((1, rows, d), p, seed + 1), 1, "layer")
    fill_(layer, statistics, rng(seed))
    return layer, statistics


def estimate(samples: Tensor) -> tuple[float, float]:
    """Mean of independent samples, and how far it may be from the truth."""
    return float(samples.mean()), SIGMAS * float(samples.std() / math.sqrt(len(samples)))


def draws(layer: nn.Module, n: int, current) -> Tensor:
    """`current(layer)` for n independent initialisations with the statistics of Bernoulli(0.2) inputs."""
    g, results = rng(11), []
    for _ in range(n):
        eisnn.ei_init_(layer, firing_probability=0.2, generator=g, redraw=True)
        results.append(current(layer))
    return torch.stack(results)


def balanced(layer: nn.Module, x: Tensor) -> Tensor:
    return x @ layer.weight_ee.detach().T - (x @ layer.weight_ie.detach().T) @ layer.weight_ei.detach().T


# ---------------------------------------------------------------------------------------------- the formulas


@given(p=st.floats(0.01, 0.99), d=st.integers(1, 5000))
def test_theoretical_form(p, d):
    """(19)-(21), (40)-(41): `g_I = sqrt((2 - p) / (d p))` and `lambda = sqrt(d (2 - p) / (1 - p))`."""
    statistics = bernoulli_statistics(p)
    assert weight_scale(statistics, d) == pytest.approx(1 / math.sqrt(d * (2 - p) / (1 - p)), rel=1e-12)
    assert inhibitory_gain(statistics, d) == pytest.approx(math.sqrt((2 - p) / (d * p)), rel=1e-12)


@given(mean=st.floats(0.01, 3), variance=st.floats(1e-3, 3), d=st.integers(1, 5000))
def test_the_identities_are_exact_for_iid_inputs(mean, variance, d):
    """(53): `Var(I_EE) = d s^2 (E[x^2] + Var x) = Var x`; (54): `E[I_div] = g_I d s E[x] = std(I_EE)`."""
    statistics = InputStatistics(mean, mean**2 + variance, variance)
    s, g = weight_scale(statistics, d), inhibitory_gain(statistics, d)
    assert d * s * s * (statistics.square + variance) == pytest.approx(variance, rel=1e-12)
    assert g * d * s * mean == pytest.approx(math.sqrt(variance), rel=1e-12)


def test_golden_statistics_scale_and_gain():
    file = load("linear_hidden_zeros")
    statistics = measure_input(file["x"][None], 1, "layer")
    expected = [float(file[k]) for k in ("stat_E_x", "stat_E_x_square", "stat_Var_x")]
    assert list(statistics) == pytest.approx(expected, rel=1e-6)
    assert weight_scale(statistics, int(file["in_features"])) == pytest.approx(float(file["exp_scale"]), rel=1e-6)


# ---------------------------------------------------------------------------------------------- the draws


def test_weights_are_exponential_and_the_rest_is_fixed():
    layer, statistics = linear(400, 200)
    scale = weight_scale(statistics, 400)
    for weight in (layer.weight_ee, layer.weight_ie):
        w = weight.detach().flatten() / scale
        moments = [(w, 1.0), (w**2, 2.0), ((w > 1).double(), math.exp(-1)), ((w < 0.1).double(), 1 - math.exp(-0.1))]
        for samples, expected in moments:
            value, tolerance = estimate(samples)
            assert abs(value - expected) < tolerance
    assert not torch.equal(layer.weight_ee[:50], layer.weight_ie)
    assert (layer.weight_ei == 1 / 50).all()
    assert (layer.gain_i == inhibitory_gain(statistics, 400)).all()
    assert (layer.gain_e == 1).all()
    assert (layer.bias == 0).all()


@pytest.mark.parametrize("p", [0.05, 0.3])
def test_currents_have_the_variance_and_mean_that_the_init_aims_at(p):
    """Each neuron looks at an input of its own, so that samples of `I_EE` and of `I_IE` are independent."""
    n, d = 8000, 60
    layer, statistics = linear(d, n, p, rows=n)
    x = spikes((n, d), p, seed=77)
    i_ee = (layer.weight_ee.detach() * x).sum(1)
    value, tolerance = estimate((i_ee - i_ee.mean()) ** 2)
    assert tolerance < 0.2 * value
    assert abs(value - statistics.variance) < tolerance
    assert abs(value - p * (1 - p)) < tolerance
    i_div = (layer.weight_ie.detach() * x[: n // 4]).sum(1) * layer.gain_i.detach()  # W_EI averages over these
    value, tolerance = estimate(i_div)
    assert abs(value - math.sqrt(statistics.variance)) < tolerance


@pytest.mark.parametrize("kind", ["patch", "mean input"])
def test_the_balanced_current_over_weight_draws(kind):
    """`E[N] = 0` and `Var(N | x) = s^2 (1 + 1/n_I) |x|^2`; for `x = E[x]` that is the spread of single neurons'
    time-averaged currents, `d s^2 E[x]^2 (1 + 1/n_I)`."""
    d, n_i = 50, 2
    layer = eisnn.EILinear(d, 4 * n_i, neuron=None, dtype=torch.float64)
    x = spikes((d,), 0.3, 5) if kind == "patch" else torch.full((d,), 0.2, dtype=torch.float64)
    n = draws(layer, 2000, lambda m: balanced(m, x))
    s = weight_scale(bernoulli_statistics(0.2), d)
    value, tolerance = estimate(n.mean(1))
    assert abs(value) < tolerance
    value, tolerance = estimate((n**2).mean(1))
    assert tolerance < 0.25 * value
    assert abs(value - s**2 * (1 + 1 / n_i) * float((x**2).sum())) < tolerance


def test_the_integrated_current_has_the_predicted_spread():
    """`std(I_E) ~ sqrt(E[x^2] (1 + 1/n_I) / (E[x^2] + Var x))`, not 1; a little more for the spread of I_div itself."""
    d, p = 400, 0.2
    x = spikes((1, 50, d), p, 3)
    for n_i in (1, 16):
        layer = eisnn.EILinear(d, 4 * n_i, neuron=None, dtype=torch.float64)
        i_e = draws(layer, 2000 // n_i, lambda m: m(x).detach())
        predicted = math.sqrt(p * (1 + 1 / n_i) / (p + p * (1 - p)))
        corrections = 1.5 * (1 / (n_i * d * p) + (1 - p) / (d * p))  # E[1 / I_div^2] ~ 1 + 3 CV^2
        assert 0.98 < float((i_e**2).mean().sqrt()) / predicted < 1.02 + corrections


def test_sparse_patches_are_amplified():
    """K active inputs give `std(I_E) ~ K^(-1/2)`."""
    layer = eisnn.EILinear(400, 64, neuron=None, dtype=torch.float64)
    few, many = torch.zeros(400, dtype=torch.float64), torch.zeros(400, dtype=torch.float64)
    few[:40] = many[:160] = 1
    i_e = draws(layer, 300, lambda m: m(torch.stack([few, many])[None]).detach()[0])
    ratio = i_e[:, 0].square().mean() / i_e[:, 1].square().mean()
    assert math.sqrt(ratio) == pytest.approx(2, rel=0.06)


# ---------------------------------------------------------------------------------------------- statistics


def by_hand(x: Tensor) -> list[float]:
    """Of `[T, B, ...]`: mean, mean square, and the unbiased variance over T*B averaged over positions."""
    rows = x.detach().double().flatten(0, 1)
    return [float(rows.mean()), float((rows**2).mean()), float(rows.var(0, correction=1).mean())]


@given(seed=st.integers(0, 10**6), t=st.integers(1, 4), b=st.integers(2, 5))
def test_statistics(seed, t, b):
    x = spikes((t, b, 3, 4, 2), 0.4, seed) * torch.rand((t, b, 3, 4, 2), generator=rng(seed), dtype=torch.float64)
    assert list(measure_input(x, 1, "layer")) == pytest.approx(by_hand(x), rel=1e-12)


@given(seed=st.integers(0, 10**6), t=st.integers(1, 6))
def test_a_static_image_counts_as_its_repetition(seed, t):
    x = torch.rand(1, 3, 2, 4, 4, generator=rng(seed), dtype=torch.float64)
    assert list(measure_input(x, t, "layer")) == pytest.approx(by_hand(x.repeat(t, 1, 1, 1, 1)), rel=1e-12)


def test_statistics_of_large_offsets_keep_their_digits():
    x = 1e4 + torch.rand(1, 500, 8, generator=rng(0), dtype=torch.float64)
    assert measure_input(x, 1, "layer").variance == pytest.approx(by_hand(x)[2], rel=1e-9)


def image_batch(b: int = 8, seed: int = 0) -> Tensor:
    return torch.rand(b, 3, 32, 32, generator=rng(seed))


def small(name: str = "vgg8", **options) -> nn.Module:
    return eisnn.create_model(name, time_steps=3, width=1 / 16, **options)


def test_a_model_of_static_images_is_initialised_as_by_repeated_frames():
    one, many = small(), small()
    seen = eisnn.ei_init_(one, image_batch(), generator=rng(1))
    repeated = eisnn.ei_init_(many, image_batch().expand(3, -1, -1, -1, -1), generator=rng(1))
    assert seen["layers.0"].variance == pytest.approx(by_hand(image_batch().expand(3, -1, -1, -1, -1))[2], rel=1e-9)
    for name in seen:
        assert list(seen[name]) == pytest.approx(list(repeated[name]), rel=1e-5)
    for p, q in zip(one.parameters(), many.parameters(), strict=True):
        assert_agree(q, p, 1e-5)


@pytest.mark.parametrize("name", ["vgg8", "resnet18", "mlp"])
def test_every_layer_sees_the_initialised_layers_below(name):
    """Through residual blocks too: what each circuit receives afterwards is what it was initialised from."""
    model = small(name)
    seen = eisnn.ei_init_(model, image_batch(), generator=rng(0))
    circuits = {n: m for n, m in model.named_modules() if isinstance(m, EICircuit)}
    assert set(seen) == set(circuits)
    inputs: dict[str, Tensor] = {}
    for key, module in circuits.items():
        module.register_forward_pre_hook(
            lambda m, args, key=key: inputs.__setitem__(key, args[0].expand(3, *args[0].shape[1:]))
        )
    model(image_batch())
    for key, module in circuits.items():
        statistics = InputStatistics(*by_hand(inputs[key]))
        assert list(seen[key]) == pytest.approx(list(statistics), rel=1e-6), key
        if hasattr(module, "gain_i"):
            assert_agree(
                module.gain_i, torch.full_like(module.gain_i, inhibitory_gain(statistics, module.fan_in)), 1e-6
            )
        w = module.weight_ee.detach().double().flatten()
        mean, scale = float(w.mean()), weight_scale(statistics, module.fan_in)
        assert abs(mean - scale) < SIGMAS * scale / math.sqrt(len(w)), key


# ---------------------------------------------------------------------------------------------- reproducibility


def parameters_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return all(torch.equal(p, two[name]) for name, p in one.items())


@pytest.mark.parametrize("rate", [0.05, 0.15, 0.3])
@pytest.mark.parametrize("conserved", [False, True])
def test_neurons_start_at_the_rate_asked_for(rate, conserved):
    """Also those of the first layer, whose static input is seen for four steps."""
    options = CircuitOptions(conserved=conserved, start_rate=rate)
    model = eisnn.create_model("convnet3", time_steps=4, circuit_options=options)
    images = torch.rand(32, 3, 16, 16, generator=rng(0))
    eisnn.ei_init_(model, images, generator=rng(1))
    seen = []
    for layer in model.layers:
        layer.register_forward_hook(lambda _, __, out: seen.append(out.mean().item()))
    model(images)
    assert seen == pytest.approx([rate] * 3, rel=0.02)


def test_a_rate_at_the_start_is_of_spikes_and_excludes_unit_variance():
    with pytest.raises(ValueError, match="start_rate is of spikes, and with neuron=None"):
        eisnn.EILinear(3, 4, neuron=None, options=CircuitOptions(start_rate=0.1))
    with pytest.raises(ValueError, match="both set the scale of the start"):
        CircuitOptions(unit_variance=True, start_rate=0.1)
    with pytest.raises(ValueError, match=r"start_rate is in spikes a step, in \[0, 1\); got 1.5"):
        CircuitOptions(start_rate=1.5)


def test_the_same_generator_gives_the_same_weights_in_any_dtype():
    models = [small().to(dtype) for dtype in (torch.float32, torch.float64)]
    for model in models:
        eisnn.ei_init_(model, firing_probability=0.2, generator=rng(4))
    single, double = map(parameters_of, models)
    assert same(single, {name: p.float() for name, p in double.items()})
    eisnn.ei_init_(models[0], image_batch(), generator=rng(4), redraw=True)
    eisnn.ei_init_(models[1], image_batch().double(), generator=rng(4), redraw=True)
    assert_agree(models[0].layers[0].weight_ee, models[1].layers[0].weight_ee, 1e-6)


def test_the_global_generator_serves_without_one():
    torch.manual_seed(4)
    one, two = small(), small()
    eisnn.ei_init_(one, image_batch())
    eisnn.ei_init_(two, image_batch(), generator=rng(4))
    assert same(parameters_of(one), parameters_of(two))


def test_twice_leaves_the_weights_and_redraw_redraws():
    model = small()
    first = eisnn.ei_init_(model, image_batch(), generator=rng(0))
    before = parameters_of(model)
    with pytest.warns(UserWarning, match=r"all 6 circuits of this VGG are initialised already, .* redraw=True\) draws"):
        assert eisnn.ei_init_(model, image_batch(seed=1), generator=rng(1)) == {}
    assert same(before, parameters_of(model))
    assert set(eisnn.ei_init_(model, image_batch(), generator=rng(1), redraw=True)) == set(first)
    after = parameters_of(model)
    assert not any(torch.equal(before[k], after[k]) for k in before if k.endswith(("weight_ee", "weight_ie")))


def test_only_what_is_not_initialised_is_filled():
    model = small()
    eisnn.ei_init_(model, image_batch(), generator=rng(0))
    before = parameters_of(model)
    model.readout = eisnn.EIReadout(32, 10)
    assert set(eisnn.ei_init_(model, image_batch())) == {"readout"}
    assert all(torch.equal(before[k], v) for k, v in parameters_of(model).items() if not k.startswith("readout"))
    model(image_batch())


def test_no_trace_remains():
    model = small()
    eisnn.ei_init_(model, image_batch())
    assert all(not m._forward_pre_hooks for m in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert eisnn.dale_violations(model) == {}


def test_a_batch_norm_model_has_nothing_to_initialise():
    model = small(circuit="bn")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert eisnn.ei_init_(model, image_batch()) == {}
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_the_theoretical_form_fills_a_model():
    model = small()
    seen = eisnn.ei_init_(model, firing_probability=0.3)
    for name, statistics in seen.items():
        assert statistics == (0.3, 0.3, pytest.approx(0.21))
        module = model.get_submodule(name)
        assert module.initialized
        if hasattr(module, "gain_i"):
            assert_agree(module.gain_i, torch.full_like(module.gain_i, math.sqrt(1.7 / (module.fan_in * 0.3))), 1e-6)
    assert len(seen) == 6


# ---------------------------------------------------------------------------------------------- errors


class Filter(nn.Module):
    """Stands for whatever may go wrong between two layers."""

    def __init__(self, change) -> None:
        super().__init__()
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        return self.change(x)


def put(value: float):
    def change(x: Tensor) -> Tensor:
        x = x.clone()
        x[0, 1, :3] = value
        return x

    return change


BAD = {
    "zero": (torch.zeros_like, r"the input of 2 is zero everywhere"),
    "constant": (lambda x: torch.full_like(x, 0.25), r"the input of 2 does not vary over the 24 images .*mean 0\.25"),
    "negative": (put(-1.0), r"the input of 2 has 3 negative values"),
    "nan": (put(torch.nan), r"the input of 2 has 3 values that are not finite"),
    "inf": (put(torch.inf), r"the input of 2 has 3 values that are not finite"),
}


@pytest.mark.parametrize("redraw", [False, True])
@pytest.mark.parametrize("bad", BAD)
def test_a_bad_input_names_the_layer_and_leaves_the_model_as_it_was(bad, redraw):
    change, message = BAD[bad]
    model = nn.Sequential(eisnn.EILinear(6, 8), Filter(lambda x: x), eisnn.EILinear(8, 8))
    x = spikes((4, 6, 6), 0.5, dtype=torch.float32)
    if redraw:
        eisnn.ei_init_(model, x, generator=rng(1))
    before, initialised = parameters_of(model), [model[0].initialized, model[2].initialized]
    model[1].change = change
    with pytest.raises(ValueError, match=message):
        eisnn.ei_init_(model, x, redraw=redraw)
    assert same(before, parameters_of(model))
    assert [model[0].initialized, model[2].initialized] == initialised == [redraw, redraw]
    assert all(not m._forward_pre_hooks for m in model.modules())
    model[1].change = lambda x: x
    eisnn.ei_init_(model, x)  # and it can be initialised afterwards


def test_one_image_at_one_step_does_not_vary():
    with pytest.raises(ValueError, match="does not vary over the 1 images"):
        eisnn.ei_init_(eisnn.EILinear(6, 8), spikes((1, 1, 6), 0.5, dtype=torch.float32))


def test_an_error_in_the_middle_of_the_forward_pass_leaves_the_model_as_it_was():
    def fail(x: Tensor) -> Tensor:
        raise KeyboardInterrupt

    model = nn.Sequential(eisnn.EILinear(6, 8), Filter(fail))
    before = parameters_of(model)
    with pytest.raises(KeyboardInterrupt):
        eisnn.ei_init_(model, spikes((2, 3, 6), 0.5, dtype=torch.float32))
    assert same(before, parameters_of(model))
    assert not model[0].initialized


class Counter(nn.Module):
    """Counts its calls in a buffer that it replaces, and keeps what it saw last in one that is empty at first."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("last", None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.calls = self.calls + 1
        self.last = x
        return x


def test_weights_that_no_checkpoint_may_hold_are_left_as_they_were_too():
    """A failed redraw says what failed, though the weights that it puts back violate Dale's law."""
    layer = eisnn.EILinear(6, 8).double()
    eisnn.ei_init_(layer, spikes((2, 4, 6), 0.5), generator=rng(0))
    with torch.no_grad():
        layer.weight_ee[0, 0] = -1
    before = parameters_of(layer)
    with pytest.raises(ValueError, match="zero everywhere"):
        eisnn.ei_init_(layer, torch.zeros(2, 4, 6, dtype=torch.float64), redraw=True)
    assert same(before, parameters_of(layer))


def test_buffers_too_are_left_as_they_were():
    model = nn.Sequential(nn.BatchNorm1d(4), Counter(), Filter(torch.zeros_like), eisnn.EILinear(6, 8)).train()
    before, tensors = {k: v.clone() for k, v in model.state_dict().items()}, dict(model.named_buffers())
    with pytest.raises(ValueError, match="the input of 3 is zero everywhere"):
        eisnn.ei_init_(model, torch.rand(3, 4, 6, generator=rng(0)))
    assert same(before, model.state_dict())
    assert all(buffer is tensors[name] for name, buffer in model.named_buffers())
    assert model[1].last is None


def test_a_circuit_that_is_never_reached_is_named():
    model = small()
    model.spare = eisnn.EILinear(4, 4)
    before = parameters_of(model)
    with pytest.raises(ValueError, match="the first batch never reached spare"):
        eisnn.ei_init_(model, image_batch())
    assert same(before, parameters_of(model))
    assert not any(m.initialized for m in model.modules() if isinstance(m, EICircuit))


@pytest.mark.parametrize("arguments", [{}, {"first_batch": torch.rand(2, 3, 32, 32), "firing_probability": 0.2}])
def test_exactly_one_source_of_statistics(arguments):
    with pytest.raises(ValueError, match="either a first_batch or a firing_probability"):
        eisnn.ei_init_(small(), **arguments)


@pytest.mark.parametrize("p", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_firing_probability_out_of_range_is_named(p):
    with pytest.raises(ValueError, match=re.escape(f"must lie between 0 and 1, got {p}")):
        eisnn.ei_init_(small(), firing_probability=p)


@pytest.mark.parametrize("batch", [(image_batch(), torch.arange(8)), [image_batch()], image_batch().numpy()])
def test_a_batch_that_is_no_tensor_is_named(batch):
    with pytest.raises(TypeError, match=rf"first_batch must be the tensor .* got {type(batch).__name__}; of a batch"):
        eisnn.ei_init_(small(), batch)


@pytest.mark.parametrize("network", [small, lambda: eisnn.EIConv2d(3, 8, 3)])
def test_a_batch_of_another_dtype_is_named_and_leaves_the_model_as_it_was(network):
    model = network()
    x = image_batch() if isinstance(model, eisnn.models.SpikingNetwork) else image_batch()[None]
    before = parameters_of(model)
    with pytest.raises(TypeError, match=r"takes a floating-point tensor, got torch\.uint8 .* images\.float\(\) / 255"):
        eisnn.ei_init_(model, (255 * x).byte())
    with pytest.raises(
        TypeError, match=r"the input of \S+ is torch\.float64, its weights are torch\.float32: give x\.to\("
    ):
        eisnn.ei_init_(model, x.double())
    assert same(before, parameters_of(model))
    with torch.autocast("cpu", torch.bfloat16):  # which gives the layers inputs of another dtype
        assert eisnn.ei_init_(model, x)


def test_other_objects_for_the_model_and_the_generator_are_named():
    with pytest.raises(TypeError, match="takes a model and then its first batch, got Tensor as the model"):
        eisnn.ei_init_(image_batch(), small())
    with pytest.raises(TypeError, match=r"generator must be a torch\.Generator on the CPU, .* got 3"):
        eisnn.ei_init_(small(), image_batch(), generator=3)


def test_a_generator_elsewhere_is_an_error():
    class Elsewhere(torch.Generator):
        device = torch.device("cuda:0")

    with pytest.raises(ValueError, match=r"must live on the CPU.* it is on cuda:0"):
        eisnn.ei_init_(small(), image_batch(), generator=Elsewhere())


@pytest.mark.parametrize(
    ("value", "what"),
    [(-0.5, "1 negative values"), (torch.nan, "1 values that are not finite"), (torch.inf, "1 values that are not")],
)
def test_bad_images_are_named_with_the_layer_and_leave_the_model_as_it_was(value, what):
    model, x = small(), image_batch()
    x[2, 1, 3, 3] = value
    with pytest.raises(ValueError, match=rf"the input of layers\.0 has {what}"):
        eisnn.ei_init_(model, x)
    assert not model.layers[0].initialized


# ---------------------------------------------------------------------------------------------- two processes


def two_layers() -> nn.Module:
    layers = eisnn.EILinear(6, 8), Filter(lambda x: x), eisnn.EILinear(8, 8), eisnn.EIReadout(8, 4)
    return nn.Sequential(*layers).double()


def cortical() -> nn.Module:
    return CorticalLinear(6, 12, options=CorticalOptions(recurrence=0.05)).double()


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    world = distributed.group.WORLD
    part = slice(3 * rank, 3 * rank + 3)
    model = small(circuit_options=EVEN).double()
    x = image_batch(6).double()[part]
    seen = eisnn.ei_init_(model, x, generator=rng(rank), process_group=world)  # rank 0 draws

    recurrent = cortical()
    eisnn.ei_init_(recurrent, spikes((40, 6, 6), 0.3)[:, part], generator=rng(rank), process_group=world)

    broken = two_layers()
    if rank == 1:
        broken[1].change = put(torch.nan)
    before, error = parameters_of(broken), ""
    try:
        eisnn.ei_init_(broken, spikes((4, 6, 6), 0.5)[:, part], process_group=world)
    except ValueError as e:
        error = str(e)
    unharmed = same(before, parameters_of(broken)) and not broken[0].initialized

    result = {
        "parameters": parameters_of(model),
        "cortical": recurrent.state_dict(),
        "widths": [layer.neuron.constants.width for layer in model.layers],
        "statistics": {k: list(v) for k, v in seen.items()},
        "error": error,
        "unharmed": unharmed,
    }
    torch.save(result, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_equal_one_and_fail_together(tmp_path):
    torch.multiprocessing.spawn(worker, (str(tmp_path),), nprocs=2)
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    model = small(circuit_options=EVEN).double()
    seen = eisnn.ei_init_(model, image_batch(6).double(), generator=rng(0))
    recurrent = cortical()
    eisnn.ei_init_(recurrent, spikes((40, 6, 6), 0.3), generator=rng(0))
    assert results[0]["widths"] == results[1]["widths"]
    for result in results:
        assert result["widths"] == pytest.approx([layer.neuron.constants.width for layer in model.layers], rel=1e-9)
        assert set(result["statistics"]) == set(seen)
        for name, statistics in seen.items():
            assert result["statistics"][name] == pytest.approx(list(statistics), rel=1e-12)
        for name, p in model.named_parameters():
            assert_agree(result["parameters"][name], p, 1e-12)
        for name, p in recurrent.state_dict().items():
            assert_agree(result["cortical"][name], p, 1e-12)
        assert "the input of 2 has 3 values that are not finite" in result["error"]
        assert result["unharmed"]
