"""Recording: equal to what the equations say, complete, bounded, and invisible to the model."""

import pytest
import torch
from circuits import assert_agree, rng
from networks import SEMISATURATED, images, small
from torch import nn

import eisnn
from eisnn import functional as EF
from eisnn.analysis import CURRENTS, Perturbation, perturb, record, running_statistics, spiking_layers
from eisnn.methods import CIRCUITS

CONSTANTS = EF.LIFConstants()


@pytest.mark.parametrize("options", [None, SEMISATURATED], ids=["paper", "plus"])
def test_membrane_and_spikes_follow_from_the_current(options):
    model = small(options)
    with record(model, what=["I_E", "membrane", "spikes"]) as recorded:
        model(images())
    for values in recorded.values():
        h, s, steps = values["membrane"], values["spikes"], values["I_E"].expand_as(values["spikes"])
        assert h.shape == s.shape == (3, 6, *h.shape[2:])
        assert torch.equal(s, (h >= 1).double())
        v = torch.zeros_like(h[0])
        for t in range(3):
            torch.testing.assert_close(h[t], v / 2 + steps[t], rtol=1e-12, atol=1e-12)
            v = h[t] - s[t]


EVERYTHING = (*CURRENTS, "undivided", "membrane", "spikes", "gradient")


def test_the_gradient_of_the_current_is_that_of_the_unfused_network():
    """`dL/dI_E` of the fused operation cannot be read off the graph; the unfused layer's can."""
    model, x = small(), images()
    with record(model, layers="layers.1", what=["gradient", "spikes"]) as recorded:
        model(x).square().sum().backward()
        model(x).sum().backward()
    layer = model.layers[1]
    below = model.layers[0](x[None], 3)
    below = nn.functional.avg_pool2d(below.flatten(0, 1), 2).unflatten(0, (3, 6))
    found = []
    for loss in (lambda y: y.square().sum(), lambda y: y.sum()):
        i_e = layer.integrated(below).detach().requires_grad_()
        spikes = EF.lif(i_e, CONSTANTS)[0]
        pooled = nn.functional.avg_pool2d(spikes.flatten(0, 1), 2).unflatten(0, (3, 6))
        top = model.layers[2](pooled)
        top = nn.functional.avg_pool2d(top.flatten(0, 1), 2).unflatten(0, (3, 6)).mean((-2, -1))
        found.append(torch.autograd.grad(loss(model.readout(top, 3).mean(0)), i_e)[0])
    assert_agree(recorded["layers.1"]["gradient"], torch.cat(found, 1), 1e-9)
    assert recorded["layers.1"]["gradient"].abs().max() > 0


def test_recording_leaves_gradients_as_they_are():
    model, x = small(), images()
    model(x).sum().backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    with record(model, what=EVERYTHING) as recorded:
        model(x).sum().backward()
    assert all(torch.equal(p.grad, e) for p, e in zip(model.parameters(), expected, strict=True))
    assert set(recorded["layers.2"]) == set(EVERYTHING)


def test_a_batch_norm_twin_has_its_normalized_current():
    model = small(circuit="bn").train()
    x, before = images(), {k: v.clone() for k, v in model.state_dict().items()}
    with record(model, what=["I_E", "membrane", "spikes", "gradient"]) as recorded:
        model(x).sum().backward()
    after, twin = model.state_dict(), small(circuit="bn").train()
    twin(x)
    assert all(torch.equal(value, after[key]) for key, value in twin.state_dict().items())  # counted once
    assert not torch.equal(before["layers.0.norm.running_mean"], after["layers.0.norm.running_mean"])
    values = recorded["layers.0"]
    assert values["I_E"].shape == (1, 6, 8, 8, 8)
    assert values["I_E"].mean((0, 1, 3, 4)).abs().max() < 1e-6  # normalized over the batch
    assert torch.equal(EF.lif(values["I_E"], CONSTANTS, time_steps=3)[0], values["spikes"])
    assert values["gradient"].shape == values["spikes"].shape


@pytest.mark.parametrize("circuit", sorted(name for name, circuit in CIRCUITS.items() if circuit.neurons != "rate"))
def test_every_spiking_network_shows_current_and_spikes(circuit):
    model = small(circuit=circuit).train()  # by the statistics of the batch
    with record(model, what=["I_E", "spikes"]) as recorded:
        model(images())
    for values in recorded.values():
        current, spikes = values["I_E"], values["spikes"]
        assert current.shape[1:] == spikes.shape[1:]
        assert spikes.abs().unique().tolist() == [0, 1]  # BackEISNN has negative ones
        if circuit != "backei":
            assert torch.equal(EF.lif(current, CONSTANTS, time_steps=3)[0], spikes)


def test_networks_without_spikes_have_no_layer_to_record():
    with pytest.raises(ValueError, match=r"no hidden layer is called layers.0; there are: none"):
        record(small(circuit="dann"), "layers.0").__enter__()


def test_a_folded_network_shows_what_it_still_has():
    model, x = small(), images()
    with pytest.raises(RuntimeError, match="not a copy of it"), record(eisnn.fold(model)):
        model(x)
    with record(model) as whole:
        model(x)
    folded_model = eisnn.fold(model)
    with record(folded_model) as folded:
        folded_model(x)
    assert list(folded["layers.1"]) == ["I_div", "I_E"]
    for quantity in ("I_div", "I_E"):
        assert_agree(folded["layers.1"][quantity], whole["layers.1"][quantity], 1e-9)


def test_sampling_bounds_what_is_kept_and_repeats_itself():
    model, x = small(), images(6)
    with record(model, what=["I_E", "spikes", "membrane"]) as whole:
        model(x)
    for generator in (None, rng(3)):
        with record(model, what=["I_E", "spikes", "membrane"], neurons=10, images=5, generator=generator) as part:
            model(x[:4])
            model(x[4:])
            model(x)
        for name, values in part.items():
            chosen = part.neurons[name]
            assert chosen.unique().numel() == 10
            for quantity, value in values.items():
                assert value.shape[1:] == (5, 10)
                assert_agree(value, whole[name][quantity].flatten(2)[:, :5, chosen], 1e-9)
    with record(model, what="I_E", neurons=10) as again, record(model, what="I_E", neurons=10) as same:
        model(x)
    assert torch.equal(again.neurons["layers.0"], same.neurons["layers.0"])
    assert not torch.equal(again.neurons["layers.0"], part.neurons["layers.0"])
    assert again["layers.0"]["I_E"].untyped_storage().nbytes() == 6 * 10 * 8  # no view of the whole map


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_running_statistics_are_those_of_all_values(memory_format):
    model, x = small().to(memory_format=memory_format), images(7)
    with record(model, what=["I_E", "spikes"]) as whole, running_statistics(model, what=["I_E", "spikes"]) as running:
        for part in x.split([1, 4, 2]):
            model(part)
    for name, values in whole.items():
        for quantity, value in values.items():
            found, rows = running[name][quantity], value.flatten(0, 1)
            assert found.count == len(rows)
            torch.testing.assert_close(found.mean, rows.mean(0))
            torch.testing.assert_close(found.variance, rows.var(0))
            assert torch.equal(found.minimum, rows.amin(0))
            assert torch.equal(found.maximum, rows.amax(0))


def test_a_stream_is_recorded_with_its_state():
    model, x = small(), torch.rand(6, 2, 3, 8, 8, generator=rng(2), dtype=torch.float64)
    model.time_steps = 6
    with record(model, what=["membrane", "spikes"]) as whole:
        model(x)
    model.time_steps = 3
    with record(model, what=["membrane", "spikes"]) as parts:
        _, state = model(x[:3], return_state=True)
        model(x[3:], state=state)
    for name, values in whole.items():
        for quantity, value in values.items():
            joined = torch.cat(parts[name][quantity].split(2, 1))
            assert_agree(joined, value, 1e-9)


def test_neurons_of_other_kinds():
    class Threshold(nn.Module):
        def forward(self, current):
            return (current > 0.5).to(current)

    layer = eisnn.EILinear(6, 8, neuron=Threshold()).double()
    silent = eisnn.EILinear(6, 8, neuron=None).double()
    x = torch.rand(3, 4, 6, generator=rng(0), dtype=torch.float64)
    for module in (layer, silent):
        eisnn.ei_init_(module, x, generator=rng(1))
    with record(layer, what=["I_E", "spikes"]) as recorded:
        layer(x)
    (values,) = recorded.values()
    assert torch.equal(values["spikes"], (values["I_E"] > 0.5).double())
    with pytest.raises(
        ValueError, match=r"a EILinear, has no membrane; it has: I_EE, I_sub, I_div, I_E, undivided, spikes"
    ):
        record(layer, what="membrane").__enter__()
    with record(silent, what=["I_E", "gradient"]) as recorded:
        silent(x).square().sum().backward()
    (values,) = recorded.values()
    torch.testing.assert_close(values["gradient"], 2 * values["I_E"])


def test_what_a_layer_lacks_and_wrong_limits_are_errors():
    model = small(circuit="bn")
    with pytest.raises(ValueError, match=r"layers.0, a BNConv2d, has no I_EE, I_div; it has: I_E, membrane, spikes"):
        record(model, what=["I_EE", "I_div", "I_E"]).__enter__()
    for limits in ({"neurons": 0}, {"images": -1}, {"neurons": 1.5}):
        with pytest.raises(ValueError, match="must be an int >= 1"):
            record(model, **limits).__enter__()


@pytest.mark.parametrize("ablation", ["epsilon-1e-2", "no-sign-constraint", "subtractive-only", "floor-0.1"])
def test_ablated_circuits_show_the_currents_they_compute(ablation):
    model, x = small(ablation=ablation), images()
    expected = model(x)
    with record(model, what=["I_EE", "I_sub", "I_div", "I_E", "membrane", "spikes"]) as recorded:
        assert torch.equal(model(x), expected)
    layer, first = model.layers[0], recorded["layers.0"]
    written = (*layer.currents_as_written(x[None]), layer.integrated(x[None]))
    assert all(torch.equal(first[name], current) for name, current in zip(CURRENTS, written, strict=True))
    for values in recorded.values():
        assert torch.equal(values["spikes"], (values["membrane"] >= 1).double())
    with pytest.raises(ValueError, match="has no undivided"):
        record(model, what="undivided").__enter__()


def test_layers_may_be_called_by_keyword():
    layer, x = eisnn.EILinear(5, 4), torch.rand(1, 3, 5)
    eisnn.ei_init_(layer, x)
    with record(layer) as recorded:
        layer(time_steps=2, x=x)
    torch.testing.assert_close(recorded[""]["I_E"], layer.integrated(x).detach())


def test_passes_that_cannot_be_joined_are_errors():
    model = small()
    with record(model, "layers.1", "I_E") as recorded:
        model(images())
        model(images(size=16))
    with pytest.raises(ValueError, match=r"passes of layers\.1 with different steps or maps .* \[3, 6, 16, 4, 4\], "):
        recorded["layers.1"]
    with record(model, "layers.1", "I_E", neurons=5):
        model(images())
        with pytest.raises(ValueError, match=r"layers\.1 has 1024 neurons in this pass and had 256 in the first"):
            model(images(size=16))


def test_hooks_are_gone_afterwards():
    model = small(circuit="bn")
    with pytest.raises(ZeroDivisionError), record(model), running_statistics(model):
        raise ZeroDivisionError
    assert not any(module._forward_hooks for module in model.modules())
    assert list(spiking_layers(model)) == ["layers.0", "layers.1", "layers.2"]


@pytest.mark.parametrize("options", [None, SEMISATURATED], ids=["paper", "plus"])
@pytest.mark.parametrize(
    "change",
    [
        Perturbation(subtractive=0.9),
        Perturbation(divisive=0.5, inject_e=0.3),
        Perturbation(inject_i=0.02),
        Perturbation(hold_division={"layers.1": torch.full((16,), 0.1, dtype=torch.float64)}),
    ],
)
def test_a_perturbed_network_is_recorded_as_it_runs(options, change):
    model, x = small(options), images()
    intact = model(x)
    with perturb(model, change), record(model, what=["I_E", "spikes"]) as recorded:
        assert not torch.equal(model(x), intact)
    for values in recorded.values():
        assert torch.equal(EF.lif(values["I_E"], CONSTANTS, time_steps=3)[0], values["spikes"])
        assert 0.01 < values["spikes"].mean() < 0.98


def test_a_layer_that_is_recorded_cannot_be_swapped():
    model = small()
    with (
        pytest.raises(RuntimeError, match=r"layers.0 is being recorded: perturb first"),
        record(model),
        perturb(model, Perturbation()),
    ):
        pass


def test_layers_that_share_a_neuron_are_told_so():
    model = small()
    model.layers[1].neuron = model.layers[2].neuron
    with record(model, what="I_E"):  # a circuit shows itself, not its neuron
        model(images())
    twin = small(circuit="bn")
    twin.layers[1].neuron = twin.layers[2].neuron
    with pytest.raises(ValueError, match=r"layers\.1 and layers\.2 share one neuron"), record(twin):
        twin(images())
