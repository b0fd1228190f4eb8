"""A circuit and a data set of one's own, written in files of one's own as CONTRIBUTING says: all that the package does
with its own works with them, without another change."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import eisnn
from eisnn.analysis import record, spiking_layers
from eisnn.data import list_datasets
from eisnn.deploy import cost
from eisnn.interop import evaluate
from eisnn.methods import CIRCUITS
from eisnn.report import report
from eisnn.train import Run, fit, recipe, resume

CIRCUIT = '''
"""Subtractive inhibition of fixed strength: spikes of `W x - k mean(x)`, with W >= 0."""

import torch
from torch import nn

from eisnn.functional import Conv
from eisnn.nn import LinearReadout, Pathway, SpikingLayer
from eisnn.nn.layer import copy_neuron
from eisnn.nn.neurons import run_neuron
from eisnn.nn.registry import Layers, register


class Shunted(SpikingLayer):
    non_negative = True
    dale_parameters = ("weight",)

    def __init__(self, inputs, outputs, kernel=1, stride=1, padding=0, *, neuron, strength):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(outputs, inputs, kernel, kernel) / (inputs * kernel**2) ** 0.5)
        self.neuron, self.strength, self.geometry = copy_neuron(neuron), strength, (stride, padding)

    @property
    def receives(self):
        return 5, self.weight.shape[1]

    def respond(self, x, time_steps, state, return_state):
        stride, padding = self.geometry
        weight = self.weight - self.strength * self.weight.mean((1, 2, 3), keepdim=True)
        current = 4 * nn.functional.conv2d(x.flatten(0, 1), weight, None, stride, padding)
        return run_neuron(self.neuron, current.unflatten(0, x.shape[:2]), time_steps, state, return_state)

    def pathways(self):
        (stride, padding) = self.geometry
        return [Pathway("E->E", self.weight, Conv((stride, stride), (padding, padding)))]


@register("shunted")
def shunted(neuron, time_steps, strength=1.0):
    """Fixed subtractive inhibition."""

    def conv(*sizes, **geometry):
        return Shunted(*sizes, **geometry, neuron=neuron, strength=strength)

    return Layers(conv, conv, LinearReadout)
'''

DATA = '''
"""Two kinds of stripes."""

import numpy as np
import torch

from eisnn.data import Dataset, Images, Source, register


@register("stripes", "a folder with stripes.npy")
def locate(path):
    file = path / "stripes.npy"

    def read():
        pixels, labels = torch.from_numpy(np.load(file)), torch.arange(40) % 2
        return Dataset("stripes", ("down", "across"), Images(pixels[8:], labels[8:]), Images(pixels[:8], labels[:8]))

    return Source(path, (file,), read) if file.is_file() else None
'''


def load_file(path: Path) -> None:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)


@pytest.fixture(scope="module")
def run(own_cache, tmp_path_factory):
    """A training run of both."""
    folder = tmp_path_factory.mktemp("own")
    for name, text in (("own_circuit", CIRCUIT), ("own_data", DATA)):
        (folder / f"{name}.py").write_text(text)
        load_file(folder / f"{name}.py")
    images = np.zeros((40, 3, 16, 16), np.uint8)
    images[::2, :, :, ::2] = 255
    images[1::2, :, ::2] = 255
    np.save(folder / "stripes.npy", images)
    config = recipe("demo").changed(
        circuit="shunted", dataset="stripes", data_path=str(folder), epochs=2, warmup_epochs=0, lr=0.05, batch_size=8,
        width=0.25, augmentation={},
    )  # fmt: skip
    fit(config, folder / "run", quiet=True)
    yield Run(folder / "run")
    CIRCUITS.pop("shunted")


def test_it_trains_and_its_rates_are_real(run):
    last = run.metrics()[-1]
    assert "shunted" in CIRCUITS
    assert "stripes" in list_datasets()
    assert 0.01 < last["test_firing_rate"] < 0.99
    assert last["train_loss"] < run.metrics()[0]["train_loss"]


def test_its_checkpoints_continue_and_are_evaluated(run):
    assert resume(run.folder, quiet=True).accuracy == evaluate(run.folder)["accuracy"]


def trained(run):
    from eisnn.interop import load_trained

    stripes = torch.zeros(3, 3, 16, 16)
    stripes[..., ::2] = 1
    return load_trained(run.folder).model.eval(), stripes


def test_its_signs_are_kept_and_checked(run):
    model, images = trained(run)
    assert eisnn.dale_violations(model) == {}
    with torch.no_grad():
        model.layers[1].weight[0, 0, 0, 0] = -1
    assert eisnn.dale_violations(model) == {"layers.1.weight": 1}
    with pytest.raises(RuntimeError, match="must be >= 0 and finite"):
        model(-images)


def test_it_is_recorded_folded_counted_and_checked(run):
    model, images = trained(run)
    with record(model, what=["I_E", "spikes", "membrane"]) as seen:
        expected = model(images)
    assert set(spiking_layers(model)) == set(seen) == {"layers.0", "layers.1", "layers.2"}
    assert seen["layers.0"]["spikes"].mean() > 0
    assert torch.equal(eisnn.fold(model)(images), expected)
    assert set(eisnn.check(model, images, images=3).activity) == set(seen)
    assert {row.layer for row in cost(model, images).layers} == {*seen, "readout"}


def test_its_report_shows_its_activity(run):
    page = report(run.folder, images=8).read_text()
    assert "Nothing spikes" not in page
    assert "Shunted" in page


def test_a_layer_that_names_no_pathways_has_no_cost_of_zero(run):
    model, images = trained(run)
    del type(model.layers[0]).pathways
    with pytest.raises(NotImplementedError, match=r"Shunted defines no pathways\(\)"):
        cost(model, images)
