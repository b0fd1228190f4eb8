"""Recording currents, and the figure of the demo."""

from itertools import combinations, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

import eisnn
from eisnn import functional as EF
from eisnn.analysis import CURRENTS, record, running_statistics
from eisnn.analysis.figures import progress, spread


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = eisnn.create_model("convnet3", time_steps=3, width=0.25).double()
    eisnn.ei_init_(model, torch.rand(6, 3, 8, 8, dtype=torch.float64))
    return model


def test_recording_changes_nothing_and_leaves_nothing_behind(model):
    x = torch.rand(4, 3, 8, 8, dtype=torch.float64)
    expected = model(x)
    with record(model) as recorded:
        assert torch.equal(model(x), expected)
    assert list(recorded) == ["layers.0", "layers.1", "layers.2"]
    assert all(list(currents) == list(CURRENTS) for currents in recorded.values())
    model(x)
    assert recorded["layers.1"]["I_E"].shape == (3, 4, 16, 4, 4)
    assert recorded["layers.0"]["I_E"].shape == (1, 4, 8, 8, 8)  # a static image: one step stands for all


def test_currents_obey_the_circuit_equations_and_drive_the_spikes(model):
    layer, x = model.layers[1], torch.rand(3, 2, 8, 8, 8, dtype=torch.float64)
    with record(layer) as recorded:
        spikes = layer(x)
    (currents,) = recorded.values()
    i_ee, i_sub, i_div, i_e = (currents[name] for name in CURRENTS)
    gain, bias = layer.gain_e.view(-1, 1, 1), layer.bias.view(-1, 1, 1)
    assert (i_div > 0).all()
    torch.testing.assert_close(i_e, gain * (i_ee - i_sub) / i_div + bias, rtol=1e-12, atol=0)
    assert torch.equal(EF.lif(i_e, layer.neuron.constants)[0], spikes)


def test_several_passes_are_joined_and_the_choice_is_kept(model):
    x = torch.rand(5, 3, 8, 8, dtype=torch.float64)
    with record(model, layers=["layers.2"], what=["I_div"]) as recorded:
        model(x[:2])
        model(x[2:])
    assert list(recorded) == ["layers.2"]
    assert list(recorded["layers.2"]) == ["I_div"]
    with record(model) as whole:
        model(x)
    torch.testing.assert_close(recorded["layers.2"]["I_div"], whole["layers.2"]["I_div"], rtol=1e-12, atol=1e-12)


def test_one_name_is_a_name_and_a_name_twice_is_one(model):
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    for chosen in ({"layers": "layers.0", "what": "I_E"}, {"layers": ["layers.0"] * 2, "what": ["I_E"] * 2}):
        with record(model, **chosen) as recorded:
            model(x)
        assert {name: list(currents) for name, currents in recorded.items()} == {"layers.0": ["I_E"]}
        assert recorded["layers.0"]["I_E"].shape[1] == 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"what": "I_X"}, "layers.0, a EIConv2d, has no I_X; it has: I_EE, I_sub, I_div, I_E"),
        ({"what": ["I_X"]}, "layers.0, a EIConv2d, has no I_X; it has: I_EE, I_sub, I_div, I_E"),
        ({"layers": ["readout"]}, "no hidden layer is called readout; there are: layers.0, layers.1, layers.2"),
    ],
)
def test_unknown_names_are_errors(model, wrong, message):
    with pytest.raises(ValueError, match=message), record(model, **wrong):
        pass


def test_the_recorder_leaves_after_an_error(model):
    with pytest.raises(ZeroDivisionError), record(model) as recorded:
        raise ZeroDivisionError
    model(torch.rand(1, 3, 8, 8, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"nothing was recorded of layers\.0"):
        recorded["layers.0"]


def test_a_block_without_a_pass_says_so(model):
    x = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    for recorder in (record, running_statistics):
        with (
            pytest.raises(RuntimeError, match="no hidden layer of this VGG ran inside"),
            recorder(model),
        ):
            eisnn.fold(model)(x)
    with record(model, what="gradient") as recorded:
        out = model(x)
    with pytest.raises(ValueError, match=r"nothing was recorded of layers\.0: .*gradients come with a backward pass"):
        recorded["layers.0"]
    out.sum().backward()
    assert recorded["layers.0"]["gradient"].shape == (3, 1, 8, 8, 8)


def test_one_epoch_is_one_tick():
    axes = Figure().subplots()
    progress(axes, {"test": {1: 30.0}}, "accuracy (%)")
    low, high = axes.get_xlim()
    assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1]


@given(st.lists(st.floats(0, 100), min_size=1, max_size=6))
def test_labels_keep_their_distance_and_order(heights):
    placed = spread(heights, 5)
    assert all(new >= old for new, old in zip(placed, heights, strict=True))
    ordered = sorted(placed)
    assert all(upper - lower > 5 - 1e-9 for lower, upper in pairwise(ordered))
    for (low, low_placed), (high, high_placed) in combinations(zip(heights, placed, strict=True), 2):
        assert low == high or (low < high) == (low_placed < high_placed)
