"""Which classes the network confuses."""

import torch

from eisnn.analysis import figures as fig
from eisnn.report.opened import Opened
from eisnn.report.page import Block, Figure, Panel, Section, Table

MOST_CLASSES = 30  # in the picture
MOST_PAIRS = 10  # in the table of confusions


def classes(opened: Opened) -> Section:
    """The confusion matrix, and the pairs of classes that are confused most."""
    names, labels = opened.dataset.classes, opened.labels
    with torch.no_grad():
        answers = torch.cat([opened.model(part).argmax(-1) for part in opened.images.split(100, -4)])
    counts = torch.zeros(len(names), len(names), dtype=torch.long)
    counts.index_put_((labels, answers), torch.ones_like(labels), accumulate=True)
    right, shown = counts.diagonal(), counts.sum(1)
    pairs = [
        (int(n), true, said) for true, row in enumerate(counts) for said, n in enumerate(row) if n and true != said
    ]
    pairs.sort(key=lambda pair: (-pair[0], pair[1:]))
    rows = [
        [f"{names[true]} taken for {names[said]}", f"{n}", f"{100 * n / int(shown[true]):.0f}"]
        for n, true, said in pairs[:MOST_PAIRS]
    ]
    blocks: list[Block] = []
    if len(names) <= MOST_CLASSES:
        size = 1.8 + 0.32 * len(names)
        svg = fig.svg(fig.confusion, counts, names, size=(size, size))
        alt = "Confusion matrix; right: " + ", ".join(
            f"{name} {r} of {n}" for name, r, n in zip(names, right.tolist(), shown.tolist(), strict=True)
        )
        reading = (
            "Rows: the true class. Columns: what the network says. Numbers are images; those on the diagonal are right."
        )
        blocks.append(Figure("Confusion matrix", [Panel(svg, alt)], reading))
    table_reading = f"The {len(rows)} most frequent confusions, and their part of the images of the true class."
    blocks.append(Table("Confusions", ["true class and answer", "images", "%"], rows, table_reading))
    return Section(
        "Classes", f"What the network takes {len(labels)} {opened.split} for: {int(right.sum())} are right.", blocks
    )
