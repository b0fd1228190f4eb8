"""E-I Init of cortical circuits: balance by rows, rates that do not depend on the time step, stability."""

import pytest
import torch
from circuits import rng

import eisnn
from eisnn.analysis import record
from eisnn.cortex import CorticalConv2d, CorticalLinear, CorticalOptions
from eisnn.init.recurrent import onset
from eisnn.nn import LIF


def poisson(dt: float, batch: int = 8, rate: float = 20.0, n: int = 200, ms: float = 400.0) -> torch.Tensor:
    """Spikes of `rate` Hz, `[T, B, n]`."""
    return (torch.rand(round(ms / dt), batch, n, generator=rng(0)) < rate * dt / 1000).float()


def filled(dt: float = 5.0, **options) -> tuple[CorticalLinear, torch.Tensor]:
    made, x = CorticalLinear(200, 100, options=CorticalOptions(dt=dt, **options)), poisson(dt)
    eisnn.ei_init_(made, x, generator=rng(1))
    return made, x


FEEDBACK = {"recurrence": 0.02, "feedback_inhibition": 0.2}


@pytest.mark.parametrize(
    "options", [{"recurrence": 0.0}, {}, {"recurrence": 0.2}, FEEDBACK, {"spiking": True, "tau_gaba": 6.0}]
)
def test_rates_in_hz_do_not_depend_on_the_time_step(options):
    """The rate is that of a membrane of 20 ms in steps of 10 under white currents, 0.148 spikes a step (E-I Init). It
    holds when the burst at the onset of the input is over, which is the larger the shorter the step."""
    for dt in (10.0, 5.0) if options.get("spiking") else (10.0, 5.0, 2.0):
        made, x = filled(dt, **options)
        with torch.no_grad():
            spikes = made(x)
        first = onset(made.neuron.constants, len(x))
        assert first * dt == 100
        assert float(spikes[first:].mean()) * 1000 / dt == pytest.approx(14.8, rel=0.04)


def test_short_sequences_are_measured_as_they_begin():
    """So that networks of a few time steps fire as they are aimed at in those steps."""
    lif = LIF(tau=2.0).constants
    assert [onset(lif, steps) for steps in (4, 19, 20, 100)] == [0, 0, 10, 10]


def test_a_batch_that_no_scale_makes_fire_is_refused():
    # All inputs or none: excitation and inhibition are equal in every cell at every step.
    x = torch.tensor([0.0, 1, 1, 0, 1]).view(5, 1, 1).expand(5, 2, 20)
    layer = CorticalLinear(20, 10, options=CorticalOptions(tau_pv=0.0, recurrence=0.0))
    with pytest.raises(ValueError, match=r"fires 0 spikes a step .* should fire 0\.148: give a first batch .* differ"):
        eisnn.ei_init_(layer, x)


def test_what_spikes_evoke_balances_row_by_row():
    made, _ = filled(recurrence=0.2, sst=0.1, pv_pv=0.5)
    w = made.weights()
    excitation = w.recurrent_ee.sum(1)
    by_pv = w.weight_ep @ (w.recurrent_pe.sum(1) / 1.5)  # a PV cell's own inhibition divides its gain
    assert torch.allclose(excitation, by_pv + w.weight_es @ w.recurrent_se.sum(1), rtol=1e-4)
    assert torch.allclose(w.weight_ee.sum(1), w.weight_ep @ w.weight_pe.sum(1) / 1.5, rtol=1e-4)


def test_feedback_inhibition_is_the_share_of_inhibition_that_the_layer_drives():
    made, x = filled(**FEEDBACK, sst=0.2)
    w = made.weights()
    excitation = w.weight_ee.sum(1) / 0.98  # of which recurrence is 0.02
    assert torch.allclose(w.weight_ep @ w.weight_pe.sum(1), 0.8 * excitation, rtol=1e-4)
    evoked = w.weight_ep @ w.recurrent_pe.sum(1) + w.weight_es @ w.recurrent_se.sum(1)
    assert torch.allclose(evoked, 10 * w.recurrent_ee.sum(1), rtol=1e-4)
    with record(torch.nn.Sequential(made), what=["I_EE", "I_rec", "I_sub"]) as seen, torch.no_grad():
        made(x)
    first = onset(made.neuron.constants, len(x))
    forward, recurrent, inhibition = (float(seen["0"][name][first:].mean()) for name in ("I_EE", "I_rec", "I_sub"))
    assert inhibition == pytest.approx(forward + recurrent, rel=0.02)


@pytest.mark.parametrize("recurrence", [0.1, 0.3])
def test_rho_is_the_recurrent_share_of_excitation(recurrence):
    made, x = filled(recurrence=recurrence)
    model = torch.nn.Sequential(made)
    with record(model, what=["I_EE", "I_rec"]) as seen, torch.no_grad():
        model(x)
    first = onset(made.neuron.constants, len(x))
    forward, recurrent = (float(seen["0"][name][first:].mean()) for name in ("I_EE", "I_rec"))
    assert recurrent / (forward + recurrent) == pytest.approx(recurrence, rel=0.06)


def test_an_unstable_network_is_refused_with_its_eigenvalue():
    with pytest.raises(
        ValueError, match=r"with recurrence 0.7 the linearised network .* has the modulus (1\.[1-9]|[2-9])"
    ):
        filled(recurrence=0.7, tau_gaba=10.0)
    maps = CorticalConv2d(6, 16, 3, padding=1, options=CorticalOptions(recurrence=0.5, sst=0.3))
    x = (torch.rand(20, 4, 6, 6, 6, generator=rng(0)) < 0.3).float()
    with pytest.raises(ValueError, match=r"with recurrence 0.5 the linearised network of CorticalConv2d is unstable"):
        eisnn.ei_init_(maps, x, generator=rng(0))
    assert not maps.initialized


def test_the_same_generator_gives_the_same_weights_and_nothing_is_left_after_an_error():
    one, other = filled(recurrence=0.2)[0], filled(recurrence=0.2)[0]
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
    fresh = CorticalLinear(200, 100, options=CorticalOptions(recurrence=0.9))
    with pytest.raises(ValueError, match="unstable"):
        eisnn.ei_init_(fresh, poisson(10.0))
    assert not fresh.initialized
    assert not fresh.weight_ee.any()


def test_data_is_needed():
    with pytest.raises(ValueError, match="the scale of the division, measured from data"):
        eisnn.ei_init_(CorticalLinear(20, 10), firing_probability=0.2)
