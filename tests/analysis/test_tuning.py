"""Gain control, tuning and stimuli: planted receptive fields are found, and what the circuit cannot do it does not."""

import sys
from math import pi

import pytest
import torch
from circuits import assert_agree, rng
from networks import SEMISATURATED, images, small

import eisnn
from eisnn import analysis as EA
from eisnn.analysis import tuning
from eisnn.analysis.gain import SCALINGS
from eisnn.analysis.stimuli import add_noise, drifting_grating, grating, plaid, scale_contrast, scale_intensity
from eisnn.cortex import CorticalConv2d, CorticalOptions
from eisnn.models.network import SpikingNetwork

X = images()


class OneLayer(SpikingNetwork):
    """A single convolution of grey images, whose weights the test plants."""

    def __init__(self, n_e: int, kernel: int) -> None:
        super().__init__(1, 2, 50)
        self.layer = eisnn.EIConv2d(1, n_e, kernel, padding=kernel // 2)
        self.readout = eisnn.EIReadout(n_e, 2)
        self.double()
        eisnn.ei_init_(self, firing_probability=0.5, generator=rng(0))

    def features(self, x, carry):
        return carry(self.layer, x, self.time_steps).mean((-2, -1))


def cortical(**options) -> OneLayer:
    """The same of a cortical circuit, not initialised."""
    model = OneLayer(8, 5)
    given = CorticalOptions(tau_gaba=6.0, recurrence=0.1, sst=0.2, vip=0.2, surround_size=5, **options)
    model.layer = CorticalConv2d(1, 8, 5, padding=2, neuron=given.lif(), options=given).double()
    model.time_steps = 20
    return model


def drifting(directions: int) -> torch.Tensor:
    """Gratings on 6x6 pixels, 20 frames of 10 ms."""
    angles = [2 * pi * k / directions for k in range(directions)]
    return torch.stack(
        [drifting_grating(6, k, 0.25, 5.0, 20, 10.0, contrast=0.8, channels=1).double() for k in angles], 1
    )


def planted(angles: list[float], kernel: int = 9, frequency: float = 0.125) -> OneLayer:
    """E neurons that excitation makes respond to bars of these angles, against inhibition that is even."""
    model = OneLayer(len(angles), kernel)
    layer = model.layer
    with torch.no_grad():
        for neuron, angle in enumerate(angles):
            layer.weight_ee[neuron, 0] = grating(kernel, angle, frequency, phase=pi / 2, channels=1)[0]
        layer.weight_ee /= layer.weight_ee.sum((1, 2, 3), keepdim=True)
        layer.weight_ie.fill_(1 / kernel**2)
        layer.weight_ei.fill_(1 / layer.n_i)
        layer.gain_i.fill_(0.5)
    return model


# Directions


def test_a_drifting_grating_moves_at_right_angles_to_its_bars():
    frames = drifting_grating(16, 0.0, 0.125, 12.5, 8, 10.0)  # a pixel a frame
    assert frames.shape == (8, 3, 16, 16)
    torch.testing.assert_close(frames[1:, :, 1:], frames[:-1, :, :-1])  # downwards
    right = drifting_grating(16, pi / 2, 0.125, 12.5, 2, 10.0)
    torch.testing.assert_close(right[1, ..., 1:], right[0, ..., :-1])
    with pytest.raises(ValueError, match=r"temporal_frequency must be in \[0, 50\], got 60"):
        drifting_grating(16, 0.0, 0.1, 60, 8, 10.0)
    with pytest.raises(ValueError, match="dt must be a finite number of milliseconds > 0, got 0"):
        drifting_grating(16, 0.0, 0.1, 2, 8, 0)


def test_selectivity_for_direction_is_the_length_of_the_mean_vector():
    directions = torch.arange(8, dtype=torch.float64) * pi / 4
    one, opposite, even = torch.zeros(8), torch.zeros(8), torch.ones(8)
    one[3] = opposite[3] = opposite[7] = 1
    preferred, dsi = EA.direction_selectivity(torch.stack([one, opposite, even]), directions)
    torch.testing.assert_close(dsi, torch.tensor([1.0, 0, 0], dtype=torch.float64))
    assert float(preferred[0]) == pytest.approx(3 * pi / 4)


@pytest.mark.parametrize("spiking", [False, True])
def test_tuning_to_directions_by_cell_type(spiking):
    model = cortical(spiking=spiking)
    eisnn.ei_init_(model, drifting(4), generator=rng(0))
    tuned = EA.direction_tuning(
        model, "layer", frequency=0.25, temporal_frequency=5.0, directions=6, size=6, duration=200.0
    )
    assert list(tuned) == ["E", "PV", "SST", "VIP"]
    for kind, of in tuned.items():
        assert of.responses.shape == (model.layer.sizes[kind], 6)
        assert bool(of.osi.nan_to_num().clamp(0, 1).eq(of.osi.nan_to_num()).all())
        assert bool(of.rate.isnan().all()) == (kind != "E" and not spiking)
    with torch.no_grad(), EA.record(model, "layer", ["spikes", "s_PV"]) as seen:
        model(drifting(6))
    for kind, output in zip(("E", "PV")[: 1 + spiking], seen["layer"].values(), strict=False):
        rates = (output > 0).double().mean(0)[:, :, 3, 3].T * 100  # Hz at steps of 10 ms
        assert rates.any()
        assert_agree(tuned[kind].responses, rates, 1e-9)


def test_directions_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="needs the name of a cortical layer, got 'readout'"):
        EA.direction_tuning(cortical(), "readout")
    with pytest.raises(ValueError, match="directions must be even, so that each orientation has two, got 7"):
        EA.direction_tuning(cortical(), "layer", directions=7)
    with pytest.raises(ValueError, match="duration must be a multiple of 10 ms, of two steps at least, got 14"):
        EA.direction_tuning(cortical(), "layer", duration=14)
    with pytest.raises(ValueError, match="above 0 and below 50 Hz"):
        EA.direction_tuning(cortical(), "layer", temporal_frequency=50)


def test_a_table_of_units_is_read_by_cell_type(tmp_path):
    table = tmp_path / "units.csv"
    table.write_text("unit,cell_type,osi,rate_hz\n1,E,0.3,0.7\n2,PV,,5.5\n3,E,0.5,2\n")
    units = EA.read_units(table)
    assert list(units) == ["E", "PV"]
    assert units["E"][::2] == ([0.3, 0.5], [0.7, 2.0])
    assert units["PV"].osi[0] != units["PV"].osi[0]  # NaN: not known


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must name the columns cell_type and at least one of osi, dsi, rate_hz; got nothing"),
        ("cell_type,size\nE,1\n", "at least one of osi, dsi, rate_hz; got cell_type, size"),
        ("cell_type,osi\n", "holds no unit"),
        ("cell_type,osi\nE,0.1\nLIF,0.1\n", "line 3: cell_type must be E, PV, SST, VIP, got 'LIF'"),
        ("cell_type,osi\nE,1.5\n", r"line 2: osi must be a number in \[0, 1\], got '1.5'"),
        ("cell_type,osi,rate_hz\nE,0,29,0,7\n", "line 2 has 5 fields, but there are 3 columns"),
        ("cell_type,osi,rate_hz\nE\n", "line 2 has 1 fields, but there are 3 columns"),
        ("cell_type, OSI,rate_hz\nE,0.1,1\n", "columns are called osi, dsi, rate_hz, got ' OSI'"),
        ("cell_type,osi,osi\nE,0.1,0.2\n", "the column osi is there twice"),
        ("cell_type,rate_hz\nE,1_0\n", "got '1_0'"),
        ("cell_type,rate_hz\nE,fast\n", "line 2: rate_hz must be a number finite and >= 0, got 'fast'"),
    ],
)
def test_what_is_wrong_in_a_table_of_units_is_named(tmp_path, text, message):
    (tmp_path / "units.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        EA.read_units(tmp_path / "units.csv")


# Stimuli


def test_bars_of_a_grating_lie_along_its_orientation():
    horizontal, vertical = grating(8, 0.0, 0.1), grating(8, pi / 2, 0.1)
    assert horizontal.shape == (3, 8, 8)
    assert torch.equal(horizontal, horizontal[..., :1].expand_as(horizontal))
    torch.testing.assert_close(vertical, vertical[:, :1].expand_as(vertical))
    rising = grating(9, pi / 4, 0.1)  # anticlockwise: from the lower left to the upper right
    torch.testing.assert_close(rising[0, 1, 4], rising[0, 4, 1])
    torch.testing.assert_close(grating(9, 0.3, 0.1), 1 - grating(9, 0.3 + pi, 0.1))


def test_gratings_have_their_frequency_contrast_and_disk():
    waves = grating(64, pi / 2, 1 / 8, contrast=0.4, channels=1)[0, 0]
    spectrum = torch.fft.rfft(waves - waves.mean()).abs()
    assert spectrum.argmax() == 8
    assert waves.mean().item() == pytest.approx(0.5)
    assert 2**0.5 * waves.std(correction=0).item() / 0.5 == pytest.approx(0.4)
    disk = grating(16, 0.7, 0.2, phase=1.0, radius=3.0)
    down, right = torch.meshgrid(torch.arange(16) - 7.5, torch.arange(16) - 7.5, indexing="ij")
    outside = down.square() + right.square() > 9
    assert (disk[:, outside] == 0.5).all()
    assert (disk[:, ~outside] != 0.5).any()
    for wrong in ({"contrast": 1.5}, {"frequency": 0.6}, {"mean": 0.7}):
        with pytest.raises(ValueError, match=r"must be in \[0, "):
            grating(8, 0.0, **({"frequency": 0.1} | wrong))


def test_scaling_noise_and_plaids():
    assert torch.equal(scale_intensity(X, 0.3), 0.3 * X)
    faint = scale_contrast(X, 0.3)
    torch.testing.assert_close(faint.mean((-2, -1)), X.mean((-2, -1)))
    torch.testing.assert_close(faint.std((-2, -1)), 0.3 * X.std((-2, -1)))
    grey = torch.full((1, 3, 100, 100), 0.5)
    noisy = add_noise(grey, 0.1)
    assert noisy.std().item() == pytest.approx(0.1, abs=0.003)
    assert torch.equal(noisy, add_noise(grey, 0.1))
    assert add_noise(grey, 5.0).aminmax() == (0, 1)
    one, other = grating(8, 0.0, 0.1, contrast=0.5), grating(8, pi / 2, 0.1, contrast=0.5)
    torch.testing.assert_close(plaid(one, other) - 0.5, (one - 0.5) + (other - 0.5))
    with pytest.raises(ValueError, match="contrasts of the two gratings add up to more than 1"):
        plaid(grating(8, 0.0, 0.1, 1.0), grating(8, 0.0, 0.1, 1.0))
    bright, dim = torch.ones(3, 2, 2), torch.full((3, 2, 2), 0.25)
    with pytest.raises(ValueError, match="add up to more than 1"):
        plaid(bright, 0.6 * bright)  # brighter than white, though nothing is darker than black
    assert plaid(2 * dim, dim + 5e-7, mean=0.25).max() == 0.5
    for wrong in (lambda: scale_intensity(X, -1), lambda: scale_contrast(X, 2), lambda: add_noise(X, -1)):
        with pytest.raises(ValueError, match="must be"):
            wrong()


def test_phases_lie_evenly_on_the_circle(monkeypatch):
    drawn = []

    def draw(_: float, phase: float) -> torch.Tensor:
        drawn.append(phase)
        return torch.zeros(3, 8, 8)

    monkeypatch.setattr(tuning, "responses", lambda _, images, *__: torch.zeros(len(images), 2))
    tuning._over_phases(small(), "layers.0", draw, [0.0], 4, "spikes")
    assert drawn == pytest.approx([0, pi / 2, pi, 3 * pi / 2])


# Responses


def test_responses_are_means_over_time_at_the_chosen_place():
    model = small().train()
    with EA.record(model, "layers.1", "spikes") as recorded:
        model(X)
    rate = recorded["layers.1"]["spikes"].mean(0)
    assert_agree(EA.responses(model, X, "layers.1", position="all", batch_size=4), rate, 1e-12)
    assert_agree(EA.responses(model, X, "layers.1"), rate[:, :, 2, 2], 1e-12)
    assert_agree(EA.responses(model, X, "layers.1", position="mean"), rate.mean((2, 3)), 1e-12)
    assert model.training
    with pytest.raises(ValueError, match="position must be"):
        EA.responses(model, X, "layers.1", position="corner")
    with pytest.raises(ValueError, match=r"or sequences \[T, B, C, H, W\] with B >= 1, got shape \[3, 8, 8\]"):
        EA.responses(model, X[0], "layers.1")


def test_planted_orientations_are_found():
    angles = [0.0, pi / 4, pi / 2, 3 * pi / 4]
    tuning = EA.orientation_tuning(planted(angles), "layer", size=24, what="I_E")
    expected = torch.tensor(angles, dtype=torch.float64)
    apart = (tuning.preferred - expected + pi / 2).remainder(pi) - pi / 2
    assert apart.abs().max() < 0.02
    assert tuning.selectivity.min() > 0.25
    assert torch.equal(tuning.responses.argmax(1), torch.tensor([0, 2, 4, 6]))
    spiking = EA.orientation_tuning(planted(angles), "layer", size=24)
    assert torch.equal(spiking.responses.argmax(1), torch.tensor([0, 2, 4, 6]))


def test_an_even_receptive_field_has_no_orientation():
    model = planted([0.0] * 4, kernel=1)
    model.layer.weight_ee.data.mul_(2)
    tuning = EA.orientation_tuning(model, "layer", contrast=0.9, size=16, what="I_E")
    torch.testing.assert_close(tuning.responses, torch.full((4, 8), 2.0, dtype=torch.float64))
    assert tuning.selectivity.max() < 1e-6


def test_suppression_indices_are_those_of_planted_responses():
    responses = torch.tensor([[0.0, 2.0, 4.0, 1.0], [1.0, 2.0, 3.0, 3.0], [0.0, 0.0, 0.0, 0.0]])
    found = EA.suppression_index(responses)
    assert found[:2].tolist() == [0.75, 0.0]
    assert found[2].isnan()


# What the circuit cannot do


@pytest.mark.parametrize("level", [0.01, 0.5, 3.0])
def test_without_semisaturation_first_layer_responses_do_not_depend_on_intensity(level):
    model = small()
    for layer in ("layers.0", "layers.1"):
        found, full = (EA.responses(model, x, layer, "I_E", "all") for x in (scale_intensity(X, level), X))
        assert_agree(found, full, 1e-9)
        assert full.std() > 0.1


def test_with_semisaturation_they_follow_naka_rushton_with_exponent_one():
    """`I_E = N c / (sigma + I_div c) = (N / I_div) c / (c + sigma / I_div)`, for each neuron."""
    model = small(SEMISATURATED)
    model.layers[0].bias.data.fill_(0.25)
    with EA.record(model, "layers.0") as recorded:
        model(X)
    values, sigma = recorded["layers.0"], model.layers[0].synapses().sigma
    at = 0, 0, 3, 4, 4
    driven = (values["I_div"][at] - sigma[3]).item()
    levels = torch.linspace(0.02, 1, 12, dtype=torch.float64)
    found = [EA.responses(model, scale_intensity(X[:1], c), "layers.0", "I_E", "all")[at[1:]] for c in levels.tolist()]
    response = torch.stack(found)
    sign = 1.0 if response[-1] > response[0] else -1.0
    fit = EA.fit_naka_rushton(levels, sign * response)
    assert fit.exponent == pytest.approx(1, abs=1e-3)
    assert fit.c50 == pytest.approx(sigma[3].item() / driven, rel=1e-3)
    assert fit.baseline == pytest.approx(0.25 * sign, abs=1e-3)
    assert fit.r_squared > 1 - 1e-9


def test_a_first_layer_has_no_surround_beyond_its_receptive_field():
    """`weight_ei` is 1x1: the inhibitory pool is one receptive field. Beyond 3 pixels a 3x3 layer sees nothing."""
    model = small()
    tuned = EA.size_tuning(model, "layers.0", [0.5, 1, 3, 4, 8, 16], size=16, what="I_E")
    assert tuned.shape == (8, 6)
    assert_agree(tuned[:, 3:], tuned[:, 2:3].expand(-1, 3), 1e-9)
    assert not torch.allclose(tuned[:, 0], tuned[:, 2])
    deep = EA.size_tuning(model, "layers.1", [0.5, 1, 3, 4, 8, 16], size=16, what="I_E")
    assert not torch.allclose(deep[:, 2], deep[:, -1])


def test_the_divisive_pool_of_a_first_layer_measures_light_and_not_contrast():
    """`I_div` is linear in the pixels: its mean over the phases of a grating is that of the grey screen."""
    model = small()
    waves = [grating(8, 0.6, 0.2, phase=2 * pi * k / 8) for k in range(8)]
    grey = torch.full((1, 3, 8, 8), 0.5, dtype=torch.float64)
    pool = EA.responses(model, torch.stack(waves).double(), "layers.0", "I_div", "all").mean(0)
    assert_agree(pool, EA.responses(model, grey, "layers.0", "I_div", "all")[0], 1e-6)


def test_cross_orientation_suppression_is_what_the_currents_say():
    """Of one cosine grating against even inhibition: `N` adds up, so a mask that excites nothing suppresses nothing."""
    model = planted([0.0, pi / 2, 0.0, pi / 2])
    found = EA.cross_orientation_suppression(model, "layer", size=24, what="I_E", contrast=0.5)
    assert found.shape == (4,)
    assert found.abs().max() < 0.15
    silent = planted([0.0] * 4)
    silent.layer.bias.data.fill_(-100)
    assert EA.cross_orientation_suppression(silent, "layer", size=24).isnan().all()


# Gain control


@pytest.mark.parametrize(("c50", "exponent"), [(0.1, 1.0), (0.3, 2.0), (0.5, 3.5)])
def test_a_fit_recovers_the_function_that_was_planted(c50, exponent):
    contrast = torch.linspace(0, 1, 15)
    noise = 0.002 * torch.randn(15, generator=torch.Generator().manual_seed(1))
    fit = EA.fit_naka_rushton(contrast, EA.naka_rushton(contrast, 0.8, c50, exponent, 0.1) + noise)
    assert fit.c50 == pytest.approx(c50, rel=0.05)
    assert fit.exponent == pytest.approx(exponent, rel=0.05)
    assert fit.r_max == pytest.approx(0.8, rel=0.05)
    assert fit.baseline == pytest.approx(0.1, abs=0.01)
    residual = EA.naka_rushton(contrast, 0.8, c50, exponent, 0.1) + noise - fit(contrast)
    total = EA.naka_rushton(contrast, 0.8, c50, exponent, 0.1) + noise
    unexplained = residual.square().sum() / (total - total.mean()).square().sum()
    assert 1 - fit.r_squared == pytest.approx(unexplained.item(), rel=0.01)
    torch.testing.assert_close(fit(contrast), EA.naka_rushton(contrast, 0.8, c50, exponent, 0.1), rtol=0, atol=0.01)


def test_a_response_that_does_not_depend_on_contrast_has_no_c50():
    fit = EA.fit_naka_rushton(torch.linspace(0, 1, 6), torch.full((6,), 0.4))
    assert (fit.r_max, fit.baseline) == (0, pytest.approx(0.4))
    assert fit.c50 != fit.c50
    assert fit(torch.rand(3)).tolist() == [fit.baseline] * 3


def test_a_fit_without_its_library_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(ImportError, match=r"needs the package scipy: pip install 'eisnn\[analysis\]'"):
        EA.fit_naka_rushton(torch.linspace(0, 1, 6), torch.rand(6))


def test_gain_control_is_lost_when_the_division_is_held():
    """The paper's first layer ignores intensity; with a constant divisor its currents are proportional to it."""
    model, levels = small(), [0.2, 0.4, 0.6, 0.8, 1.0]
    found = EA.gain_control(model, X, levels, "layers.0", what="I_E")
    assert_agree(found.intact, found.intact[:1].expand(5), 1e-9)
    assert_agree(found.held, found.held[-1] * torch.tensor(levels, dtype=torch.float64), 1e-9)
    assert found.intact_fit.r_max == 0
    assert isinstance(model.layers[0], eisnn.EIConv2d)
    rates = EA.gain_control(model, X, levels, "layers.0")
    assert rates.held[0] < rates.held[-1]
    assert torch.equal(rates.intact, rates.intact[:1].expand(5))


@pytest.mark.parametrize("scaling", ["intensity", "contrast"])
def test_several_layers_at_once_are_each_held_by_itself(scaling):
    """In one pass, what perturbing each layer alone and running the network again gives."""
    model, levels, scaled = small(SEMISATURATED), [0.2, 0.4, 0.6, 0.8, 1.0], SCALINGS[scaling]
    found = EA.gain_controls(model, X, levels, scaling=scaling, what="I_E")
    curves = EA.gain_curves(model, X, levels, scaling=scaling, what="I_E", position="centre")
    assert list(found) == list(curves) == ["layers.0", "layers.1", "layers.2"]
    for name, control in found.items():
        with EA.perturb(model, EA.Perturbation(hold_division=EA.mean_division(model, X, name)), name):
            alone = torch.stack([EA.responses(model, scaled(X, c), name, "I_E", "mean") for c in levels])
        assert_agree(control.held, alone.mean((1, 2)), 1e-9)
        assert not torch.allclose(control.held, control.intact)
        at_centre = torch.stack([EA.responses(model, scaled(X, c), name, "I_E") for c in levels])
        assert_agree(curves[name], at_centre.mean(1), 1e-9)


def test_a_gain_curve_needs_no_circuit():
    model = small(circuit="bn")
    for scaling in ("intensity", "contrast"):
        curve = EA.gain_curve(model, X, [0.1, 1.0], "layers.1", scaling=scaling, what="I_E")
        assert curve.shape == (2, 16)
        assert not torch.allclose(curve[0], curve[1])
    with pytest.raises(ValueError, match="scaling must be"):
        EA.gain_curve(model, X, [1.0], "layers.1", scaling="size")
    with pytest.raises(ValueError, match=r"layers.0 is no E-I layer"):
        EA.gain_control(model, X, [0.2, 0.4, 0.6, 0.8, 1.0], "layers.0")
