"""Spiking transformers: equal in form to the published ones, and at home in everything that asks layers."""

import pytest
import torch
from circuits import assert_agree, rng
from torch import Tensor, nn

import eisnn
from eisnn.analysis import Perturbation, perturb, record
from eisnn.deploy.cost import cost
from eisnn.deploy.graph import exported
from eisnn.methods import make_layers
from eisnn.models import TRANSFORMERS, SpikingTransformer
from eisnn.models.transformer import Stage
from eisnn.nn import LIF, layers_of

T = 4
PUBLISHED = LIF(theta=2.0, reset="hard")  # SpikingJelly's, which halves its input, in units of eq. (1)
TINY = (Stage((8, "P", 16), (16,), 1, 2, "token"), Stage((), (32, "P"), 2, 4))


def images(seed: int = 0, size: int = 32) -> Tensor:
    return torch.rand(5, 3, size, size, generator=rng(seed), dtype=torch.float64)


def build(circuit: str = "ei", attention: str = "divisive", **options) -> SpikingTransformer:
    torch.manual_seed(0)
    layers = make_layers(circuit, options.pop("neuron", LIF()), T, **options)
    model = SpikingTransformer(TINY, layers, 3, 5, T, attention=attention).double()
    eisnn.ei_init_(model, images(1), generator=rng(0))
    return model


# ---------------------------------------------------------------------------------------------- the published form


def theirs(kind: str, **options) -> nn.Module:
    """SpikingJelly's network in evaluation, with normalizations of all kinds."""
    if kind == "spikformer":
        from spikingjelly.activation_based.model.spikformer import Spikformer

        model = Spikformer(T=T, img_size_h=32, img_size_w=32, patch_size=4, num_classes=5, **options)
    else:
        from spikingjelly.activation_based.model.qkformer import QKFormer

        model = QKFormer(T=T, num_classes=5, **options)
    generator = rng(0)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 1, 3, generator=generator)
            nn.init.uniform_(module.bias, 0.2, 1.2, generator=generator)
            module.momentum = None  # running statistics: those of the next batch
        elif isinstance(module, nn.Conv1d | nn.Conv2d) and module.bias is not None:
            nn.init.zeros_(module.bias)  # the normalization behind it has one
    model.double()(images(1))
    reset(model)
    return model.eval()


def pool_spikes(model: nn.Module) -> nn.Module:
    """Move each pooling of currents behind the neurons after it."""
    for module in list(model.modules()):
        pooled = next((child for child in module.modules() if isinstance(child, nn.MaxPool2d)), None)
        if type(module).__name__ == "SpikformerConv2dBNLIF" and pooled is not None:
            block = module.conv_bn.block
            del block[2]
            module.neuron = nn.Sequential(module.neuron, type(block)(pooled))
        for pool, neuron in [("pool1", "lif1"), ("pool2", "lif2"), ("pool", "lif1")]:
            if hasattr(module, pool) and hasattr(module, neuron):
                setattr(module, neuron, nn.Sequential(getattr(module, neuron), getattr(module, pool)))
                setattr(module, pool, nn.Identity())
    return model


def projections(model: nn.Module) -> list[nn.Module]:
    """Projections and normalizations in the order in which they run."""
    found: list[nn.Module] = []
    kinds = nn.Conv1d | nn.Conv2d | nn.Linear | nn.modules.batchnorm._BatchNorm
    handles = [
        m.register_forward_hook(lambda module, *_: found.append(module))
        for m in model.modules()
        if isinstance(m, kinds)
    ]
    model(images())
    for handle in handles:
        handle.remove()
    return found


def ours(kind: str, their: nn.Module, stages: tuple[Stage, ...]) -> SpikingTransformer:
    """The twin with the weights of theirs."""
    model = SpikingTransformer(stages, make_layers("bn", PUBLISHED, T), 3, 5, T).double().eval()
    for target, source in zip(projections(model), projections(their), strict=True):
        assert isinstance(target, nn.modules.batchnorm._BatchNorm) == hasattr(source, "running_mean")
        for name in ("weight", "running_mean", "running_var") + ("bias",) * (getattr(target, "bias", None) is not None):
            if hasattr(target, name):
                value = getattr(target, name)
                value.data.copy_(getattr(source, name).data.view_as(value))
    return model


FORMS = {
    "spikformer": (
        {"embed_dims": 32, "num_heads": 4, "depths": 2},
        (Stage((4, 8, 16, "P", 32, "P"), (32,), 2, 4),),
    ),
    "qkformer": (  # of ImageNet
        {"embed_dims": 32, "num_heads": (2, 2, 1), "depths": (1, 1, 2)},
        (
            Stage((4, "P"), (8, "P", 8), 1, 2, "token"),
            Stage((), (16, "P", 16), 1, 2, "token"),
            Stage((), (32, "P", 32), 2, 1),
        ),
    ),
}


@pytest.mark.parametrize("kind", FORMS)
def test_the_twin_is_the_published_network(kind):
    """Weights of theirs give its logits; QKFormer pools currents there and spikes here."""
    options, stages = FORMS[kind]
    their = pool_spikes(theirs(kind, **options))
    model = ours(kind, their, stages)
    with torch.no_grad(), record(model, what="spikes") as seen:
        logits = model(images())
    rates = {name: float(layer["spikes"].mean()) for name, layer in seen.items()}
    wrong = {name: rate for name, rate in rates.items() if not 0.01 < rate < 0.99}
    assert wrong == {}
    reset(their)
    expected = their(images())
    assert_agree(logits, expected.mean(0) if expected.ndim == 3 else expected, 1e-12)
    assert expected.std() > 1e-3


@pytest.mark.parametrize("kind", FORMS)
def test_at_one_step_the_place_of_the_pooling_does_not_matter(kind):
    options, stages = FORMS[kind]
    their = theirs(kind, **options)
    model = ours(kind, their, stages)
    reset(their)
    their.T = model.time_steps = 1
    expected = their(images())
    with torch.no_grad():
        assert_agree(model(images()), expected.mean(0) if expected.ndim == 3 else expected, 1e-12)


def reset(model: nn.Module) -> None:
    from spikingjelly.activation_based import functional

    functional.reset_net(model)


@pytest.mark.parametrize(
    ("name", "published", "count"),
    [("spikformer", 9.32e6, 9_310_906), ("spikformer-2-256", 2.57e6, 2_563_594), ("qkformer", 6.74e6, 6_734_548)],
)
def test_parameter_counts_of_the_twin_beside_the_published(name, published, count):
    """The published networks have biases before some of their normalizations as well."""
    with torch.device("meta"):
        classes = 100 if name == "qkformer" else 10  # of which the published number is
        model = eisnn.create_model(name, classes, in_channels=2 if name == "spikformer-2-256" else 3, circuit="bn")
    assert sum(p.numel() for p in model.parameters()) == count
    assert count == pytest.approx(published, rel=0.003)


# ---------------------------------------------------------------------------------------------- at home everywhere


PLUS = {"options": eisnn.PLUS}
E_I = pytest.mark.parametrize("options", [{}, PLUS], ids=["paper", "plus"])


@E_I
@pytest.mark.parametrize("attention", ["gain", "divisive"])
def test_dale_s_law_holds_while_it_learns(options, attention):
    model = build(attention=attention, **options)
    optimizer = eisnn.plus_optimizer(model, lr=0.05)
    eisnn.enforce_dale(optimizer, model)
    losses, labels = [], torch.arange(5)
    for _ in range(12):
        loss = nn.functional.cross_entropy(model(images()), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert eisnn.dale_violations(model) == {}
    assert all((layer.gain >= 0).all() for layer in attentions(model))
    assert losses[-1] < (0.8 if options else 1) * losses[0]


def attentions(model: nn.Module) -> list[nn.Module]:
    return [layer for name, layer in layers_of(model).items() if name.endswith("attention")]


def test_layers_are_told_of_in_the_order_in_which_they_run():
    model, ran = build(), []
    for name, layer in layers_of(model).items():
        layer.register_forward_pre_hook(lambda module, args, name=name: ran.append(name))
    model(images())
    assert ran == list(layers_of(model))


@E_I
def test_every_activity_starts_alive_and_attention_at_its_rate(options):
    model = build(**options)
    with record(model, what=["I_E", "spikes"]) as seen:
        model(images(1))
    for name, layer in seen.items():
        assert 0.01 < float(layer["spikes"].mean()) < 0.7, name
    keys = seen["stages.0.blocks.0.projection"]["spikes"]
    assert seen["stages.0.blocks.0.attention"]["spikes"].shape == (*keys.shape[:2], 2, *keys.shape[3:])  # gates
    values = seen["stages.1.blocks.1.projection"]["spikes"]
    assert float(seen["stages.1.blocks.1.attention"]["spikes"].mean()) == pytest.approx(float(values.mean()), abs=0.01)


@pytest.mark.parametrize(("circuit", "attention"), [("ei", "divisive"), ("bn", "fixed")])
def test_folded_exported_and_saved_it_answers_the_same(circuit, attention):
    model = build(circuit, attention)
    with torch.no_grad():
        model(images())  # for running statistics
        model.eval()
        expected = model(images())
        assert_agree(eisnn.fold(model)(images()), expected, 1e-9)
        assert_agree(exported(model, images()).module()(images()), expected, 1e-9)
        again = build(circuit, attention).eval()
        for parameter in again.parameters():
            parameter.zero_()
        again.load_state_dict(model.state_dict())
        assert torch.equal(again(images()), expected)


def test_perturbation_and_check_take_it_as_it_is():
    model = build(**PLUS).eval()
    assert eisnn.check(model, images()).ok
    with torch.no_grad():
        before = model(images())
        with perturb(model, Perturbation(divisive=0.5)):
            assert not torch.equal(model(images()), before)
        assert torch.equal(model(images()), before)


def test_what_it_costs_counts_products_of_spikes():
    model = build(**PLUS)
    counted = {layer.layer: layer for layer in cost(model, images()).layers}
    attention = counted["stages.1.blocks.0.attention"]
    tokens, d, heads = 8 * 8, 8, 4
    assert [p.pathway for p in attention.pathways] == ["K^T V", "Q (K^T V)", "A 1"]
    assert attention.pathways[0].dense == T * heads * tokens * d * d
    assert all(0 < p.effective < p.dense and p.accumulates and p.synapses == 0 for p in attention.pathways)
    assert (attention.neurons, attention.divisions) == (32 * tokens, T * 32 * tokens)
    gate = counted["stages.0.blocks.0.attention"]
    assert gate.neurons == 2 * 16 * 16


def test_channels_stay_a_multiple_of_the_heads():
    for name, width in [("spikformer", 1 / 20), ("qkformer", 1 / 7)]:
        model = eisnn.create_model(name, width=width)
        assert all(layer.channels % layer.heads == 0 for layer in attentions(model))
    assert len(TRANSFORMERS["qkformer"]) == 3


def test_the_kind_of_attention_is_an_option_of_transformers():
    with pytest.raises(ValueError, match="kind must be one of fixed, gain, divisive, got 'soft'"):
        eisnn.create_model("spikformer-2-64", attention="soft")
    from eisnn.models.config import NetworkConfig, build_model

    with pytest.raises(ValueError, match=r"attention is for spikformer, .* got model 'vgg8'"):
        NetworkConfig(attention="gain")
    network = NetworkConfig(model="spikformer-2-64", attention="gain", width=0.5)
    model = build_model(network, num_classes=10, in_channels=3, image_size=16)
    assert {layer.kind for layer in attentions(model)} == {"gain"}
