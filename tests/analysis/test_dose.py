"""Accuracy and activity before, during and after a perturbation."""

import json

import pytest
import torch
from networks import images, small
from torch import nn

from eisnn.analysis import DoseResponse, Perturbation, assess, dose_response, record, responses
from eisnn.analysis.histograms import current_histograms

X = images()


def test_currents_that_nothing_divides_any_more_are_counted():
    """An E neuron that keeps its excitation and loses all synapses of I neurons, in a layer where others divide."""
    model = small()
    assert assess(model, X, torch.arange(6))["layers"]["layers.0"]["undivided"] == 0
    with torch.no_grad():
        model.layers[0].weight_ei[3] = 0
    with record(model, "layers.0", ["I_div", "undivided"]) as recorded:
        model(X)
    found = recorded["layers.0"]["undivided"]
    assert (found[:, :, 3] == 1).all()
    assert found.sum() == found[:, :, 3].numel()
    assert assess(model, X, torch.arange(6))["layers"]["layers.0"]["undivided"] == pytest.approx(1 / 8)
    assert "undivided" not in assess(small(circuit="bn"), X, torch.arange(6))["layers"]["layers.0"]


def test_assess_counts_what_there_is():
    model, labels = small(), torch.arange(6)
    whole, parts = assess(model, X, labels), assess(model, X, labels, batch_size=4)
    assert json.loads(json.dumps(whole)) == whole
    assert assess(model, X.numpy(), labels.numpy()) == whole
    logits = model(X)
    assert whole["accuracy"] == pytest.approx(100 * (logits.argmax(1) == labels).double().mean().item())
    assert whole["loss"] == pytest.approx(nn.functional.cross_entropy(logits, labels).item())
    assert parts["loss"] == pytest.approx(whole["loss"])
    with record(model, what=["I_E", "spikes"]) as recorded:
        model(X)
    for name, entry in whole["layers"].items():
        spikes, i_e = recorded[name]["spikes"], recorded[name]["I_E"]
        assert entry["rate"] == pytest.approx(spikes.mean().item())
        assert entry["silent"] == pytest.approx((spikes.mean((0, 1)) == 0).double().mean().item())
        assert entry["saturated"] == pytest.approx((spikes.mean((0, 1)) == 1).double().mean().item())
        assert entry["current_mean"] == pytest.approx(i_e.mean().item())
        assert entry["current_std"] == pytest.approx(i_e.std().item(), rel=0.1)
    model.train()
    model.layers[1].eval()
    assess(model, X, labels)
    responses(model, X, "layers.0")
    current_histograms(model, X)
    assert [layer.training for layer in (model, *model.layers)] == [True, True, False, True]
    with pytest.raises(ValueError, match=r"got \[6, 3, 8, 8\] and \[5\]"):
        assess(model, X, labels[:5])


def test_what_is_not_asked_for_is_not_measured():
    model, labels = small(), torch.arange(6)
    whole, rates, bare = (assess(model, X, labels, what=what) for what in (None, "spikes", ()))
    assert bare == whole | {"layers": {}}
    kept = {"rate", "silent", "saturated"}
    of_spikes = {name: {k: v for k, v in entry.items() if k in kept} for name, entry in whole["layers"].items()}
    assert rates == whole | {"layers": of_spikes}
    doses = dose_response(model, X, labels, "subtractive", [1.0], what="spikes")
    assert doses.before == rates


def test_dose_response_returns_to_where_it_began():
    model, labels = small(), torch.arange(6)
    found = dose_response(
        model, X, labels, "fraction", [0, 0.5], seeds=[0, 1, 2], base=Perturbation(activity=0.9), batch_size=4
    )
    assert found.before == found.after
    assert json.loads(json.dumps(found.as_dict())) == found.as_dict()
    assert [(e["dose"], e["seed"]) for e in found.during] == [(d, s) for d in (0, 0.5) for s in (0, 1, 2)]
    for entry in found.during[:3]:
        assert entry["accuracy"] == found.before["accuracy"]
        assert entry["loss"] == pytest.approx(found.before["loss"])
    assert len({entry["loss"] for entry in found.during[3:]}) == 3  # each seed weakens other neurons
    doses, means, deviations = found.curve("loss")
    assert doses == [0, 0.5]
    assert means[1] == pytest.approx(sum(entry["loss"] for entry in found.during[3:]) / 3)
    assert deviations[0] == 0 < deviations[1]
    rates = found.curve(lambda entry: entry["layers"]["layers.0"]["rate"])[1]
    assert rates[1] > rates[0] == found.before["layers"]["layers.0"]["rate"]  # less inhibition
    with pytest.raises(ValueError, match="dose must be a field of Perturbation with a strength"):
        dose_response(model, X, labels, "seed", [0])


def test_a_dose_without_a_response_says_why():
    found = dose_response(small(), X, torch.arange(6), "divisive", [1.0, 0.0], layers="layers.1")
    whole, gone = found.during
    assert whole["undefined"] is None
    assert "no divisive inhibition is left in layers.1" in gone["undefined"]
    assert "accuracy" not in gone
    assert found.curve()[0] == [1.0]


def test_the_curve_has_mean_and_standard_deviation_over_seeds():
    def entry(dose, seed, accuracy):
        return {"dose": dose, "seed": seed, "undefined": None, "accuracy": accuracy}

    during = [entry(0.0, 0, 10.0), entry(0.0, 1, 14.0), entry(0.5, 0, 20.0), entry(0.5, 1, 20.0)]
    found = DoseResponse("activity", [0.0, 0.5], [0, 1], {}, during, {}).curve()
    assert found == ([0.0, 0.5], [12.0, 20.0], [pytest.approx(8**0.5), 0.0])
