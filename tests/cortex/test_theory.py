"""What theory says of recurrent circuits with cell types, on small networks."""

import pytest
import torch
from circuits import rng

import eisnn
from eisnn.cortex import CorticalLinear, CorticalOptions, Stimulus, stimulate
from eisnn.functional import cortex as FC

N, DT = 120, 2.0


def poisson(ms: float, batch: int = 8, rate: float = 20.0) -> torch.Tensor:
    return (torch.rand(round(ms / DT), batch, 200, generator=rng(0)) < rate * DT / 1000).float()


@pytest.fixture(scope="module")
def circuits():
    """Layers by recurrence, and their input."""
    x, made = poisson(400.0), {}
    for recurrence in (0.05, 0.3):
        layer = CorticalLinear(200, N, options=CorticalOptions(dt=DT, tau_pv=4.0, delay=2.0, recurrence=recurrence))
        eisnn.ei_init_(layer, x, generator=rng(1))
        made[recurrence] = layer
    return made, x


def means(layer, x, **stimuli) -> tuple[float, float]:
    """Mean rate of E and output of PV in the second half of the sequence."""
    seen = []
    with torch.no_grad():
        currents = layer.feedforward(x, layer.weights())
        FC.cortical_circuit(currents, layer.weights(), layer.constants, stimuli=stimuli, see=seen.append)
    late = seen[len(seen) // 2 :]
    return tuple(float(torch.stack([getattr(step, name) for step in late]).mean()) for name in ("s_e", "s_pv"))


def excitatory_loop_gain(layer, x) -> float:
    """Spikes that a spike of E evokes through `R_EE` alone, measured with the loop cut."""
    seen = []
    with torch.no_grad():
        w = layer.weights()
        FC.cortical_circuit(layer.feedforward(x, w), w, layer.constants, see=seen.append)
        i_e, i_div = (torch.stack([getattr(step, name) for step in seen]) for name in ("i_e", "i_div"))
        evoked = w.recurrent_ee.sum(1) / i_div
        up, down = (
            eisnn.functional.lif(i_e + sign * 0.02 * evoked, layer.neuron.constants)[0].mean() for sign in (1, -1)
        )
    return float(up - down) / 0.04


def test_the_paradoxical_effect_begins_where_recurrent_excitation_alone_is_unstable(circuits):
    """Tsodyks et al. 1997: drive to PV lowers PV, and E, only in the inhibition-stabilised regime."""
    made, x = circuits
    changes, gains = {}, {}
    for recurrence, layer in made.items():
        e, pv = means(layer, x)
        e_driven, pv_driven = means(layer, x, PV=Stimulus(current=0.1 * pv))
        assert e_driven < e
        changes[recurrence] = (pv_driven - pv) / pv
        gains[recurrence] = excitatory_loop_gain(layer, x)
    assert gains[0.05] < 1 < gains[0.3]
    assert changes[0.05] > 0.02
    assert changes[0.3] < 0


def test_stimuli_reach_the_cells_and_steps_that_they_name(circuits):
    made, x = circuits
    layer, model = made[0.05], torch.nn.Sequential(made[0.05])
    with torch.no_grad():
        plain = layer(x)
        mask = torch.ones(1, 1, N)
        mask[..., :10] = 0
        with stimulate(model, {"0": {"E": Stimulus(factor=mask)}}):
            silenced = layer(x)
        course = torch.ones(len(x), 1, 1)
        course[100:] = 0
        with stimulate(model, {"0": {"PV": Stimulus(factor=course)}}):
            disinhibited = layer(x)
        assert torch.equal(layer(x), plain)
    assert not silenced[..., :10].any()
    assert silenced[..., 10:].any()
    assert torch.equal(disinhibited[:100], plain[:100])
    assert disinhibited[100:].mean() > 2 * plain[100:].mean()


def test_stimuli_of_what_is_not_there_are_named(circuits):
    model = torch.nn.Sequential(circuits[0][0.05])
    with pytest.raises(ValueError, match="0 has no cells of kind SST; it has: E, PV"):
        stimulate(model, {"0": {"SST": Stimulus()}}).__enter__()
    with pytest.raises(ValueError, match=r"factor on the output of PV must be >= 0 \(0 silences\), got -1"):
        stimulate(model, {"0": {"PV": Stimulus(factor=-1)}}).__enter__()
    with pytest.raises(ValueError, match="the current into PV must be finite, got nan"):
        stimulate(model, {"0": {"PV": Stimulus(current=float("nan"))}}).__enter__()
    x = poisson(20.0)
    for stimulus in (torch.ones(1, 1, N + 1), torch.ones(N), torch.ones(9, 1, 1)):
        with (
            stimulate(model, {"0": {"E": Stimulus(factor=stimulus)}}),
            pytest.raises(
                ValueError, match=r"the factor of a stimulus of E must be a tensor .* to \[10, 8, 120\], got"
            ),
        ):
            model(x)
    with pytest.raises(ValueError, match="no cortical layer is called '1'; there are: '0'"):
        stimulate(model, {"1": {}}).__enter__()
