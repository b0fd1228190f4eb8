"""Networks by name, as a user would call them; parametrized over every registered model and circuit."""

import copy
import math
import pickle

import pytest
import torch
from circuits import assert_agree, rng
from torch import Tensor, nn

import eisnn
from eisnn.methods import CIRCUITS, make_layers
from eisnn.methods.tab import TAB
from eisnn.models import MODELS, SEWBlock
from eisnn.nn import EILayer

T, B, CLASSES = 4, 3, 5
TWINS = ("ei", "bn")
SMALL = ("convnet3", "resnet18", "spikformer-2-64", "mlp")  # one of each class, for the circuits of other methods
DEEP = ("resnet50", "resnet82", "resnet101", "resnet1002", "stack20", "stack40", "stack80")  # have tests of their own
DEEP += ("spikformer", "spikformer-2-256", "qkformer")
SHALLOW = [name for name in eisnn.list_models() if name not in DEEP]
# The steps of a recurrent circuit run one by one, which takes long in eighteen layers.
NAMES = dict.fromkeys(TWINS, SHALLOW) | {"cortex": ("convnet3", "mlp")}
EVERY = [(name, circuit) for circuit in CIRCUITS for name in NAMES.get(circuit, SMALL)]
every_model = pytest.mark.parametrize(("name", "circuit"), EVERY)
NONNEGATIVE = ("ei", "dann", "cortex")  # need inputs >= 0
TIMED = ("bntt", "tebn", "tab")  # have parameters for T steps: a stream ends there
STATELESS = ("dann",)
# Without a normalization of currents the narrowest networks may fall silent.
WIDER = ("neunorm", "backei", "plain", "dap", "cortex")


def width_of(name: str, circuit: str) -> float:
    if name in ("spikformer-2-64", "mlp-64"):  # narrower heads hardly ever see eight coincidences; few neurons
        return 1 / 2
    return 1 / 8 if circuit in WIDER else 1 / 16


def images(*leading: int, size: int = 32, seed: int = 0) -> Tensor:
    return torch.rand(*(leading or (B,)), 3, size, size, generator=rng(seed), dtype=torch.float64)


def build(name: str, circuit: str = "ei", time_steps: int = T, **options) -> nn.Module:
    """A narrow, initialised network in float64."""
    torch.manual_seed(0)
    options |= {"circuit": circuit, "width": width_of(name, circuit)}
    model = eisnn.create_model(name, CLASSES, time_steps=time_steps, **options).double()
    size = options.get("image_size", 32)
    eisnn.ei_init_(model, images(8, size=size), generator=rng(0))
    for norm in model.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            norm.momentum = None  # running statistics: those of the next batch
        elif isinstance(norm, TAB):
            norm.momentum = 1.0
    model(images(8, size=size))
    return model


# ---------------------------------------------------------------------------------------------- calls


@every_model
def test_forward_of_images_and_sequences(name, circuit):
    model = build(name, circuit).eval()
    x = images()
    with torch.no_grad():
        logits, per_step = model(x), model(x, per_step=True)
        assert logits.shape == (B, CLASSES)
        assert per_step.shape == (T, B, CLASSES)
        assert_agree(per_step.mean(0), logits, 1e-13)
        assert logits.isfinite().all()
        assert (logits.std(0) > 0).any()  # images differ
        # a static image is not repeated, but it counts as if it were
        assert_agree(model(x.expand(T, *x.shape)), logits, 1e-10)
        events = images(T, B)
        assert model(events).shape == (B, CLASSES)
        if circuit in STATELESS:
            with pytest.raises(TypeError, match="the neuron ReLU keeps no state"):
                model(events, return_state=True)
            return
        out, state = model(events, return_state=True, per_step=True)
        assert_agree(out, model(events, per_step=True), 1e-13)
        assert isinstance(state, list)


@every_model
def test_every_parameter_gets_a_finite_gradient(name, circuit):
    model = build(name, circuit)
    loss = nn.functional.cross_entropy(model(images()), torch.arange(B))
    loss.backward()
    for key, p in model.named_parameters():
        assert p.grad is not None, key
        assert p.grad.isfinite().all(), key
    model.zero_grad()
    model(images()).backward(torch.randn(B, CLASSES, generator=rng(1), dtype=torch.float64))
    silent = [key for key, p in model.named_parameters() if not p.grad.any()]
    assert silent == []


def first_image(state):
    """The state of a layer for the first image alone."""
    return tuple(first_image(part) for part in state) if isinstance(state, tuple) else state[:1]


def all_agree(ours, expected) -> None:
    for a, b in zip(ours, expected, strict=True):
        if isinstance(a, tuple):
            all_agree(a, b)
        elif b.numel():  # a population that is absent has an empty state
            assert_agree(a, b, 1e-10)
        else:
            assert a.shape == b.shape


@pytest.mark.parametrize("circuit", TIMED)
def test_parameters_of_each_step_end_a_stream(circuit):
    model = build("convnet3", circuit).eval()
    with torch.no_grad():
        _, state = model(images(), return_state=True)
        with pytest.raises(ValueError, match=r"has parameters for 4 time steps and cannot go beyond; .* steps 4 to 7"):
            model(images(), state=state)


@pytest.mark.parametrize(("name", "circuit"), [case for case in EVERY if case[1] not in (*TIMED, *STATELESS)])
def test_streams_in_two_calls_equal_one_call_of_twice_the_length(name, circuit):
    model, long = build(name, circuit).eval(), build(name, circuit, 2 * T).eval()
    long.load_state_dict(model.state_dict())
    with torch.no_grad():
        x = images(2 * T, B)
        whole, end = long(x, per_step=True, return_state=True)
        first, state = model(x[:T], per_step=True, return_state=True)
        second, last = model(x[T:], per_step=True, state=state, return_state=True)
        assert_agree(torch.cat([first, second]), whole, 1e-10)
        assert not torch.equal(model(x[T:], per_step=True), second)
        all_agree(last, end)
        assert_agree(model(x[T:], state=state), second.mean(0), 1e-13)
        n = len(state)
        with pytest.raises(ValueError, match=f"state holds {n - 1} entries, fewer than the model has layers"):
            model(x[T:], state=state[:-1])
        with pytest.raises(
            ValueError, match=f"state holds {2 * n} entries, but the model has {n} layers that keep one"
        ):
            model(x[T:], state=state * 2)
        with pytest.raises(ValueError, match="state must be the list that this model returned, got Tensor"):
            model(x[T:], state=x)
        with pytest.raises(ValueError, match=r"the state of .* here of shape \[3, .*got .*\[1, "):
            model(x[T:], state=[first_image(v) for v in state])


@every_model
def test_an_image_never_depends_on_the_others_in_its_batch(name, circuit):
    model = build(name, circuit).eval()
    with torch.no_grad():
        x = images(4)
        logits = model(x)
        x[1] *= 1e-3
        x[2] = 0
        changed = model(x)
        assert_agree(changed[[0, 3]], logits[[0, 3]], 1e-10)
        assert_agree(model(x[3:]), logits[3:], 1e-10)
        assert changed.isfinite().all()


@every_model
def test_copies(name, circuit):
    model = build(name, circuit).eval()
    with torch.no_grad():
        logits = model(images())
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(other(images()), logits)
        assert torch.equal(model(images()), logits)
        fresh = eisnn.create_model(name, CLASSES, time_steps=T, circuit=circuit, width=width_of(name, circuit))
        fresh = fresh.double().eval()
        fresh.load_state_dict(model.state_dict())
        assert torch.equal(fresh(images()), logits)


@every_model
def test_each_layer_copies_its_neuron(name, circuit):
    neuron = eisnn.LIF(tau=3.0)
    model = eisnn.create_model(name, circuit=circuit, width=1 / 16, neuron=neuron)
    neurons = [m for m in model.modules() if isinstance(m, eisnn.LIF)]
    spiking = [m for m in model.modules() if getattr(m, "neuron", None) is not None]
    assert len(neurons) == len(spiking) > 0
    assert all(n is not neuron and n.constants.tau == 3 for n in neurons)


@pytest.mark.parametrize("circuit", CIRCUITS)
def test_a_batch_of_one_and_a_single_step(circuit):
    model = build("vgg8", circuit, time_steps=1).eval()
    with torch.no_grad():
        assert model(images(1)).isfinite().all()
        dark = model(torch.zeros(1, 3, 32, 32, dtype=torch.float64))
        assert dark.isfinite().all()


def test_a_dark_image_gives_finite_gradients():
    model = build("resnet18")
    x = images()
    x[1] = 0
    x.requires_grad_()
    model(x).sum().backward()
    assert all(g.isfinite().all() for g in [x.grad, *(p.grad for p in model.parameters())])


def test_batch_size_and_order_of_calls_leave_no_trace():
    model = build("vgg8")
    first = model(images())
    model(images(7, seed=1), return_state=True)
    assert torch.equal(model(images()), first)


# ---------------------------------------------------------------------------------------------- size


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("vgg8", 5_048_692),
        ("vgg11", 11_834_548),
        ("vgg16", 18_856_356),
        ("vgg19", 25_642_212),
        ("resnet18", 14_401_204),
    ],
)
def test_published_parameter_counts(name, count):
    """Less the 22 gains and biases that the authors' readout carries without using them."""
    with torch.device("meta"):
        model = eisnn.create_model(name, num_classes=10)
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.parametrize(
    ("name", "circuits"),
    [("resnet34", 36), ("resnet50", 53), ("resnet101", 104), ("resnet82", 84), ("stack20", 20), ("stack80", 80)],
)
def test_deep_networks_have_the_layers_of_their_name(name, circuits):
    """Layers with weights, the shortcuts of three (four with bottlenecks) stage changes counted, the readout not."""
    with torch.device("meta"):
        model = eisnn.create_model(name, width=0.125)
    assert sum(isinstance(m, EILayer) for m in model.modules()) == circuits


def test_a_bottleneck_network_runs():
    torch.manual_seed(0)
    model = eisnn.create_model("resnet50", width=0.25, time_steps=2)
    x = torch.rand(3, 3, 16, 16)
    eisnn.ei_init_(model, x)
    assert [len(block.second.gain_e) * 4 == len(block.third.gain_e) for block in model.blocks] == [True] * 16
    model(x).logsumexp(1).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_options_reach_the_layers():
    model = eisnn.create_model("vgg8", 7, in_channels=2, time_steps=3, width=0.25, ei_ratio=2)
    first = model.layers[0]
    assert (first.n_e, first.n_i, first.weight_ee.shape[1]) == (16, 8, 2)
    assert model.readout.weight_ee.shape == (7, 128)
    assert model.time_steps == 3


@pytest.mark.parametrize("size", [32, 48, 64])
@pytest.mark.parametrize("name", ["vgg8", "vgg11", "resnet18", "convnet3"])
def test_image_sizes(name, size):
    model = build(name)
    eisnn.ei_init_(model, images(4, size=size), redraw=True)
    with torch.no_grad():
        assert model(images(size=size)).isfinite().all()


def test_rectangular_images():
    model = eisnn.create_model("vgg8", CLASSES, width=1 / 32).double()
    x = torch.rand(4, 3, 32, 70, generator=rng(0), dtype=torch.float64)
    eisnn.ei_init_(model, x)
    assert model(x).shape == (4, CLASSES)


def test_a_map_of_one_pixel_is_left_of_32_and_of_48_pixels():
    """3 -> 1 drops a border."""
    for size in (32, 48):
        model = build("vgg8")
        maps = []
        model.layers[-1].register_forward_hook(lambda m, a, out, maps=maps: maps.append(out.shape))
        model(images(size=size))
        assert maps[0][-2:] in {(2, 2), (3, 3)}


def test_28_pixels_are_too_few_for_five_poolings_but_not_for_a_resnet():
    model = build("vgg8")
    with pytest.raises(ValueError, match=r"at least 32x32 pixels, got 28x28; pad or resize"):
        model(images(size=28))
    assert build("resnet18")(images(size=28)).shape == (B, CLASSES)
    assert build("convnet3")(images(size=28)).shape == (B, CLASSES)


def test_an_mlp_has_the_size_it_was_built_for():
    model = build("mlp", image_size=28)
    assert model(images(size=28)).shape == (B, CLASSES)
    with pytest.raises(ValueError, match=r"built for 28x28 pixels, got 32x32"):
        model(images())


def test_a_sew_block_adds_after_the_neuron():
    """Sums of spikes: integers up to the number of additions."""
    model = build("resnet18")
    block = model.blocks[1]
    assert isinstance(block, SEWBlock)
    assert block.shortcut is None
    assert model.blocks[2].shortcut.weight_ee.shape[2:] == (1, 1)
    seen = {}
    block.first.register_forward_pre_hook(lambda m, a: seen.update(x=a[0]))
    block.second.register_forward_hook(lambda m, a, out: seen.update(y=out))
    model.blocks[2].first.register_forward_pre_hook(lambda m, a: seen.update(out=a[0]))
    model(images())
    assert torch.equal(seen["out"], seen["x"] + seen["y"])
    assert set(seen["out"].unique().tolist()) <= {0.0, 1.0, 2.0, 3.0}
    assert seen["out"].max() > 1


# ---------------------------------------------------------------------------------------------- errors


@every_model
def test_a_sequence_in_the_wrong_order_is_an_error(name, circuit):
    model = build(name, circuit)
    with pytest.raises(ValueError, match=r"time_steps = 4, got shape \[3, 4, 3, 32, 32\] \(is it \[B, T, ...\]\?\)"):
        model(images(B, T))


@pytest.mark.parametrize("value", [-1e-3, float("nan"), float("inf"), float("-inf")])
@every_model
def test_input_must_be_finite_and_that_of_circuits_not_negative(name, circuit, value):
    model = build(name, circuit)
    x = images()
    x[1, 2, 3, 4] = value
    if circuit not in NONNEGATIVE and math.isfinite(value):
        assert model(x).isfinite().all()  # images with their mean subtracted suit a batch-norm network
        return
    what = "an E-I network must be >= 0 and finite" if circuit in NONNEGATIVE else "a network must be finite"
    with pytest.raises(RuntimeError, match=f"the input of {what}"):
        model(x)


def test_images_of_another_type_are_named():
    for circuit in CIRCUITS:
        model = build("convnet3", circuit)
        with pytest.raises(TypeError, match=r"VGG takes a floating-point tensor, got torch\.uint8 .*float\(\) / 255"):
            model(images().byte())
        with pytest.raises(TypeError, match="VGG takes a floating-point tensor, got tuple"):
            model((images(), 0))
        with pytest.raises(ValueError, match=r"must hold at least one image, got shape \[0, 3, 32, 32\]"):
            model(images()[:0])


@pytest.mark.parametrize("circuit", [name for name, circuit in CIRCUITS.items() if circuit.neurons != "own"])
def test_a_network_of_neurons_without_state_says_so(circuit):
    model = build("convnet3", circuit, neuron=nn.ReLU())
    assert model(images()).isfinite().all()
    with pytest.raises(TypeError, match="the neuron ReLU keeps no state"):
        model(images(), return_state=True)


@every_model
def test_shapes_that_cannot_be_are_named(name, circuit):
    model = build(name, circuit)
    with pytest.raises(ValueError, match=r"got shape \[3, 32, 32\]"):
        model(images()[0])
    with pytest.raises(ValueError, match="this model has 3 input channels, got 2"):
        model(images()[:, :2])


@pytest.mark.parametrize("name", SHALLOW)
def test_forward_before_e_i_init_names_it(name):
    with pytest.raises(RuntimeError, match=r"never initialised: call eisnn\.ei_init_"):
        eisnn.create_model(name, width=1 / 16)(images().float())


def test_names_that_nobody_knows():
    assert eisnn.list_models() == list(MODELS)
    with pytest.raises(ValueError, match="unknown model 'vgg9'; known: vgg8, vgg11"):
        eisnn.create_model("vgg9")
    with pytest.raises(TypeError, match="'vgg8' has no option 'widht'; did you mean 'width'"):
        eisnn.create_model("vgg8", widht=0.5)
    with pytest.raises(ValueError, match=r"unknown circuit 'xy'; known: .*bn, .*ei, "):
        eisnn.create_model("vgg8", circuit="xy")


@pytest.mark.parametrize("value", [0, 2.5, "4"])
@pytest.mark.parametrize("wrong", ["num_classes", "in_channels", "time_steps", "image_size"])
def test_counts_that_are_none_are_named(wrong, value):
    with pytest.raises(ValueError, match=f"MLP: {wrong} must be an int >= 1, got {value!r}"):
        eisnn.create_model("mlp", width=1 / 16, **{wrong: value})


@pytest.mark.parametrize("width", [0, -1.0, float("nan"), float("inf"), "half"])
@pytest.mark.parametrize("name", SHALLOW)
def test_a_width_that_is_none_is_named(name, width):
    with pytest.raises(ValueError, match=f"width must be a finite number > 0, got {width!r}"):
        eisnn.create_model(name, width=width)


@pytest.mark.parametrize("circuit", CIRCUITS)
@pytest.mark.parametrize("neuron", ["LIF", eisnn.LIF])
def test_a_neuron_that_is_no_module_is_named(circuit, neuron):
    with pytest.raises(TypeError, match=f"neuron must be a module, .* got {neuron!r}"):
        eisnn.create_model("vgg8", circuit=circuit, neuron=neuron)


def test_options_that_a_circuit_lacks_are_named():
    with pytest.raises(TypeError, match="the circuit 'bn' does not take ei_ratio; it has no options"):
        eisnn.create_model("vgg8", circuit="bn", ei_ratio=4)
    with pytest.raises(TypeError, match="the circuit 'ei' does not take ratio; its options: ei_ratio"):
        make_layers("ei", eisnn.LIF(), ratio=4)
