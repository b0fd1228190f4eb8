"""The phenomena of `experiments/cortical_phenomena.py` on one small network each: sign and size beside theory."""

import cortical_phenomena as phenomena
import pytest
import torch

from eisnn.analysis import peak_frequency


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def test_drive_to_pv_cells_lowers_pv_beyond_the_predicted_recurrence():
    run = phenomena.paradox(0, (0.04, 0.1), 800, 8)
    onset, predicted = run["told"]["rho at which more drive no longer raises PV"]
    assert onset == pytest.approx(predicted, abs=0.01)
    (below, above), theory = run["curves"]["pv"], run["curves"]["pv theory"]
    assert below > 0.2
    assert above < -0.2
    assert below == pytest.approx(theory[0], rel=0.2)
    assert all(e < -10 for e in run["curves"]["e"])  # E falls on both sides


def test_the_loop_of_e_and_pv_cells_has_a_rhythm_of_the_predicted_frequency():
    told = phenomena.gamma(0, ("feedback 0.1",), 6)["told"]
    peak, predicted = told["peak, feedback 0.1, Hz"]
    assert 18 < peak < 30
    assert peak == pytest.approx(predicted, rel=0.3)
    assert told["power at 24 Hz over that at 4 Hz"][0] > 4
    assert told["the same, PV silenced"][0] < 1


@pytest.mark.slow
def test_slower_gaba_and_a_longer_delay_slow_the_rhythm():
    peaks = []
    for slower in ({}, {"tau_gaba": 12.0}, {"delay": 5.0}):
        layer = phenomena.drawn(0, **phenomena.RHYTHM | {"feedback_inhibition": 0.1} | slower)
        power = phenomena.spectrum(layer(phenomena.poisson(1.0, 1200, 12, 50))[phenomena.late(layer)])
        peaks.append(float(peak_frequency(phenomena.TONES, power, phenomena.BAND).frequency))
    assert max(peaks[1:]) < 0.95 * peaks[0]


def test_the_loop_is_cut_where_the_recorded_spikes_return():
    """What returns is then what would have, so that nothing changes."""
    layer, x = phenomena.drawn(0, **phenomena.RHYTHM | {"feedback_inhibition": 0.2}), phenomena.poisson(1.0, 300, 2, 1)
    spikes = layer(x)
    currents = phenomena.feedforward(layer, x) + phenomena.returning(layer, spikes)
    again = phenomena.fired(layer, currents)
    assert (again != spikes[phenomena.late(layer)]).float().mean() < 1e-3  # of steps, by rounding
    inhibition = phenomena.watch(layer, phenomena.feedforward(layer, x), ("i_sub",))["i_sub"]
    assert torch.allclose(phenomena.evoked(layer, currents), inhibition, rtol=1e-3)


def test_sst_cells_suppress_what_large_stimuli_evoke():
    run = phenomena.surround(0, (1, 3, 11), 700)
    suppression, predicted = run["told"]["suppression of E by the largest disc, %"]
    assert 15 < suppression < 45
    assert suppression == pytest.approx(predicted, abs=8)
    assert run["told"]["the same, SST silenced"][0] < 4
    assert run["curves"]["intact"][0] < 0.6 * run["curves"]["intact"][1]  # it rises first


def test_vip_cells_disinhibit_e_through_sst_only():
    run = phenomena.disinhibition(0, (0.0, 1.0), 800, 8)
    (e, e_predicted), (sst, sst_predicted), (without, _) = run["told"].values()
    assert e == pytest.approx(e_predicted, rel=0.25)
    assert e > 5
    assert sst == pytest.approx(sst_predicted, rel=0.1)
    assert without == 0


def test_inhibition_follows_excitation_and_what_e_cells_evoke_by_the_delay_more():
    told = phenomena.balance(0, (1, 3), 700)["told"]
    for delay in (1, 3):
        lag, predicted = told[f"lag of inhibition, delay {delay} ms"]
        assert 4 < lag == pytest.approx(predicted, rel=0.15)
        assert told[f"correlation at its lag, delay {delay} ms"][0] > 0.35
    evoked = [told[f"lag of the inhibition that E cells evoke, delay {delay} ms"][0] for delay in (1, 3)]
    assert evoked[1] - evoked[0] == pytest.approx(2, abs=0.6)


def test_feedback_by_pv_cells_decorrelates_e_cells_at_the_same_rate():
    told = phenomena.decorrelation(0, 6)["told"]
    assert told["rate, loop closed, Hz"][0] == pytest.approx(told["rate, loop cut, Hz"][0], rel=0.1)
    correlation, predicted = told["correlation in 200 ms, loop closed"]
    assert correlation < 0.5 * told["correlation in 200 ms, loop cut"][0]
    assert correlation == pytest.approx(predicted, abs=0.015)
