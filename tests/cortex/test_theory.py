"""What theory says of recurrent circuits with cell types, on small networks."""

from dataclasses import replace

import pytest
import torch
from circuits import rng

import eisnn
from eisnn.analysis import Perturbation, ei_lag, perturb, record
from eisnn.cortex import LIMIT, CorticalConv2d, CorticalLinear, CorticalOptions, Stimulus, disc, stimulate
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


@pytest.mark.parametrize("tau_pv", [0.0, 4.0, 8.0])
def test_inhibition_lags_by_the_memory_of_pv_cells(tau_pv):
    """In the paper's limit it comes in the same step; the larger the time constant, the later."""
    layer = CorticalLinear(200, 40, options=replace(LIMIT, dt=DT, tau_pv=tau_pv))
    bright = 1 + torch.sin(2 * torch.pi * 10 * torch.arange(200) * DT / 1000)[:, None, None]  # 10 Hz
    x = bright * torch.rand(1, 8, 200, generator=rng(0))
    eisnn.ei_init_(layer, x, generator=rng(1))
    with torch.no_grad(), record(layer, what=["I_EE", "I_sub"]) as seen:
        layer(x)
    lags = ei_lag(seen[""]["I_EE"], seen[""]["I_sub"], DT, 30.0)
    assert (lags == 0).all() if tau_pv == 0 else ((lags - tau_pv).abs() <= DT).all()


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


@pytest.mark.parametrize("kind", ["E", "PV", "SST", "VIP"])
def test_chosen_cells_of_any_kind_are_driven_for_a_time_in_ms(kind):
    options = CorticalOptions(dt=DT, delay=2.0, recurrence=0.1, sst=0.2, vip=0.2)
    layer, x = CorticalLinear(200, 40, options=options), poisson(60.0)
    eisnn.ei_init_(layer, x, generator=rng(1))
    n = layer.sizes[kind]
    chosen, during = torch.arange(n) < n // 2, slice(10, 20)
    name = "spikes" if kind == "E" else f"s_{kind}"

    def shown(stimulus=None):
        stimuli = {} if stimulus is None else {"": {kind: stimulus}}
        with torch.no_grad(), stimulate(layer, stimuli), record(layer, what=name) as seen:
            layer(x)
        return seen[""][name]

    plain, light = shown(), {"current": 5.0, "onset": 20.0, "offset": 40.0}
    driven = shown(Stimulus(**light, neurons=chosen))
    assert torch.equal(driven[:10], plain[:10])
    assert (driven[during, :, chosen] - plain[during, :, chosen]).mean() > 0.1
    first = 10 if kind == "E" else slice(10, 12)  # later others answer
    assert torch.equal(driven[first][..., ~chosen], plain[first][..., ~chosen])
    assert torch.equal(driven, shown(Stimulus(**light, neurons=chosen.nonzero()[:, 0].tolist())))
    course = (torch.arange(30) // 10 == 1).numpy()
    assert torch.equal(driven, shown(Stimulus(current=5.0, neurons=chosen.numpy(), course=course)))
    silenced = shown(Stimulus(factor=0.0, neurons=chosen, onset=20.0))
    assert not silenced[10:, :, chosen].any()
    assert silenced[10:, :, ~chosen].any()
    half = shown(Stimulus(factor=0.0, neurons=chosen, course=torch.full((30,), 0.5)))
    torch.testing.assert_close(half[0], shown(Stimulus(factor=0.5, neurons=chosen))[0])


def test_light_on_a_part_of_the_map_silences_the_cells_there():
    layer = CorticalConv2d(2, 8, 3, padding=1, options=CorticalOptions(dt=DT, recurrence=0.1))
    x = (torch.rand(60, 2, 2, 9, 9, generator=rng(0)) < 0.1).float()
    eisnn.ei_init_(layer, x, generator=rng(1))
    lit, channels = disc(9, 9, 2.0, centre=(3, 4)), torch.arange(8) < 3
    assert lit.sum() == 13
    assert [bool(lit[at]) for at in ((3, 6), (1, 4), (3, 7), (5, 5))] == [True, True, False, False]

    def spikes(neurons):
        with torch.no_grad(), stimulate(layer, {"": {"E": Stimulus(factor=0.0, neurons=neurons)}}):
            return layer(x).sum((0, 1)) > 0

    assert torch.equal(spikes(lit), ~lit.expand(8, 9, 9) & spikes(lit))
    assert spikes(lit)[:, ~lit].float().mean() > 0.9
    assert not spikes(channels)[:3].any()
    both = channels[:, None, None] & lit
    assert not spikes(both)[both].any()
    assert spikes(both)[~both].float().mean() > 0.9
    for wrong in (disc(5, 5, 2.0), torch.ones(1, 9, dtype=torch.bool)):
        with pytest.raises(ValueError, match=rf"mask of .* E has positions \[{wrong.shape[0]}, .*, the maps \[9, 9\]"):
            spikes(wrong)
    with pytest.raises(ValueError, match="each once"):
        spikes(channels.int())


def test_nested_stimuli_act_together(circuits):
    layer, x = circuits[0][0.05], circuits[1]
    e, pv = {"": {"E": Stimulus(current=0.1)}}, {"": {"PV": Stimulus(factor=0.9)}}
    with torch.no_grad():
        with stimulate(layer, e | {"": e[""] | pv[""]}):
            together = layer(x)
        with stimulate(layer, e), stimulate(layer, pv):
            assert torch.equal(layer(x), together)
        with stimulate(layer, e):
            assert not torch.equal(layer(x), together)
    assert layer.stimuli == {}
    with stimulate(layer, pv), pytest.raises(ValueError, match="PV of the layer is stimulated already"):
        stimulate(layer, pv).__enter__()


@pytest.mark.parametrize(
    ("stimulus", "message"),
    [
        ({"neurons": [N]}, r"neurons of 0 must be indices of its 120 E cells, 0 to 119, or a boolean mask \[120\]"),
        ({"neurons": torch.ones(9, dtype=torch.bool)}, "must be indices of its 120 E cells"),
        ({"neurons": torch.ones(9, 9, dtype=torch.bool)}, "must be indices of its 120 E cells"),
        ({"neurons": [0.5]}, "must be indices of its 120 E cells"),
        ({"neurons": []}, "a stimulus of E must reach at least one cell"),
        ({"neurons": torch.zeros(N, dtype=torch.bool)}, "a stimulus of E must reach at least one cell"),
        ({"onset": -1.0}, "begins at an onset >= 0 and ends at a later offset, in ms; got -1.0, None"),
        ({"onset": 9.0, "offset": 9.0}, "ends at a later offset, in ms; got 9.0, 9.0"),
        ({"onset": float("nan")}, "begins at an onset >= 0"),
        ({"onset": 0.5, "offset": 1.0}, "must reach a step; no step of 2 ms begins from 0.5 to 1.0 ms"),
        ({"onset": 500.0}, "onset of a stimulus of E must be within the sequence of 20 ms, got 500 ms"),
        ({"course": torch.ones(9)}, "course of a stimulus of E must have a value for each of the 10 steps, got 9"),
        ({"course": torch.full((10,), 1.1)}, r"course of a stimulus of E must be \[T\] values in \[0, 1\]"),
        ({"course": torch.ones(10, 1)}, r"must be \[T\] values"),
        ({"course": torch.ones(10), "offset": 9.0}, "a course, or an onset and an offset; got both"),
    ],
)
def test_choices_and_times_that_cannot_be_are_named(circuits, stimulus, message):
    model = torch.nn.Sequential(circuits[0][0.05])
    with pytest.raises(ValueError, match=message), stimulate(model, {"0": {"E": Stimulus(0.0, **stimulus)}}):
        model(poisson(20.0))


SIZES = [{"height": 0}, {"width": 1.5}, {"radius": -1.0}, {"radius": float("nan")}, {"centre": (float("nan"), 1.0)}]


@pytest.mark.parametrize("size", SIZES)
def test_a_disc_has_a_size(size):
    with pytest.raises(ValueError, match=f"disc: {next(iter(size))} must be"):
        disc(**({"height": 3, "width": 3, "radius": 1.0} | size))


def test_stimuli_of_what_is_not_there_are_named(circuits):
    model = torch.nn.Sequential(circuits[0][0.05])
    with pytest.raises(ValueError, match="0 has no cells of kind SST; it has: E, PV"):
        stimulate(model, {"0": {"SST": Stimulus()}}).__enter__()
    with pytest.raises(ValueError, match=r"factor on the output of PV must be finite and >= 0 \(0 silences\), got -1"):
        stimulate(model, {"0": {"PV": Stimulus(factor=-1)}}).__enter__()
    with pytest.raises(ValueError, match=r"must be finite and >= 0 .* got inf"):
        stimulate(model, {"0": {"PV": Stimulus(factor=float("inf"))}}).__enter__()
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
    with pytest.raises(ValueError, match=r"no E-I layer to perturb .*cells of cortical layers: eisnn.cortex.stimulate"):
        perturb(model, Perturbation(activity=0.0)).__enter__()
