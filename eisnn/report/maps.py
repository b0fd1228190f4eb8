"""Feature maps of the E-I circuit beside those of batch norm on the same images (Fig. 8)."""

from typing import NamedTuple

import torch
from torch import Tensor

from eisnn.analysis import contour_correlation, record, spiking_layers
from eisnn.analysis import figures as fig
from eisnn.report.opened import Opened, drawn_counts
from eisnn.report.page import Block, Figure, Panel, Section, Table

SHOWN_IMAGES, SHOWN_MAPS = 4, 8


class _Maps(NamedTuple):
    """Firing rates `[B, n_E, H, W]` of the first layer of a run's network."""

    name: str
    network: str
    rates: Tensor


def recordings(opened: Opened) -> Section:
    """Frames of recordings as the network sees them, and what it says after each."""
    with torch.no_grad():
        said = opened.model(opened.images, per_step=True).cumsum(0).argmax(-1)  # [T, N], by the mean so far
    panels = []
    for k in _one_of_each_class(opened, SHOWN_IMAGES):
        answers = [opened.dataset.classes[label] for label in said[:, k].tolist()]
        label = opened.dataset.classes[int(opened.labels[k])]
        svg = fig.svg(fig.frame_sequence, drawn_counts(opened.images[:, k]), answers, size=(2.9, 2.6))
        panels.append(
            Panel(svg, f"{len(answers)} frames of {label}; the network says {', '.join(answers)}", label, photo=True)
        )
    reading = (
        "The frames of a recording, row by row, orange where it became brighter (ON), blue where darker (OFF). "
        "Above each: what the network says after it, by the mean of its logits so far."
    )
    text = f"Recordings of {opened.dataset.name} as the network sees them: {opened.images.shape[0]} time steps."
    return Section("Recordings", text, [Figure("Frames and answers", panels, reading)])


def feature_maps(opened: Opened, against: Opened | None) -> Section:
    """First-layer firing rates over the image, channel by channel."""
    title = "Feature maps"
    if opened.unseen:
        return Section(title, opened.unseen)
    networks = [opened] if against is None or against.unseen else [opened, against]
    maps = [_first_layer(each) for each in networks]
    if any(each.rates.ndim != 4 for each in maps):
        return Section(title, "The first layer of this network has no map: it sees the image as one vector.")
    shown = _one_of_each_class(opened, SHOWN_IMAGES)
    panels = []
    for k in shown:
        label = opened.dataset.classes[int(opened.labels[k])]
        drawn = {each.name: each.rates[k, _most_varied(each.rates)] for each in maps}
        svg = fig.svg(fig.feature_maps, opened.picture(k), drawn, size=(2.6, 2 + 1.6 * len(maps)), rows=1 + len(maps))
        words = ", ".join(f"{name} {100 * float((m > 0).float().mean()):.0f} %" for name, m in drawn.items())
        panels.append(Panel(svg, f"A test image and its maps; active positions: {words}", label, photo=True))
    rows = []
    for each in maps:
        r = contour_correlation(each.rates, opened.stills)
        r = r[~r.isnan()]
        active = (each.rates > 0).float().mean()
        spread = r.std() if len(r) > 1 else torch.zeros(())
        rows.append(
            [
                f"{each.name} ({each.network})",
                f"{r.mean():+.2f} ± {spread:.2f}",
                f"{100 * float(active):.0f}",
                f"{each.rates.mean():.3f}",
            ]
        )
    reading = (
        f"Below each image, the firing rate of {SHOWN_MAPS} neurons (channels) of the first layer at each position: "
        "black 0, white a spike at every step; the channels are those whose maps vary most over all images. The "
        "paper reports that E-I maps follow contours where those of batch norm are dense."
    )
    columns = ["network", "r with contours", "active positions %", "rate"]
    table_reading = (
        "r: correlation over positions of the mean map with the strength of the image's contours (brightness "
        f"gradient), mean ± standard deviation over {len(opened.labels)} {opened.samples}; 1 would be a map of the "
        "contours."
    )
    text = "What the first layer fires to."
    if against is None:
        text += " With `--against RUN` another run, such as the batch-norm twin, stands beside it."
    blocks: list[Block] = [
        Figure("Maps of the first layer", panels, reading),
        Table("Contours", columns, rows, table_reading),
    ]
    return Section(title, text, blocks)


def _first_layer(opened: Opened) -> _Maps:
    layer = next(iter(spiking_layers(opened.model)))
    with torch.no_grad(), record(opened.model, layers=[layer], what=["spikes"]) as recorded:
        opened.model(opened.images)
    return _Maps(opened.name, opened.network, recorded[layer]["spikes"].mean(0))


def _most_varied(rates: Tensor) -> Tensor:
    """Channels whose maps vary most over images and positions, most varied first."""
    return rates.transpose(0, 1).flatten(1).var(1).argsort(descending=True)[:SHOWN_MAPS]


def _one_of_each_class(opened: Opened, count: int) -> list[int]:
    """The first image of each of the first classes that have one."""
    first = {int(label): k for k, label in reversed(list(enumerate(opened.labels.tolist())))}
    return [first[label] for label in sorted(first)][:count]
