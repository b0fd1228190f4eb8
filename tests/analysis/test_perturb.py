"""Perturbations: equal to the equations with other weights, undone afterwards, and honest where nothing is defined."""

from math import nan

import numpy as np
import pytest
import torch
from circuits import assert_agree
from hypothesis import given
from hypothesis import strategies as st
from networks import SEMISATURATED, images, small
from torch import nn

import eisnn
from eisnn import functional as EF
from eisnn.analysis import (
    Perturbation,
    UndefinedDivision,
    dose_response,
    mean_division,
    perturb,
    record,
    running_statistics,
)
from eisnn.analysis.perturb import effective_gain, perturbed_layer
from eisnn.nn import CircuitOptions

OPTIONS = [None, CircuitOptions(conserved=True), CircuitOptions(conserved=True, tapwise=True), SEMISATURATED]
X = images()


def current(layer, synapses, x, s_i=0.0, i_e=0.0):
    """`I_E` as written, eqs. (9)-(14), with a constant added to the I neurons' output and to `I_E`."""
    ie = layer.connection.feedforward(x, synapses.weight_ie) + s_i
    i_div = EF.lateral(ie, synapses.divisive)
    if synapses.sigma is not None:
        i_div = i_div + EF.per_neuron(synapses.sigma, i_div)
    n = layer.connection.feedforward(x, synapses.weight_ee) - EF.lateral(ie, synapses.subtractive)
    return EF.integrate(n, i_div, layer.gain_e, layer.bias) + i_e


def first_current(model, change):
    with perturb(model, change, "layers.0"), record(model, "layers.0", "I_E") as recorded:
        model(X)
    return recorded["layers.0"]["I_E"]


@pytest.mark.parametrize("options", OPTIONS)
def test_no_change_changes_nothing(options):
    model = small(options)
    expected, state = model(X), model.state_dict()
    with perturb(model, Perturbation()):
        assert_agree(model(X), expected, 1e-12)
        assert not any(isinstance(m, eisnn.EIConv2d) for m in model.modules())
    assert torch.equal(model(X), expected)
    assert list(model.state_dict()) == list(state)


@pytest.mark.parametrize("options", OPTIONS)
@given(st.floats(0, 2), st.floats(0.1, 2), st.floats(-1, 1), st.floats(0, 1))
def test_scaling_and_injection_are_what_the_equations_say(options, subtractive, divisive, inject_e, inject_i):
    model = small(options)
    layer = model.layers[0]
    s = layer.synapses()
    scaled = s._replace(subtractive=subtractive * s.subtractive, divisive=divisive * s.divisive)
    change = Perturbation(subtractive=subtractive, divisive=divisive, inject_e=inject_e, inject_i=inject_i)
    expected = current(layer, scaled, X[None], inject_i, inject_e)
    assert_agree(first_current(model, change), expected, 1e-10)
    layer.neuron = None  # so that the folded circuit shows its current
    assert_agree(perturbed_layer(layer, change)(X[None]), expected, 1e-10)


@pytest.mark.parametrize("options", OPTIONS)
def test_a_lesion_mask_folds_like_the_circuit(options):
    """Silencing I neurons leaves the circuit `W_EE - W_EI diag(m) W_IE`, `M = W_EI diag(m g_I)`, method 5."""
    model = small(options)
    layer = model.layers[1]
    change = Perturbation(activity=0.0, fraction=0.5, seed=3)
    changed = perturbed_layer(layer, change, "layers.1")
    s = layer.synapses()
    silenced = (changed.synapses().subtractive == 0).all(0)
    assert silenced.sum() == 2
    mask = (~silenced).double()
    kernel = s.weight_ee - torch.einsum("ij,j...->i...", s.subtractive * mask, s.weight_ie)
    assert_agree(changed.kernel[:16], kernel, 1e-12)
    assert_agree(changed.weight[:, :4], s.divisive * mask, 1e-12)


def test_neurons_are_chosen_by_seed_and_layer_and_nest():
    model = small(width=1.0)

    def silenced(fraction, seed, name="layers.0"):
        layer = dict(model.named_modules())[name]
        changed = perturbed_layer(layer, Perturbation(activity=0.0, fraction=fraction, seed=seed), name)
        return set(torch.nonzero((changed.synapses().divisive == 0).all(0)).flatten().tolist())

    assert [len(silenced(f, 0)) for f in (0, 0.25, 0.5, 0.9)] == [0, 2, 4, 7]
    assert silenced(0.25, 0) < silenced(0.5, 0) < silenced(0.9, 0)
    assert len({frozenset(silenced(0.5, seed)) for seed in range(5)}) > 1
    assert silenced(0.5, 0) == silenced(0.5, 0)
    assert len({frozenset(n % 8 for n in silenced(0.5, seed, "layers.1")) for seed in range(5)}) > 1


@pytest.mark.parametrize("chosen", [[2, 0], np.array([2, 0]), torch.tensor([2, 0]), [True, False, True, False]])
def test_chosen_neurons_are_silenced_and_no_others(chosen):
    model = small()
    change = Perturbation(activity=0.0, neurons={"layers.1": chosen})
    with perturb(model, change, ["layers.0", "layers.1"]):
        untouched, changed = (model.layers[k].synapses() for k in (0, 1))
    assert torch.equal((changed.divisive == 0).all(0), torch.tensor([True, False, True, False]))
    assert torch.equal((changed.subtractive == 0).all(0), torch.tensor([True, False, True, False]))
    assert torch.equal(untouched.divisive, model.layers[0].synapses().divisive)
    driven = perturbed_layer(model.layers[1], Perturbation(inject_i=0.3, neurons={"layers.1": chosen}), "layers.1")
    assert driven.inject_i.tolist() == [0.3, 0, 0.3, 0]


def test_no_chosen_neuron_changes_nothing():
    model = small()
    with perturb(model, Perturbation(activity=0.0, neurons={"layers.1": []})):
        assert_agree(model(X), small()(X), 1e-10)


@pytest.mark.parametrize("wrong", [[4], [-1], [0.5], [True, False], [[0, 1]], [nan]])
def test_neurons_that_do_not_exist_are_an_error(wrong):
    message = r"neurons of layers.1 must be indices of its 4 I neurons, 0 to 3, or a boolean mask \[4\], got"
    with pytest.raises(ValueError, match=message), perturb(small(), Perturbation(neurons={"layers.1": wrong})):
        pass


def test_neurons_are_of_perturbed_layers_and_not_a_fraction_too():
    with pytest.raises(ValueError, match=r"neurons names layers.9; perturbed are layers.0, layers.1, layers.2"):
        perturb(small(), Perturbation(neurons={"layers.9": [0]})).__enter__()
    with pytest.raises(ValueError, match="give neurons or a fraction of them, got both"):
        Perturbation(neurons={"layers.1": [0]}, fraction=0.5)


@pytest.mark.parametrize(("field", "pathway"), [("lesion_ee", "weight_ee"), ("lesion_ie", "weight_ie"),
                                                ("lesion_ei", "subtractive")])  # fmt: skip
def test_lesions_remove_their_part_of_one_pathway(field, pathway):
    layer = small(width=1.0).layers[1]
    before, after = layer.synapses(), perturbed_layer(layer, Perturbation(**{field: 0.3})).synapses()
    lost = (getattr(after, pathway) == 0).double().mean()
    assert 0.2 < lost < 0.4
    untouched = {"weight_ee", "weight_ie", "subtractive", "divisive"} - {pathway}
    if field == "lesion_ei":
        untouched -= {"divisive"}
        assert torch.equal(after.divisive == 0, after.subtractive == 0)
    for name in untouched:
        assert torch.equal(getattr(after, name), getattr(before, name))
    kept = getattr(after, pathway) != 0
    assert torch.equal(getattr(after, pathway)[kept], getattr(before, pathway)[kept])


def test_the_effective_gain_is_the_parameter_and_can_be_clamped():
    layer = small().layers[0]
    with torch.no_grad():
        layer.gain_i.copy_(torch.tensor([0.3, 0.7]))
    torch.testing.assert_close(effective_gain(layer.synapses()), layer.gain_i)
    clamped = perturbed_layer(layer, Perturbation(gain_i=0.5)).synapses()
    torch.testing.assert_close(effective_gain(clamped), torch.full((2,), 0.5, dtype=torch.float64))
    assert torch.equal(clamped.subtractive, layer.synapses().subtractive)


def test_a_gain_of_zero_can_be_clamped_like_any_other():
    model, twin, x = small(), small(), images()
    with torch.no_grad():
        for layer, other in zip(model.layers, twin.layers, strict=True):
            layer.gain_i[0] = 0
            other.gain_i.fill_(0.5)
    intact = model(x)
    with perturb(model, Perturbation(gain_i=0.5)):
        torch.testing.assert_close(model(x), twin(x))
    assert not torch.allclose(intact, twin(x))


def test_perturbations_nest():
    model = small()
    half, third = Perturbation(subtractive=0.5, inject_i=0.1), Perturbation(subtractive=0.6, inject_e=0.2, inject_i=0.2)
    with perturb(model, half), perturb(model, third):
        both = model(X)
    with perturb(model, Perturbation(subtractive=0.3, inject_e=0.2, inject_i=0.3)):
        assert_agree(both, model(X), 1e-12)
    assert isinstance(model.layers[0], eisnn.EIConv2d)


def test_the_model_is_whole_after_an_error_and_a_shared_layer_stays_one():
    layer = eisnn.EIConv2d(3, 3, 3, padding=1).double()
    model = nn.ModuleDict({"one": layer, "other": layer})
    eisnn.ei_init_(layer, X[None])
    with perturb(model, Perturbation()):
        assert model["one"] is model["other"]
        assert model["one"] is not layer
    with pytest.raises(ZeroDivisionError), perturb(model, Perturbation()):
        raise ZeroDivisionError
    assert model["one"] is model["other"] is layer


def test_without_divisive_inhibition_nothing_is_invented():
    paper, plus = small(), small(SEMISATURATED)
    for change in (
        Perturbation(divisive=0.0),
        Perturbation(activity=0.0),
        Perturbation(gain_i=0.0),
        Perturbation(lesion_ie=1.0),
        Perturbation(lesion_ei=1.0),
    ):
        with pytest.raises(UndefinedDivision, match=r"no divisive inhibition is left in layers.0"):
            perturb(paper, change).__enter__()
        assert isinstance(paper.layers[0], eisnn.EIConv2d)
        with perturb(plus, change):  # sigma alone divides
            assert plus(X).isfinite().all()
    s = plus.layers[0].synapses()
    expected = current(plus.layers[0], s._replace(divisive=torch.zeros_like(s.divisive)), X[None])
    assert_agree(first_current(plus, Perturbation(divisive=0.0)), expected, 1e-12)


def test_division_held_at_its_mean_no_longer_depends_on_the_activity():
    model = small()
    level = mean_division(model, X)
    with running_statistics(model, what="I_div") as found:
        model(X)
    torch.testing.assert_close(level["layers.1"], found["layers.1"]["I_div"].mean.mean((1, 2)))
    assert {name: tuple(value.shape) for name, value in level.items()} == {
        "layers.0": (8,), "layers.1": (16,), "layers.2": (32,),
    }  # fmt: skip
    change = Perturbation(hold_division={"layers.0": level["layers.0"]})
    with perturb(model, change), record(model, "layers.0") as recorded:
        model(X)
    values, layer = recorded["layers.0"], model.layers[0]
    assert torch.equal(values["I_div"], level["layers.0"].view(-1, 1, 1).expand_as(values["I_div"]))
    n = (values["I_EE"] - values["I_sub"]) / level["layers.0"].view(-1, 1, 1)
    assert_agree(values["I_E"], n * layer.gain_e.view(-1, 1, 1) + layer.bias.view(-1, 1, 1), 1e-12)


@pytest.mark.parametrize("options", OPTIONS)
def test_layers_without_positions_are_perturbed_like_others(options):
    model = eisnn.create_model("mlp", time_steps=3, width=0.1, image_size=8, circuit_options=options).double()
    eisnn.ei_init_(model, X)
    held = Perturbation(hold_division=mean_division(model, X))
    for change in (Perturbation(), Perturbation(inject_i=0.1, inject_e=0.2, divisive=0.5), held):
        with perturb(model, change), record(model, what=["I_E", "I_div", "spikes"]) as recorded:
            model(X)
        for values in recorded.values():
            found = EF.lif(values["I_E"], EF.LIFConstants(), time_steps=3)[0]
            assert torch.equal(found, values["spikes"])
    first = recorded["layers.0"]["I_div"]
    assert torch.equal(first, first[:, :1].expand_as(first))
    assert dose_response(model, X, torch.arange(6), "divisive", [1.0, 0.5]).curve()[0] == [1.0, 0.5]


def test_a_neuron_that_nothing_divides_gets_the_smallest_mean_division():
    model = small()
    with torch.no_grad():
        model.layers[0].weight_ei[3] = 0
        model.layers[1].weight_ei.zero_()
    level = mean_division(model, X, "layers.0")["layers.0"]
    others = [k for k in range(8) if k != 3]
    assert level[3] == level[others].min() > 0
    with pytest.raises(UndefinedDivision, match=r"divisive current of layers.1 is zero everywhere"):
        mean_division(model, X)


def test_silencing_disinhibits_and_has_no_paradoxical_effect():
    """Inhibition is feed-forward: exciting I neurons raises their own output, in every layer taken by itself."""
    model = small()
    with perturb(model, Perturbation(inject_i=0.5)), record(model, "layers.0") as excited:
        model(X)
    with record(model, "layers.0") as intact:
        model(X)
    for inhibition in ("I_sub", "I_div"):
        assert (excited["layers.0"][inhibition] > intact["layers.0"][inhibition]).all()
    assert torch.equal(excited["layers.0"]["I_EE"], intact["layers.0"]["I_EE"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fraction": 1.5}, r"fraction must be in \[0, 1\], got 1.5"),
        ({"lesion_ee": -0.1}, r"lesion_ee must be in \[0, 1\], got -0.1"),
        ({"subtractive": -1.0}, "subtractive must be finite and >= 0, got -1.0"),
        ({"divisive": float("nan")}, "divisive must be finite and >= 0, got nan"),
        ({"inject_e": float("inf")}, "inject_e must be a finite number, got inf"),
        ({"seed": -1}, "seed must be an int >= 0, got -1"),
        ({"hold_division": {"layers.0": torch.zeros(8)}}, "hold_division of layers.0 must be > 0 everywhere, got 0.0"),
    ],
)
def test_strengths_out_of_range_are_errors(fields, message):
    with pytest.raises(ValueError, match=message):
        Perturbation(**fields)


def test_what_cannot_be_perturbed_is_an_error():
    model = small()
    ones = torch.ones(3)
    for wrong, change, layers, message in [
        (eisnn.fold(model), Perturbation(), None, "has no E-I layer to perturb"),
        (small(circuit="bn"), Perturbation(), "layers.0", "layers.0 is no E-I layer|has no E-I layer"),
        (small(ablation="epsilon-1e-3"), Perturbation(), None, "has no E-I layer to perturb"),
        (model, Perturbation(), "readout", "no hidden layer is called readout"),
        (model.layers[0], Perturbation(), None, "use perturbed_layer"),
        (model, Perturbation(hold_division={"layers.0": ones}), None, r"must have shape \[8\], got \[3\]"),
        (model, Perturbation(hold_division={"stem": ones}), None, "hold_division names stem"),
    ]:
        with pytest.raises(ValueError, match=message):
            perturb(wrong, change, layers).__enter__()
    with pytest.raises(RuntimeError, match="never initialised"):
        perturb(eisnn.create_model("convnet3"), Perturbation()).__enter__()
