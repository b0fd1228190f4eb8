"""The E-I circuit and its baselines as layers: shapes, time, state, precision, copies and errors."""

import copy
import pickle
import re

import pytest
import torch
from circuits import PARAMETERS, WEIGHTS, assert_agree, circuit, gradients, rng, spikes
from torch import Tensor, nn

import eisnn
import eisnn.functional as EF
from eisnn import ops
from eisnn.methods.bn import BNConv2d, BNLinear
from eisnn.nn import EICircuit, LinearReadout
from eisnn.nn.circuit import EILayer

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
GEOMETRIES = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)},
    {"kernel_size": 1, "stride": 2},
    {"kernel_size": (1, 5), "padding": (0, 2), "stride": 3},
]


def with_parameters(layer: EICircuit, parameters: dict[str, Tensor]) -> EICircuit:
    layer.load_state_dict({k: v for k, v in parameters.items() if hasattr(layer, k)}, strict=False)
    layer.initialized = True
    return layer


def conv(neuron: nn.Module | None = None, dtype: torch.dtype = torch.float64, dead: float = 0.0, **geometry) -> EILayer:
    geometry = geometry or GEOMETRIES[0]
    layer = eisnn.EIConv2d(3, 8, neuron=neuron, dtype=dtype, **geometry)
    return with_parameters(layer, circuit(8, 2, tuple(layer.weight_ee.shape[1:]), dead=dead, dtype=dtype))


def linear(neuron: nn.Module | None = None, dtype: torch.dtype = torch.float64) -> EILayer:
    return with_parameters(eisnn.EILinear(12, 8, neuron=neuron, dtype=dtype), circuit(8, 2, (12,), dtype=dtype))


def readout(dtype: torch.dtype = torch.float64) -> EICircuit:
    return with_parameters(eisnn.EIReadout(12, 8, dtype=dtype), circuit(8, 2, (12,), dtype=dtype))


def images(t: int = 4, b: int = 3, rate: float = 0.15, seed: int = 0) -> Tensor:
    """Sparse sequences with silent patches and one silent sample."""
    x = spikes((t, b, 3, 9, 8), rate, seed)
    x[0, -1] = 0
    return x


def as_written(layer: EILayer, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    currents = EF.ei_currents(x, *[getattr(layer, k) for k in PARAMETERS[:4]], layer.connection)
    balanced = currents.i_ee - currents.i_sub
    i_e = EF.integrate(balanced, currents.i_div, layer.gain_e, layer.bias)
    return EF.lif(i_e, layer.neuron.constants, state)


# ---------------------------------------------------------------------------------------------- parity


@pytest.mark.parametrize("dead", [0.0, 0.5])
@pytest.mark.parametrize("reset", ["soft", "hard"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_conv_with_lif_through_time_equals_the_reference(geometry, reset, dead):
    """Spikes, state, and the gradients of the input, the initial state and all six parameters."""
    layer = conv(eisnn.LIF(reset=reset), dead=dead, **geometry)
    results = []
    for run in (lambda x, v: layer(x, state=v, return_state=True), lambda x, v: as_written(layer, x, v)):
        x = images().requires_grad_()
        v = torch.randn(layer(x)[0].shape, generator=rng(1), dtype=torch.float64).requires_grad_()
        s, last = run(x, v)
        leaves = {"x": x, "v": v, **dict(layer.named_parameters())}
        g = torch.randn(last.shape, generator=rng(2), dtype=torch.float64)
        both = torch.cat([s, (last * g)[None]])
        results.append((s, last, gradients(both, leaves)))
    ours, reference = results
    assert 0.05 < reference[0].mean() < 0.95
    assert torch.equal(ours[0], reference[0])
    assert_agree(ours[1], reference[1], 1e-12)
    for name, grad in reference[2].items():
        assert_agree(ours[2][name], grad, 1e-12)


@pytest.mark.parametrize("neuron", [None, eisnn.LIF()])
@pytest.mark.parametrize("make", [conv, linear])
def test_a_static_input_equals_the_repeated_sequence(make, neuron):
    layer = make(neuron)
    x = (images(1) if make is conv else spikes((1, 3, 12))) * 0.7
    results = []
    for repeat in (False, True):
        leaf = x.clone().requires_grad_()
        out = layer(leaf.repeat(4, *(1,) * (x.ndim - 1)) if repeat else leaf, 4)
        results.append((out, gradients(out, {"x": leaf, **dict(layer.named_parameters())})))
    assert results[0][0].shape[0] == 4
    assert_agree(results[0][0], results[1][0], 1e-13)
    for name, grad in results[1][1].items():
        assert_agree(results[0][1][name], grad, 1e-12)


@pytest.mark.parametrize("make", [conv, linear])
def test_state_carried_over_equals_one_long_call(make):
    layer = make(eisnn.LIF())
    x = images(6) if make is conv else spikes((6, 3, 12))
    whole, last = layer(x, return_state=True)
    first, v = layer(x[:2], return_state=True)
    second, end = layer(x[2:], 4, state=v, return_state=True)
    assert torch.equal(torch.cat([first, second]), whole)
    assert_agree(end, last, 1e-13)
    assert not torch.equal(layer(x[2:]), second)  # the state matters
    assert torch.equal(layer(x), whole)  # and lives in no module


@pytest.mark.parametrize("make", [conv, linear])
def test_an_image_never_depends_on_the_others_in_its_batch(make):
    layer = make()
    x = images(2, 4, rate=0.4) if make is conv else spikes((2, 4, 12), 0.5)
    out = layer(x)
    x[:, 1] *= 1e-5  # a dark image: by far the smallest divisive currents
    x[:, 2] = 0
    changed = layer(x)
    for b in (0, 3):
        assert_agree(changed[:, b], out[:, b], 1e-13)
        assert_agree(layer(x[:, b : b + 1])[:, 0], out[:, b], 1e-13)
    assert torch.equal(changed[:, 2], layer.bias.view(-1, *(1,) * (out.ndim - 3)).expand(out[:, 2].shape))


def test_a_readout_only_subtracts():
    layer, x = readout(), spikes((4, 3, 12))
    assert_agree(layer(x), EF.ei_readout(x, *[getattr(layer, k) for k in WEIGHTS], ops.Dense()), 1e-13)
    assert [name for name, _ in layer.named_parameters()] == list(WEIGHTS)
    out, state = layer(x[:1], 4, return_state=True)
    assert out.shape == (1, 3, 8)
    assert state is None


# ---------------------------------------------------------------------------------------------- gradient scale


def gradient_of_weight_ei(layer: EICircuit, x: Tensor) -> Tensor:
    layer.zero_grad()
    out = layer(x)
    out.backward(torch.randn(out.shape, generator=rng(7), dtype=torch.float64))
    return layer.weight_ei.grad.clone()


@pytest.mark.parametrize("make", [conv, linear, readout])
def test_the_gradient_scale_of_weight_ei_survives_copies(make, tmp_path, monkeypatch):
    """1/d once in the layer, its deepcopy, its pickle, a saved and loaded one, and one that loads its parameters."""
    layer = make()
    x = images() if make is conv else spikes((4, 3, 12))
    scaled = gradient_of_weight_ei(layer, x)
    torch.save(layer, tmp_path / "layer.pt")
    fresh = {
        conv: lambda: eisnn.EIConv2d(3, 8, 3, padding=1, neuron=None, dtype=torch.float64),
        linear: lambda: eisnn.EILinear(12, 8, neuron=None, dtype=torch.float64),
        readout: lambda: eisnn.EIReadout(12, 8, dtype=torch.float64),
    }[make]()
    fresh.load_state_dict(layer.state_dict())
    copies = [
        copy.deepcopy(layer),
        pickle.loads(pickle.dumps(layer)),
        torch.load(tmp_path / "layer.pt", weights_only=False),
        fresh,
    ]
    for other in copies:
        assert torch.equal(other(x), layer(x))
        assert torch.equal(gradient_of_weight_ei(other, x), scaled)
    monkeypatch.setattr("eisnn.functional.circuit._ScaleGradient.backward", lambda ctx, grad: (grad, None))
    assert_agree(gradient_of_weight_ei(layer, x), layer.fan_in * scaled, 1e-13)


# ---------------------------------------------------------------------------------------------- precision


def check_finite(layer: EICircuit, x: Tensor) -> Tensor:
    layer.zero_grad()
    x = x.clone().requires_grad_()
    out = layer(x)
    assert out.isfinite().all()
    out.mean().backward()  # a sum overflows in float16 where the divisive current is about 1e-4
    assert x.grad is not None
    for grad in (x.grad, *(p.grad for p in layer.parameters())):
        assert grad.isfinite().all()
    return out


@pytest.mark.parametrize("neuron", [None, eisnn.LIF()])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_e", [1, 2, 3, 9])
def test_every_dtype_and_the_smallest_sizes_are_finite(n_e, dtype, neuron):
    """Fewer than 4 E neurons, one time step, one image; sparse, silent, and without divisive inhibition."""
    torch.manual_seed(0)
    for layer, shape in [
        (eisnn.EIConv2d(2, n_e, 3, padding=1, neuron=neuron), (2, 3, 2, 6, 6)),
        (eisnn.EILinear(10, n_e, neuron=neuron), (2, 3, 10)),
        (eisnn.EIReadout(10, n_e), (2, 3, 10)),
    ]:
        assert layer.n_i == max(1, n_e // 4)
        eisnn.ei_init_(layer, spikes(shape, 0.3, dtype=torch.float32))
        layer = layer.to(dtype)
        for x in (spikes(shape, 0.3), spikes(shape, 0.02), torch.zeros(shape), spikes((1, 1, *shape[2:]), 0.3)):
            out = check_finite(layer, x.to(dtype))
            assert out.dtype == dtype
        if hasattr(layer, "gain_i"):
            nn.init.zeros_(layer.gain_i)
            nn.init.constant_(layer.bias, 2.0)
            out = check_finite(layer, spikes(shape, 0.3).to(dtype))
            assert torch.equal(out, torch.full_like(out, 2.0) if neuron is None else torch.ones_like(out))


@pytest.mark.parametrize("make", [conv, linear])
def test_a_silent_sequence_gives_the_bias_and_gradients_to_nothing_else(make):
    layer = make()
    x = torch.zeros((2, 3, 3, 9, 8) if make is conv else (2, 3, 12), dtype=torch.float64, requires_grad=True)
    out = layer(x)
    assert torch.equal(out, layer.bias.view(-1, *(1,) * (out.ndim - 3)).expand_as(out))
    out.sum().backward()
    for name, p in [("x", x), *layer.named_parameters()]:
        expected = torch.full_like(p, out[:, :, 0].numel()) if name == "bias" else torch.zeros_like(p)
        assert torch.equal(p.grad, expected), name


def test_autocast_is_close_to_float32():
    """bfloat16 currents of a folded float32 kernel: firing rates and currents stay close."""
    torch.manual_seed(0)
    layer = eisnn.EIConv2d(16, 64, 3, padding=1)
    x = spikes((4, 8, 16, 12, 12), 0.25, dtype=torch.float32)
    eisnn.ei_init_(layer, x)
    s = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        half = layer(x)
        half.float().mean().backward()
    assert half.dtype == torch.bfloat16
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in layer.parameters())
    rates, half_rates = s.mean((0, 1, 3, 4)), half.float().mean((0, 1, 3, 4))
    assert 0.02 < rates.mean() < 0.5
    assert (half_rates - rates).abs().max() < 0.005
    assert (half.float() != s).float().mean() < 0.01

    currents = ops.folded_currents(x, *[getattr(layer, k) for k in PARAMETERS[:4]], layer.connection)
    with torch.autocast("cpu", torch.bfloat16):
        low = ops.folded_currents(x, *[getattr(layer, k) for k in PARAMETERS[:4]], layer.connection)
        five = EF.ei_currents(x, *[getattr(layer, k) for k in PARAMETERS[:4]], layer.connection)
    folded, naive = ((n.float() - currents.balanced).square().mean() for n in (low.balanced, five.i_ee - five.i_sub))
    assert folded < 0.2 * naive  # the difference is taken between weights, in float32
    assert torch.equal(low.i_div == 0, currents.i_div == 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_memory_format_does_not_matter(dtype):
    layer = conv(eisnn.LIF(), dtype=dtype, dead=0.3)
    x = images().to(dtype)
    last = x.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, x.shape[:2])
    assert_agree(layer(last), layer(x), 0 if dtype == torch.float64 else 1e-6)
    layer.neuron = None
    assert_agree(layer.to(memory_format=torch.channels_last)(last), layer(x), 1e-12 if dtype == torch.float64 else 1e-5)


# ---------------------------------------------------------------------------------------------- neurons


class Doubler(nn.Module):
    """A neuron of another kind, with a state: the number of steps it has seen."""

    def forward(self, current: Tensor, state: int | None = None, return_state: bool = False):
        out = 2 * current
        return (out, (state or 0) + len(current)) if return_state else out


class Plain(nn.Module):
    """A neuron without any notion of state."""

    def forward(self, current: Tensor) -> Tensor:
        return current + 1


LAYERS = [
    lambda neuron: conv(neuron),
    lambda neuron: linear(neuron),
    lambda neuron: BNConv2d(3, 8, 3, padding=1, neuron=neuron).double().eval(),
    lambda neuron: BNLinear(12, 8, neuron=neuron).double().eval(),
]


def input_of(layer: nn.Module, t: int = 4) -> Tensor:
    return images(t) if "Conv" in type(layer).__name__ else spikes((t, 3, 12))


@pytest.mark.parametrize("make", LAYERS)
def test_any_other_neuron_receives_the_integrated_current(make):
    torch.manual_seed(0)
    layer = make(None)
    x = input_of(layer)
    i_e = layer(x)
    layer.neuron = Doubler()
    assert torch.equal(layer(x), 2 * i_e)
    out, state = layer(x, state=3, return_state=True)
    assert torch.equal(out, 2 * i_e)
    assert state == 7
    assert layer(x[:1], 5, return_state=True)[1] == 5  # a static current arrives at every step
    layer.neuron = Plain()
    assert torch.equal(layer(x), i_e + 1)
    layer.neuron = eisnn.LIF()
    assert torch.equal(layer(x), ops.lif(i_e, EF.LIFConstants())[0])
    layer.neuron = None
    assert layer(x, return_state=True)[1] is None


@pytest.mark.parametrize("make", LAYERS)
def test_each_layer_copies_its_neuron(make):
    neuron = eisnn.LIF(tau=3.0)
    one, two = make(neuron), make(neuron)
    assert len({id(neuron), id(one.neuron), id(two.neuron)}) == 3
    assert one.neuron.constants == neuron.constants
    neuron.constants = EF.LIFConstants(tau=7.0)
    assert one.neuron.constants.tau == 3
    assert make(None).neuron is None


def test_the_default_neuron_is_the_papers_and_is_not_shared():
    one, two = eisnn.EILinear(4, 4), eisnn.EILinear(4, 4)
    assert one.neuron.constants == EF.LIFConstants(2.0, 1.0, "soft", "sigmoid", None, True)
    assert one.neuron is not two.neuron


# ---------------------------------------------------------------------------------------------- shapes and errors


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("time_steps", [None, 4])
def test_shapes(geometry, time_steps):
    layer, plain = conv(eisnn.LIF(), **geometry), nn.Conv2d(3, 8, **geometry).double()
    x = images()
    assert layer(x, time_steps).shape == (4, 3, *plain(x[0]).shape[1:])
    bn = BNConv2d(3, 8, **geometry).double()
    assert bn(x, time_steps).shape == layer(x, time_steps).shape


def test_parameters_and_ratio():
    layer = eisnn.EIConv2d(3, 10, (3, 2), ei_ratio=3)
    shapes = {name: tuple(p.shape) for name, p in layer.named_parameters()}
    assert shapes == {
        "weight_ee": (10, 3, 3, 2),
        "weight_ie": (3, 3, 3, 2),
        "weight_ei": (10, 3),
        "gain_i": (3,),
        "gain_e": (10,),
        "bias": (10,),
    }
    assert layer.fan_in == 18
    assert (eisnn.EILinear(5, 3).n_i, eisnn.EILinear(5, 4).n_i, eisnn.EIReadout(5, 11).n_i) == (1, 1, 2)
    assert list(layer.buffers()) == []


def test_spikes_are_zero_or_one():
    assert set(conv(eisnn.LIF())(images()).unique().tolist()) == {0, 1}


@pytest.mark.parametrize("make", [lambda: conv(), lambda: BNConv2d(3, 8, 3).double()])
def test_errors_of_a_convolution_say_what_was_given(make):
    layer = make()
    name = type(layer).__name__
    with pytest.raises(ValueError, match=rf"{name} takes a sequence \[T, B, C, H, W\], got .* \[3, 3, 9, 8\]"):
        layer(images()[0])
    with pytest.raises(ValueError, match=r"must be time_steps=4, .* got shape \[3, 4, 3, 9, 8\] \(is it \[B, T"):
        layer(images().transpose(0, 1), 4)


@pytest.mark.parametrize(
    "make",
    [lambda: linear(), lambda: readout(), lambda: BNLinear(12, 8).double(), lambda: LinearReadout(12, 8).double()],
)
def test_errors_of_a_dense_layer_say_what_was_given(make):
    layer = make()
    with pytest.raises(ValueError, match=r"takes a sequence \[T, B, features\], got a tensor of shape \[3, 12\]"):
        layer(spikes((3, 12)))
    with pytest.raises(ValueError, match=r"must be time_steps=4, .* got shape \[3, 4, 12\]"):
        layer(spikes((3, 4, 12)), 4)


def test_a_wrong_number_of_inputs_is_named():
    with pytest.raises(ValueError, match=r"EIConv2d has 3 inputs, got 2 \(shape \[4, 3, 2, 9, 8\]\)"):
        conv()(images()[:, :, :2])
    with pytest.raises(ValueError, match="EILinear has 12 inputs, got 11"):
        linear()(spikes((4, 3, 11)))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: eisnn.EIConv2d(3, 0, 3), "EIConv2d: out_channels must be an int >= 1, got 0"),
        (lambda: eisnn.EIConv2d(-1, 4, 3), "EIConv2d: in_channels must be an int >= 1, got -1"),
        (lambda: eisnn.EILinear(0, 4), "EILinear: in_features must be an int >= 1, got 0"),
        (lambda: eisnn.EILinear(3, 8.0), r"EILinear: out_features must be an int >= 1, got 8\.0"),
        (lambda: eisnn.EILinear(True, 8), "EILinear: in_features must be an int >= 1, got True"),
        (lambda: eisnn.EILinear(3, 8, 2.5), r"EILinear: ei_ratio must be an int >= 1, got 2\.5"),
        (lambda: eisnn.EILinear(3, 8, eisnn.LIF()), r"EILinear: ei_ratio must be an int >= 1, got LIF\("),
        (lambda: eisnn.EIReadout(3, 4, ei_ratio=0), "EIReadout: ei_ratio must be an int >= 1, got 0"),
        (lambda: BNConv2d(3, 8.0, 3), r"BNConv2d: out_channels must be an int >= 1, got 8\.0"),
        (lambda: BNLinear("3", 8), "BNLinear: in_features must be an int >= 1, got '3'"),
    ],
)
def test_impossible_sizes_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("kind", [eisnn.EIConv2d, BNConv2d])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kernel_size": (3, 3, 5)}, r"kernel_size must be an int >= 1 or a pair .*, got \(3, 3, 5\)"),
        ({"kernel_size": (3, 0)}, r"kernel_size must be an int >= 1 or a pair .*, got \(3, 0\)"),
        ({"kernel_size": 3.0}, r"kernel_size must be an int >= 1 or a pair .*, got 3\.0"),
        ({"stride": 0}, r"stride must be an int >= 1 or a pair .*, got 0"),
        ({"stride": (1, True)}, r"stride must be an int >= 1 or a pair .*, got \(1, True\)"),
        ({"stride": (1, 0.5)}, r"stride must be an int >= 1 or a pair .*, got \(1, 0\.5\)"),
        ({"padding": -1}, r"padding must be an int >= 0 or a pair .*, got -1"),
        (
            {"padding": "same"},
            r"padding must be an int >= 0 .*, got 'same'; .* padding=dilation \* \(kernel_size - 1\)",
        ),
        ({"dilation": 0}, r"dilation must be an int >= 1 or a pair .*, got 0"),
    ],
)
def test_impossible_geometry_is_named(kind, wrong, message):
    with pytest.raises(ValueError, match=f"{kind.__name__}: {message}"):
        kind(3, 8, **{"kernel_size": 3, **wrong})


@pytest.mark.parametrize("make", LAYERS)
@pytest.mark.parametrize("neuron", ["LIF", eisnn.LIF, 2.0])
def test_a_neuron_that_is_no_module_is_named(make, neuron):
    with pytest.raises(TypeError, match=rf"neuron must be a module, e\.g\. eisnn\.LIF\(\), or None, got {neuron!r}"):
        make(neuron)


EVERY_LAYER = [
    *(lambda make=make: make(eisnn.LIF()) for make in LAYERS),
    readout,
    lambda: LinearReadout(12, 8).double(),
]


@pytest.mark.parametrize("make", EVERY_LAYER)
@pytest.mark.parametrize("time_steps", [0, -1, 2.5, True])
def test_impossible_time_is_named(make, time_steps):
    layer = make()
    with pytest.raises(ValueError, match=f"time_steps must be an int >= 1, got {time_steps}"):
        layer(input_of(layer)[:1], time_steps)


@pytest.mark.parametrize("make", EVERY_LAYER)
def test_an_empty_sequence_or_batch_is_named(make):
    layer = make()
    x = input_of(layer)
    for empty in (x[:0], x[:, :0]):
        with pytest.raises(ValueError, match=r"takes at least one time step and one image, got shape \[(0, 3|4, 0), "):
            layer(empty)


@pytest.mark.parametrize("make", EVERY_LAYER)
def test_input_of_another_type_is_named(make):
    layer = make()
    with pytest.raises(TypeError, match=r"takes a floating-point tensor, got torch\.uint8 .*images\.float\(\) / 255"):
        layer(input_of(layer).byte())
    with pytest.raises(TypeError, match="takes a floating-point tensor, got list"):
        layer(input_of(layer).tolist())
    for dtype in (torch.float64, torch.bfloat16):
        wrong = rf"the input of \w+ is {dtype}, its weights are torch\.float32: give x\.to\(torch\.float32\)"
        with pytest.raises(TypeError, match=wrong):
            layer.float()(input_of(layer).to(dtype))
    with torch.autocast("cpu", torch.bfloat16):
        layer(input_of(layer).bfloat16())


@pytest.mark.parametrize("make", LAYERS)
def test_a_state_of_another_shape_is_named(make):
    """A state of one image, or of one position, would be broadcast."""
    layer = make(eisnn.LIF())
    x = input_of(layer)
    state = layer(x, return_state=True)[1]
    wrong = [state[:1], state[:, :1], state[..., :1], state[None], state.flatten(), torch.tensor(0.0), 0.5, (state,)]
    for bad in wrong:
        given = re.escape(str(list(bad.shape))) if isinstance(bad, Tensor) else type(bad).__name__
        with pytest.raises(ValueError, match=rf"here of shape {re.escape(str(list(state.shape)))}, got .*{given}"):
            layer(x, state=bad)
    assert layer(x[:1], 3, state=state).shape[0] == 3  # static input has a state of the same shape


@pytest.mark.parametrize("make", LAYERS)
def test_state_asked_of_a_neuron_without_one_is_named(make):
    torch.manual_seed(0)
    layer = make(nn.ReLU())
    x = input_of(layer)
    for call in ({"return_state": True}, {"state": torch.zeros(1)}):
        with pytest.raises(TypeError, match="the neuron ReLU keeps no state: its forward takes no state="):
            layer(x, **call)
    layer.neuron = None
    with pytest.raises(ValueError, match="neuron=None keeps no state: state must be None, got Tensor"):
        layer(x, state=torch.zeros(1))


def test_an_error_inside_a_neuron_with_state_stays_its_own():
    class Broken(Doubler):
        def forward(self, current, state=None, return_state=False):
            raise TypeError("of its own")

    with pytest.raises(TypeError, match="of its own"):
        linear(Broken())(spikes((4, 3, 12)), return_state=True)


@pytest.mark.parametrize("make", EVERY_LAYER[4:])
def test_a_readout_keeps_no_state(make):
    layer = make()
    with pytest.raises(ValueError, match=f"{type(layer).__name__} keeps no state: state must be None"):
        layer(spikes((4, 3, 12)), state=torch.zeros(3, 8))


@pytest.mark.parametrize(
    "layer", [eisnn.EIConv2d(3, 8, 3), eisnn.EILinear(12, 8), eisnn.EIReadout(12, 8)], ids=["conv", "linear", "readout"]
)
def test_forward_before_e_i_init_names_it(layer):
    with pytest.raises(RuntimeError, match=rf"this {type(layer).__name__} was never initialised: call eisnn.ei_init_"):
        layer(input_of(layer).float())


@pytest.mark.parametrize("make", LAYERS[2:])
def test_batch_norm_normalises_over_time_and_batch(make):
    layer = make(None).train()
    out = layer(input_of(layer))
    axes = [a for a in range(out.ndim) if a != 2]
    assert_agree(out.mean(axes), torch.zeros(8, dtype=torch.float64), 1e-12, scale=1)
    assert_agree(out.var(axes, correction=0), torch.ones(8, dtype=torch.float64), 1e-2)
    x = input_of(layer)[:1]
    assert_agree(layer(x, 4), layer(x.repeat(4, *(1,) * (x.ndim - 1))), 1e-12)
