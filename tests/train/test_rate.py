"""A target for the firing rate."""

import pytest
import torch
from networks import images as shown
from networks import small
from train_runs import tiny

import eisnn
from eisnn.train import Run, fit
from eisnn.train.rate import RateTarget


def test_the_term_by_hand_and_its_gradient():
    model, x = small(dtype=torch.float32).train(), shown(dtype=torch.float32)
    spikes = []
    for layer in model.layers:
        layer.register_forward_hook(lambda m, args, out: spikes.append(out.detach()))
    target = RateTarget(model, 0.1)
    model(x)
    rates = [float(s.mean()) for s in spikes]
    term = target.take()
    assert max(rates) > 0.1
    assert float(term.detach()) == pytest.approx(sum(max(0, rate / 0.1 - 1) ** 2 for rate in rates), rel=1e-5)
    term.backward()
    assert all(float(layer.bias.grad.sum()) > 0 for layer in model.layers[:1])  # less bias, fewer spikes
    model.eval()(x)
    assert target._terms == []


def test_training_lowers_the_rate(images, tmp_path):
    config = tiny(images, circuit_options=eisnn.nn.PLUS, epochs=6)
    free, held = (
        Run(fit(changed, tmp_path / name, quiet=True).run_dir).metrics()[-1]["test_firing_rate"]
        for name, changed in (("free", config), ("held", config.changed(target_rate=0.06)))
    )
    assert held < 0.8 * free


def test_what_does_not_spike():
    model = eisnn.create_model("convnet3", circuit="dann", width=0.25)
    with pytest.raises(ValueError, match="no layer of this network spikes"):
        RateTarget(model, 0.1)
