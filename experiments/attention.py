"""Spiking transformers: what division in attention brings, what reaches each block at the start, and what is attended.

Two blocks of 64 channels and four heads on 16 tokens of the sample's images at 16x16 pixels, by the paper's circuit,
`-plus` and the batch-norm twin, with attention of each kind of scale (`eisnn.nn.attention`).

    python experiments/attention.py --seeds 3      # 2,500 images, 4 epochs: 12 minutes of a core
    python experiments/attention.py --seeds 3 --subset 5000 --epochs 12 --output experiments/results/attention_long
    python experiments/attention.py --start        # activity and gradient by layer
    python experiments/attention.py --maps docs/science/attention.png   # of the networks with seed 0
"""

import json
from pathlib import Path
from typing import Any

import torch
from depth import propagation
from matplotlib.figure import Figure
from study import parser, run_script, study, trained
from telling import Row
from torch import Tensor

from eisnn.analysis import record, spiking_layers
from eisnn.analysis.figures import COLORS, bare
from eisnn.data import load
from eisnn.init import ei_init_
from eisnn.nn import layers_of
from eisnn.nn.attention import SelfAttention
from eisnn.provenance import provenance, write_result
from eisnn.train import TrainConfig, initial_model, recipe

ORTHOGONALISED = "batch norm, fixed, orthogonalised updates"
MAPPED = ("plus, divisive", "batch norm, fixed")


def rows() -> list[Row]:
    """The first is what the others are compared with."""
    plus, paper, twin = (recipe(f"demo-spikformer{end}") for end in ("-plus", "", "-bn"))
    made: dict[str, TrainConfig] = {
        "plus, divisive": plus,
        "batch norm, fixed": twin,
        ORTHOGONALISED: twin.changed(optimizer="orthogonal", lr=0.05),
        "plus, gain": plus.changed(attention="gain"),
        "plus, fixed": plus.changed(attention="fixed"),
        "paper, fixed": paper,
        "paper, divisive": paper.changed(attention="divisive"),
    }
    return [Row(name, config) for name, config in made.items()]


def deeper() -> list[Row]:
    """Four blocks and twelve heads, as published, of the same 64 channels."""
    chosen = ("plus, divisive", "batch norm, fixed", "paper, fixed")
    return [
        Row(f"{row.name}, 4 blocks", row.config.changed(model="spikformer", width=1 / 6))
        for row in rows()
        if row.name in chosen and row.config
    ]


def start(output: Path, count: int = 64) -> None:
    """What each layer of each network shows for one batch before training."""
    sample = load("cifar10-sample", size=16).train
    chosen = torch.randperm(len(sample), generator=torch.Generator().manual_seed(0))[:count]
    images, labels = sample.pixels[chosen].float() / 255, sample.labels[chosen]
    found: dict[str, Any] = {}
    for row in (*rows(), *deeper()):
        assert row.config is not None
        if row.name == ORTHOGONALISED:  # its start is that of the twin
            continue
        model = initial_model(row.config)
        if row.config.network.circuit == "ei":
            ei_init_(model, images, generator=torch.Generator().manual_seed(0), redraw=True)
        found[row.name] = dict(zip(spiking_layers(model), propagation(model, images, labels), strict=True))
        twice = torch.nn.functional.interpolate(images, scale_factor=2)
        with torch.no_grad(), record(model, attentions(model), "spikes") as seen:
            model(twice)
        for name, values in seen.items():
            found[row.name][name]["rate_of_four_times_the_tokens"] = float(values["spikes"].mean())
    write_result(output / "start.json", {**provenance(), "images": count, "rows": found})
    draw_start(output / "start.png", {row.name: found[row.name] for row in deeper()})
    print(start_table(output))


def draw_start(file: Path, found: dict[str, Any]) -> None:
    """Activity and gradient by layer, in order; dots are layers of attention."""
    told = {
        "rate": "spikes a step",
        "between_images": "share of variance between images",
        "gradient": "gradient, of the last layer's",
    }
    figure = Figure(figsize=(9, 3), layout="constrained")
    panels = figure.subplots(1, len(told))
    for panel, (key, title) in zip(panels, told.items(), strict=True):
        for color, (name, layers) in zip(COLORS, found.items(), strict=False):
            values = [values[key] for values in layers.values()]
            if key == "gradient":
                values = [value / values[-1] for value in values]
            panel.plot(values, color=color, label=name)
            at = [k for k, layer in enumerate(layers) if layer.endswith("attention")]
            panel.plot(at, [values[k] for k in at], "o", color=color, markersize=4)
        panel.set(xlabel="layer", ylabel=title)
        bare(panel)
    panels[-1].set_yscale("log")
    panels[0].set_ylim(0, None)
    panels[1].set_ylim(0, 1)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    figure.savefig(file, dpi=130)


def attentions(model: torch.nn.Module) -> list[str]:
    """Names of the layers of attention."""
    return [name for name in spiking_layers(model) if name.endswith("attention")]


def start_table(folder: Path) -> str:
    """The start as Markdown: ranges over the circuits, and the attention of each block."""
    found = json.loads((folder / "start.json").read_text())["rows"]
    head = ["network", "spikes/step", "std(I_E)", "share between images", "gradient, first over last layer"]
    head += ["spikes/step of attention, by block", "of four times the tokens"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row, layers in found.items():
        circuits = [values for name, values in layers.items() if not name.endswith("attention")]
        ranges = [sorted(values[key] for values in circuits) for key in ("rate", "std", "between_images")]
        cells = [f"{values[0]:.2f} to {values[-1]:.2f}" for values in ranges]
        cells.append(f"{circuits[0]['gradient'] / circuits[-1]['gradient']:.1f}")
        attended = [values for name, values in layers.items() if name.endswith("attention")]
        cells += [", ".join(f"{v[key]:.2f}" for v in attended) for key in ("rate", "rate_of_four_times_the_tokens")]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


def maps(file: Path, args: Any, count: int = 4) -> None:
    """What the token in the middle of photographs attends to, by the trained networks: the mean over steps and heads of
    the last block's attention, in coincidences, at twice the size that they were trained at."""
    sample = load("cifar10-sample").test
    pixels = sample.pixels[torch.arange(0, len(sample), len(sample) // count)[:count]]
    images = pixels.float() / 255
    columns = {"photograph": images.movedim(1, -1)}
    for row in rows():
        if row.name in MAPPED:
            _, found = trained(row, args)
            columns[row.name] = attended(found.model.eval(), images)
    figure = Figure(figsize=(2.2 * len(columns), 2.1 * count), layout="constrained")
    panels = figure.subplots(count, len(columns), squeeze=False)
    for axes, (title, shown) in zip(panels.T, columns.items(), strict=True):
        axes[0].set_title(title, fontsize="small")
        for panel, values in zip(axes, shown, strict=True):
            panel.imshow(values, cmap="viridis", interpolation="nearest")
            panel.set_axis_off()
    figure.savefig(file, dpi=130)


@torch.no_grad()
def attended(model: torch.nn.Module, images: Tensor) -> Tensor:
    """How much the tokens around the middle attend to each, `[B, H, W]`, as a share of all."""
    seen: list[Tensor] = []
    attention = [layer for layer in layers_of(model).values() if isinstance(layer, SelfAttention)][-1]
    handle = attention.register_forward_pre_hook(lambda layer, args: seen.append(layer.map(args[0])))
    model(images)
    handle.remove()
    mean = seen[0].mean((0, 2))  # [B, queries, keys]
    side = round(mean.shape[-1] ** 0.5)
    middle = mean.unflatten(1, (side, side))[:, side // 2 - 1 : side // 2 + 1, side // 2 - 1 : side // 2 + 1]
    of_tokens = middle.mean((1, 2))
    return (of_tokens / of_tokens.sum(1, keepdim=True).clamp_min(1e-9)).unflatten(1, (side, side))


def main() -> None:
    made = parser(__doc__, epochs=4, subset=2500)
    made.add_argument("--start", action="store_true", help="measure the start only")
    made.add_argument("--maps", type=Path, help="draw attention maps; what is not trained yet is trained first")
    args = made.parse_args()
    if args.start:
        start(args.output)
    elif args.maps:
        maps(args.maps, args)
    else:
        study(rows(), args)


if __name__ == "__main__":
    run_script(main)
