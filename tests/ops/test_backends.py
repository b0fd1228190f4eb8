"""A back end enters itself for each operation that it has; the others stay with torch."""

import pytest
import torch
from circuits import rng
from torch import nn

import eisnn
from eisnn import ops
from eisnn.functional import LIFConstants
from eisnn.nn import PLUS
from eisnn.ops.backends import Implementations
from eisnn.ops.lif.torch import NEURONS, Neurons
from eisnn.ops.population.torch import POPULATIONS, Population
from eisnn.ops.weights.torch import ROWS, TorchRows, rows_of

REGISTRIES = {"population": POPULATIONS, "lif": NEURONS, "rows": ROWS}


@pytest.fixture
def entered(monkeypatch):
    """A back end for 64-bit tensors on the CPU, and the operations that it was asked for, in order."""
    asked: list[str] = []
    for registry in REGISTRIES.values():
        monkeypatch.setattr(registry, "made", dict(registry.made))
        monkeypatch.setattr(registry, "serves", {})

    @POPULATIONS.register("mine", lambda currents, _: currents.dtype == torch.float64)
    class MyPopulation(Population):
        def forward(self):
            asked.append("population")
            return super().forward()

    @NEURONS.register("mine", lambda current, _: current.dtype == torch.float64)
    class MyNeurons(Neurons):
        def backward(self, *args):
            asked.append("lif")
            return super().backward(*args)

    @ROWS.register("mine", lambda weight: weight.dtype == torch.float64)
    class MyRows(TorchRows):
        def share(self, *args):
            asked.append("rows")
            return super().share(*args)

    return asked


def test_a_network_runs_on_a_back_end_that_has_entered_itself(entered):
    x = torch.rand(2, 3, 3, 8, 8, generator=rng(0), dtype=torch.float64)
    model = nn.Sequential(eisnn.EIConv2d(3, 8, 3, padding=1, neuron=eisnn.LIF(), options=PLUS)).double()
    eisnn.ei_init_(model, x, generator=rng(1))
    entered.clear()
    spikes = model(x)
    assert entered == ["rows", "rows", "population"]
    spikes.sum().backward()
    assert entered[3:] == []  # the weights are shared out once
    current = torch.rand(4, 2, 3, requires_grad=True, dtype=torch.float64)
    ops.lif(current, LIFConstants())[0].sum().backward()
    assert entered[3:] == ["lif"]


def test_what_it_does_not_serve_is_torch_s(entered):
    maps = torch.rand(2, 3, 4)
    assert (POPULATIONS.name(maps, LIFConstants()), NEURONS.name(maps, LIFConstants())) == ("torch", "torch")
    assert type(rows_of(torch.rand(2, 5), 1, True)) is TorchRows
    ops.lif(maps.requires_grad_(), LIFConstants())[0].sum().backward()
    assert entered == []


def test_the_first_that_serves_is_taken_and_a_name_only_once():
    numbers = Implementations("any")
    numbers.register("even", lambda k: k % 2 == 0)("even")
    numbers.register("small", lambda k: k < 9)("small")
    assert [numbers(k) for k in (4, 5, 10, 11)] == ["even", "small", "even", "any"]
    with pytest.raises(ValueError, match="there is a back end 'even' already; name another"):
        numbers.register("even", bool)


@pytest.mark.parametrize("registry", REGISTRIES)
def test_every_operation_has_the_same_back_ends(registry):
    assert list(REGISTRIES[registry].serves) == ["compiled", "triton"]


def test_a_surrogate_that_only_torch_has_is_served_by_torch(monkeypatch):
    maps, known = torch.rand(2, 3, 4), LIFConstants()
    monkeypatch.setattr(LIFConstants, "surrogate_number", None)
    assert (POPULATIONS.name(maps, known), NEURONS.name(maps, known)) == ("torch", "torch")
