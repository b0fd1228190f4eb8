"""Histograms of the integrated current of each layer after every epoch: one small file for a whole training run.

`eisnn train RECIPE --record` writes `currents.npz`. Its arrays:

epochs          [E]         int64; 0 is the network at its start
edges           [K + 1]     float64, units of the threshold; the same for all
LAYER           [E, K + 2]  int64, how many values of `I_E` fell below the first edge, in each bin, and above the last
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from eisnn.analysis.layers import evaluated
from eisnn.analysis.record import record

BINS = 160
EDGES = np.linspace(-8, 8, BINS + 1)  # of I_E; the threshold is 1


@dataclass(frozen=True)
class CurrentHistograms:
    """Attributes:
    epochs: `[E]`, after which they were taken; 0 is the network at its start.
    edges: `[K + 1]`, of the bins, units of the threshold.
    counts: `{layer: [E, K + 2]}`, the first and the last beyond the edges.
    """

    epochs: NDArray[np.int64]
    edges: NDArray[np.float64]
    counts: dict[str, NDArray[np.int64]]

    def density(self, layer: str) -> NDArray[np.float64]:
        """Density `[E, K]` of `I_E` in each bin, per unit of the threshold; what lies beyond the edges is missing."""
        counts = self.counts[layer]
        return counts[:, 1:-1] / counts.sum(1, keepdims=True) / np.diff(self.edges)

    def with_epoch(self, epoch: int, counts: dict[str, NDArray[np.int64]]) -> "CurrentHistograms":
        """With one more epoch, in the place of that and of all later ones: a resumed run takes them again."""
        kept = self.epochs < epoch
        joined = {name: np.concatenate([self.counts[name][kept], new[None]]) for name, new in counts.items()}
        return CurrentHistograms(np.append(self.epochs[kept], epoch), self.edges, joined)

    def to_bytes(self) -> bytes:
        """The content of a file that `load_histograms` reads."""
        file = io.BytesIO()
        arrays: dict[str, Any] = {"epochs": self.epochs, "edges": self.edges, **self.counts}
        np.savez_compressed(file, **arrays)
        return file.getvalue()


def no_histograms(layers: list[str]) -> CurrentHistograms:
    """Of a run that has not begun."""
    empty = {name: np.zeros((0, BINS + 2), dtype=np.int64) for name in layers}
    return CurrentHistograms(np.zeros(0, dtype=np.int64), EDGES, empty)


def load_histograms(file: Path) -> CurrentHistograms:
    """What `train --record` saved; ValueError for another file."""
    try:
        with np.load(file) as arrays:
            found = dict(arrays)
        return CurrentHistograms(found.pop("epochs"), found.pop("edges"), found)
    except (KeyError, ValueError, BadZipFile, EOFError) as error:
        raise ValueError(f"{file} holds no histograms of currents (currents.npz of a recorded run): {error}") from error


@torch.no_grad()
def current_histograms(model: nn.Module, images: Tensor) -> dict[str, NDArray[np.int64]]:
    """Counts `[K + 2]` of `I_E` by layer for `images`; the model is evaluated, and left in the mode it was in."""
    edges = torch.from_numpy(EDGES).to(images.device)
    with evaluated(model), record(model, what="I_E") as recorded:
        model(images)
    return {
        name: torch.bucketize(values["I_E"].double().flatten(), edges, right=True)
        .bincount(minlength=BINS + 2)
        .cpu()
        .numpy()
        for name, values in recorded.items()
    }
