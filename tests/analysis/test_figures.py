"""Figures: where what they draw lies. That they look well no test can say."""

from math import nan
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from circuits import rng
from matplotlib.figure import Figure

from eisnn.analysis import PUBLISHED_UNITS
from eisnn.analysis.figures import maps, style, training
from eisnn.analysis.figures.currents import balance, currents, weights
from eisnn.analysis.figures.selectivity import selectivity


def test_maps_lie_in_rows_with_white_between_them():
    sheet = maps._sheet(np.stack([np.full((2, 3), k / 10) for k in range(6)]), columns=4)
    assert sheet.shape == (5, 15)
    at = {k: sheet[3 * (k // 4) : 3 * (k // 4) + 2, 4 * (k % 4) : 4 * (k % 4) + 3] for k in range(6)}
    assert all((part == k / 10).all() for k, part in at.items())
    assert (sheet[2] == 1).all()
    assert (sheet[:, 3] == 1).all()
    assert (sheet[3:, 8:] == 1).all()


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_feature_maps_show_the_image_and_a_sheet_for_each_network(channels):
    pixels = torch.rand(channels, 4, 5, generator=rng(0))
    axes = list(Figure().subplots(1, 3))
    rates = {"E-I": torch.rand(6, 2, 2, generator=rng(1)), "BN": torch.rand(3, 2, 2, generator=rng(2))}
    maps.feature_maps(axes, pixels, rates)
    shown = [panel.images[0].get_array() for panel in axes]
    expected = pixels if channels == 3 else pixels.mean(0, keepdim=True).expand(3, -1, -1)
    assert np.allclose(shown[0], expected.permute(1, 2, 0))
    assert [panel.get_title() for panel in axes[1:]] == ["E-I", "BN"]
    for panel, own in zip(axes[1:], rates.values(), strict=True):
        assert np.array_equal(panel.images[0].get_array(), maps._sheet(own.numpy()))
        assert panel.images[0].get_clim() == (0, 1)


def test_frames_follow_each_other_in_rows_below_their_captions():
    axes = Figure().subplots()
    maps.frame_sequence(axes, torch.rand(5, 3, 10, 20, generator=rng(0)), [f"step {k}" for k in range(5)])
    corners = [(22 * (k % 3), 14 * (k // 3)) for k in range(5)]
    for image, box, text, (left, top) in zip(axes.images, axes.patches, axes.texts, corners, strict=True):
        assert image.get_extent() == pytest.approx([left, left + 20, top + 10, top])
        assert (*box.get_xy(), box.get_width(), box.get_height()) == pytest.approx((left, top, 20, 10))
        assert text.get_position() == pytest.approx((left + 10, top - 0.5))
    assert [text.get_text() for text in axes.texts] == [f"step {k}" for k in range(5)]
    low, high = axes.get_xlim()
    assert low < 0 <= 64 <= high
    bottom, top = axes.get_ylim()
    assert bottom > 24 > 0 > top


def test_balance_is_drawn_on_axes_of_one_length():
    axes = Figure().subplots()
    pairs = [(torch.rand(2, 30, generator=rng(k)), torch.rand(2, 30, generator=rng(k + 2))) for k in range(2)]
    balance(axes, *pairs)
    largest = max(float(x.max()) for pair in pairs for x in pair)
    assert axes.get_xlim() == axes.get_ylim()
    assert axes.get_xlim()[0] == 0
    assert axes.get_xlim()[1] >= largest
    assert axes.get_aspect() == 1


def test_networks_are_told_apart_by_colour_and_line_and_curves_begin_at_epoch_1():
    axes = Figure().subplots()
    curves = {"E-I": [10.0, 30.0], "BN": [20.0, 40.0, 41.0]}
    training.accuracy_curves(axes, curves, chance=10)
    for line, (name, curve), color in zip(axes.lines, curves.items(), style.COLORS, strict=False):
        assert (line.get_label(), line.get_color()) == (name, color)
        assert np.array_equal(line.get_xydata(), np.stack([np.arange(len(curve)) + 1, curve], 1))
    axes = Figure().subplots()
    training.progress(axes, {name: dict(enumerate(curve, 1)) for name, curve in curves.items()}, "accuracy (%)")
    assert [line.get_linestyle() for line in axes.lines] == ["-", "--"]
    assert [line.get_color() for line in axes.lines] == list(style.COLORS[:2])
    assert [side for side, spine in axes.spines.items() if spine.get_visible()] == ["left", "bottom"]


def test_histograms_are_told_apart_and_hold_what_they_count():
    axes, x = Figure().subplots(), torch.randn(2000, generator=rng(0))
    currents(axes, x, 2 * x)
    before, after = axes.patches
    assert before.get_edgecolor() != after.get_edgecolor()
    assert before.get_linestyle() != after.get_linestyle()
    axes = Figure().subplots()
    weights(axes, {"W_EE": (style.BLUE, x.abs()), "W_EI": (style.ORANGE, x.abs() / 9)})
    one, other = axes.patches
    assert one.get_edgecolor() != other.get_edgecolor()
    assert one.get_linestyle() != other.get_linestyle()
    assert one.get_path().vertices[:, 1].max() < 1  # parts of all weights


@pytest.mark.parametrize(("values", "seen"), [(np.array([0.5, nan]), "2 values, 1 of"), (torch.ones(0), "0 values")])
def test_currents_are_finite_numbers_as_tensors_or_arrays(values, seen):
    currents(Figure().subplots(), None, np.linspace(0, 1, 200))
    with pytest.raises(ValueError, match=f"what is drawn must be finite, got {seen}"):
        currents(Figure().subplots(), None, values)


def test_a_pathway_keeps_its_line_where_another_is_closed():
    """The legend of a page names line styles by pathway."""
    styles = []
    for closed in (torch.ones(4), torch.zeros(4)):
        axes = Figure().subplots()
        weights(axes, {"a": ("red", torch.ones(4)), "b": ("green", closed), "c": ("blue", torch.ones(4))})
        styles.append([patch.get_linestyle() for patch in axes.patches])
    assert styles[1] == [styles[0][0], styles[0][2]]


def test_selectivity_draws_cells_and_medians_of_the_types_that_there_are():
    cells = SimpleNamespace(osi=[0.2, 0.4, 0.9], dsi=[nan] * 3, rate=[1.0, 2.0, 3.0])
    panels = Figure().subplots(1, 3).tolist()
    selectivity(panels, {"network": {"E": cells}, "units": PUBLISHED_UNITS})
    osi, dsi, _ = panels
    assert [label.get_text() for label in osi.get_xticklabels()] == ["E", "PV", "SST"]
    assert [float(line.get_ydata()[0]) for line in osi.lines if len(line.get_ydata()) == 1] == [0.4, 0.29, 0.14, 0.10]
    assert len(dsi.lines) == 0
