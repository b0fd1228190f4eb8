"""The neuron that learns its time constant."""

import pytest
import torch
from circuits import rng
from hypothesis import given
from hypothesis import strategies as st

import eisnn
import eisnn.functional as EF
from eisnn.functional import LIFConstants
from eisnn.nn import PLIF
from eisnn.train import TrainConfig


def currents(t=5, seed=0):
    return torch.randn(t, 3, 4, generator=rng(seed), dtype=torch.float64) + 0.5


@given(st.floats(1.01, 20), st.sampled_from(["soft", "hard"]), st.booleans(), st.integers(0, 10**6))
def test_equals_lif_of_the_same_time_constant(tau, reset, detach, seed):
    """Spikes, potential and the gradient of the current, also from a state and for a static current."""
    neuron = PLIF(tau, reset=reset, detach_reset=detach).double()
    x, v = currents(seed=seed).requires_grad_(), currents(1, seed + 1)[0]
    constants = LIFConstants(neuron.tau, reset=reset, detach_reset=detach)
    for current, steps in [(x, None), (x[:1], 4)]:
        ours, expected = neuron(current, steps, v, return_state=True), EF.lif(current, constants, v, steps)
        assert torch.equal(ours[0], expected[0])
        torch.testing.assert_close(ours[1], expected[1])
        grads = [torch.autograd.grad(s.sum() + w.sum(), x)[0] for s, w in (ours, expected)]
        torch.testing.assert_close(*grads)
    assert neuron.tau == pytest.approx(tau, rel=1e-6)


def test_gradient_of_the_time_constant():
    """Below the threshold `V[2] = decay I[1] + I[2]`, so `dV/dw = -I[1] s (1 - s)` with `s = sigmoid(w)`."""
    neuron = PLIF(4.0).double()
    _, v = neuron(torch.tensor([[[0.3]], [[0.2]]], dtype=torch.float64), return_state=True)
    v.sum().backward()
    assert v.item() == pytest.approx(0.75 * 0.3 + 0.2, rel=1e-7)
    assert neuron.w.grad.item() == pytest.approx(-0.3 * 0.25 * 0.75, rel=1e-7)


def test_in_a_network_each_layer_learns_its_own():
    model = eisnn.create_model("convnet3", width=0.25, neuron=PLIF())
    x = torch.rand(4, 3, 8, 8, generator=rng(0))
    eisnn.ei_init_(model, x, generator=rng(1))
    taus = [layer.neuron.w for layer in model.layers]
    assert len({id(w) for w in taus}) == len(taus)
    logits, state = model(x, return_state=True)
    logits.logsumexp(1).sum().backward()
    assert all(w.grad is not None and w.grad != 0 for w in taus)
    assert model(x, state=state).shape == (4, 10)


@pytest.mark.parametrize("tau", [1.0, 0.5, float("inf"), float("nan")])
def test_a_time_constant_out_of_range(tau):
    with pytest.raises(ValueError, match="tau of PLIF"):
        PLIF(tau)


def test_a_state_of_another_shape_is_an_error():
    with pytest.raises(ValueError, match=r"\[3, 4\].*\[3, 5\]"):
        PLIF(3.0).double()(currents(), state=torch.zeros(3, 5, dtype=torch.float64))


def test_its_surrogate_width_can_be_set():
    neuron = PLIF(3.0, alpha=4.0)
    neuron.set_surrogate_width_(2.5)
    assert (neuron.constants.alpha, neuron.constants.tau) == (2.5, pytest.approx(3.0))


def test_weights_of_a_network_without_it_are_whole():
    """What E-I Init fills has nothing of the neuron: with it learned or not, the circuits are initialised."""
    ready, other = eisnn.EILinear(6, 4, neuron=eisnn.LIF()), eisnn.EILinear(6, 4, neuron=PLIF(3.0))
    eisnn.ei_init_(ready, torch.rand(1, 9, 6, generator=rng(0)), generator=rng(1))
    assert not other.initialized
    other.load_state_dict(ready.state_dict(), strict=False)
    assert other.initialized
    spikes = other(torch.rand(2, 3, 6, generator=rng(2)))
    assert set(spikes.unique().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize(
    ("changes", "given"), [({"tau": 1.0}, "tau 1.0 in circuit 'ei'"), ({"circuit": "dann"}, "'dann'")]
)
def test_a_run_that_cannot_learn_it(changes, given):
    with pytest.raises(ValueError, match=f"learn_tau is for circuits of LIF neurons with tau > 1, got .*{given}"):
        TrainConfig(learn_tau=True, **changes)
