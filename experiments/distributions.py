"""Shapes of distributions, in numbers and as histograms: what Figures 4 and 7 share."""

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from study import described
from torch import Tensor

from eisnn.analysis.figures import BLUE, GREY, ORANGE
from eisnn.data import Loader
from eisnn.interop import Trained
from eisnn.provenance import provenance, write_result

IMAGES = 200
Values = Mapping[str, Mapping[str, Tensor]]  # by layer and state


def images(trained: Trained, count: int = IMAGES) -> Tensor:
    """Test images of a trained network's data, evenly spread over the split, `[count, C, H, W]` (all if there
    are fewer), in the dtype of its weights."""
    split = trained.dataset.test
    count = min(count, len(split))
    chosen = split[torch.linspace(0, len(split) - 1, count).long()]  # files may be sorted by class
    x = next(Loader(chosen, count, size=trained.config.data.image_size).epoch()).images
    return x.to(next(trained.model.parameters()).dtype)


def moments(values: Tensor) -> dict[str, float]:
    """Mean, standard deviation, skewness, and Sarle's bimodality coefficient (skewness² + 1) / kurtosis: 1/3 for a
    Gaussian, 5/9 for a uniform distribution, up to 1 for two narrow peaks."""
    x = values.detach().double().flatten()
    mean, std = float(x.mean()), float(x.std())
    z = (x - mean) / std if std > 0 else torch.zeros_like(x)
    skew, kurtosis = float((z**3).mean()), float((z**4).mean())
    bimodality = (skew**2 + 1) / kurtosis if kurtosis > 0 else float("nan")
    return {"mean": mean, "standard_deviation": std, "skewness": skew, "bimodality": bimodality}


def table(numbers: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Markdown: layer, state (before and after training), and the moments."""
    lines = [
        "| layer | | mean | standard deviation | skewness | bimodality (Gaussian: 0.33) |",
        "|---|---|---|---|---|---|",
    ]
    for layer, states in numbers.items():
        for state, row in states.items():
            lines.append(f"| {layer} | {state} | " + " | ".join(f"{value:.2f}" for value in row.values()) + " |")
    return "\n".join(lines)


def histograms(file: Path, values: Values, label: str) -> None:
    """One panel for each layer, one outline for each state."""
    figure = Figure(figsize=(2.6 * len(values), 2.8), layout="constrained")
    for axes, (layer, states) in zip(figure.subplots(1, len(values), squeeze=False)[0], values.items(), strict=True):
        flat = {state: np.asarray(v.detach().float().cpu()).ravel() for state, v in states.items()}
        low, high = np.percentile(np.concatenate(list(flat.values())), [0.5, 99.5])
        for (state, v), color in zip(flat.items(), (BLUE, GREY) if len(flat) == 1 else (GREY, BLUE), strict=False):
            axes.hist(v, bins=80, range=(low, high), density=True, histtype="step", color=color, label=state)
        axes.axvline(1, color=ORANGE, linewidth=0.8, linestyle="--", label="threshold")
        axes.set(title=layer, xlabel=label, yticks=[])
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize="xx-small")
    figure.savefig(file, dpi=130)


def figure_files(args: argparse.Namespace) -> tuple[Path, Path, Path]:
    """Numbers, table and picture of a figure's script."""
    args.output.mkdir(parents=True, exist_ok=True)
    stem = args.output / args.output.name
    return stem.with_suffix(".json"), stem.with_suffix(".md"), stem.with_suffix(".png")


def tell(args: argparse.Namespace, trained: Trained, images: int, values: Values, label: str) -> None:
    """Write and print the numbers of all distributions, and draw them.

    Args:
        trained: the network that they are of.
        images: how many they were measured on.
        values: by layer and state.
        label: what they are, on the axis.
    """
    numbers = {name: {state: moments(v) for state, v in states.items()} for name, states in values.items()}
    result, text, picture = figure_files(args)
    write_result(result, {**provenance(), "images": images, "config": described(trained.config), "layers": numbers})
    text.write_text(table(numbers) + "\n")
    histograms(picture, values, label)
    print(table(numbers))
