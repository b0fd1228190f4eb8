"""The stability of cortical layers where they work."""

import pytest
import torch
from circuits import rng

import eisnn
from eisnn.analysis import record, stability
from eisnn.cortex import (
    CorticalConv2d,
    CorticalLinear,
    CorticalOptions,
    OperatingPoint,
    Stimulus,
    largest_eigenvalue,
    stimulate,
)

OPTIONS = CorticalOptions(dt=2.0, delay=4.0, recurrence=0.2)


@pytest.fixture(scope="module")
def network():
    """Two layers, and their input."""
    x = (torch.rand(100, 4, 60, generator=rng(0)) < 0.04).float()
    model = torch.nn.Sequential(
        CorticalLinear(60, 40, options=OPTIONS), CorticalLinear(40, 20, options=CorticalOptions(dt=2.0, recurrence=0.0))
    )
    eisnn.ei_init_(model, x, generator=rng(1))
    return model, x


def test_the_eigenvalue_is_that_of_the_layer_linearised_where_it_works(network):
    model, x = network
    found = stability(model, x, onset=40.0)
    layer = model[0]
    with torch.no_grad(), record(model, "0", ["I_E", "I_div"]) as recorded:
        model(x)
    i_e, i_div = (recorded["0"][name][20:] for name in ("I_E", "I_div"))
    up, down = (float(eisnn.functional.lif(i_e + by, layer.neuron.constants)[0].mean()) for by in (0.02, -0.02))
    point = OperatingPoint(layer.gain_e / i_div.mean((0, 1)), (up - down) / 0.04)
    currents = layer.feedforward(x, layer.weights())
    expected = largest_eigenvalue(currents, layer.weights(), layer.constants, point)
    assert found == {"0": pytest.approx(expected, rel=1e-5), "1": 0.0}
    assert 0.5 < expected < 1


def test_a_stimulated_layer_is_refused(network):
    model, x = network
    with stimulate(model, {"0": {"E": Stimulus(factor=0.0)}}), pytest.raises(ValueError, match="'0' is stimulated"):
        stability(model, x)


def test_recurrence_brings_a_layer_nearer_to_instability_and_saturation_away_from_it(network):
    model, x = network
    weight, eigenvalues, rates = model[0].recurrent_ee, [], []
    kept = weight.detach().clone()
    with torch.no_grad():
        for factor in (1.0, 1.5, 2.0, 4.0):
            weight.copy_(factor * kept)
            eigenvalues.append(stability(model, x, "0")["0"])
            rates.append(float(model[0](x).mean()))
        weight.copy_(kept)
    assert eigenvalues[0] + 0.02 < eigenvalues[1] < eigenvalues[2] - 0.02
    assert eigenvalues[3] < eigenvalues[1]
    assert rates[0] < 0.1
    assert rates[3] > 0.9


def test_layers_with_maps():
    layer = CorticalConv2d(2, 8, 3, padding=1, options=OPTIONS)
    x = (torch.rand(60, 2, 2, 6, 5, generator=rng(0)) < 0.1).float()
    eisnn.ei_init_(layer, x, generator=rng(1))
    assert 0 < stability(layer, x)[""] < 1


def test_what_has_no_stability_is_named(network):
    model, x = network
    with pytest.raises(ValueError, match="no hidden layer is called 7"):
        stability(model, x, "7")
    plain = eisnn.EILinear(60, 8)
    eisnn.ei_init_(plain, x, generator=rng(1))
    for layers in (None, ""):
        with pytest.raises(ValueError, match="stability is that of cortical layers; there are: none"):
            stability(plain, x, layers)
    for onset in (200.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="onset must be >= 0 and below the 200 ms of the sequence, got"):
            stability(model, x, onset=onset)
