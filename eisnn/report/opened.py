"""A run, opened for a look inside: its networks before and after training, and the images they are shown."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eisnn.analysis import assess, spiking_layers
from eisnn.data import Dataset, Loader, Split
from eisnn.data.events.draw import colours
from eisnn.interop import load_trained
from eisnn.interop.shared import locate
from eisnn.models import SpikingNetwork
from eisnn.nn import SpikingLayer, layers_of
from eisnn.train import Run, TrainConfig, initial_model
from eisnn.train.build import require_same_data
from eisnn.train.checkpoint import load_checkpoint

MOST_LAYERS = 24  # in figures, so that the page of a deep network stays a page
IMAGES_SEED = 0  # which images are shown does not depend on the run


def drawn_counts(counts: Tensor) -> Tensor:
    """RGB in [0, 1] of frames of counts: `[..., 2, H, W]` to `[..., 3, H, W]`, all on one scale."""
    busy = counts[counts > 0]
    full = max(float(busy.quantile(0.95)), 1e-6) if len(busy) else 1.0
    return torch.from_numpy(colours(counts.movedim(-3, 0).numpy(), full)).movedim(-1, -3) / 255


def picture_of(images: Tensor, k: int) -> Tensor:
    """Image k of `[N, C, H, W]` or `[T, N, 2, H, W]` to look at, `[C, H, W]` in [0, 1]; of events the frame with most
    of them, polarity in colour; of a trial its inputs as rows over time."""
    if images.ndim == 4:
        return images[k]
    frames = images[:, k]
    if frames.shape[-2:] == (1, 1):
        return (frames[..., 0, 0].T / frames.max().clamp_min(1e-6))[None]
    return drawn_counts(frames[int(frames.sum((1, 2, 3)).argmax())])


@dataclass(frozen=True)
class Opened:
    """A run and what sections are made from.

    Attributes:
        run: the folder.
        config: its configuration, for one process on the CPU.
        model: the network of the last checkpoint, on the CPU, in evaluation mode.
        dataset: what it was trained on; `test` is the split that accuracies are of.
        metadata: of the checkpoint.
        shown: samples drawn from `dataset.test`.
        images, labels: of these, `[N, C, H, W]` in [0, 1], or of recordings of events frames `[T, N, 2, H, W]`, of
            trials `[T, N, C, 1, 1]`; and `[N]`.
    """

    run: Run
    config: TrainConfig
    model: SpikingNetwork
    file: Path
    dataset: Dataset
    metadata: dict[str, Any]
    shown: Split
    images: Tensor
    labels: Tensor

    def __repr__(self) -> str:
        return f"Opened({self.name!r}: {self.network}, {len(self.labels)} {self.split} of {self.dataset.name})"

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.run.folder.resolve().name

    @property
    def network(self) -> str:
        """The network in a few words."""
        circuit = {"ei": "E-I circuit", "bn": "batch norm"}.get(
            self.config.network.circuit, self.config.network.circuit
        )
        if self.config.network.circuit == "ei" and self.config.network.circuit_options.conserved:
            circuit = "E-I circuit, exact balance"
        if self.config.network.ablation is not None:
            circuit = f"{circuit}, ablation {self.config.network.ablation}"
        return f"{self.config.network.model}, {circuit}"

    @property
    def chance(self) -> float:
        """Accuracy of guessing, %."""
        return 100 / len(self.dataset.classes)

    @property
    def split(self) -> str:
        """What the accuracies are measured on."""
        return f"{'held-out' if self.config.data.hold_out else 'test'} {self.samples}"

    @property
    def are_sequences(self) -> bool:
        """Whether `images` are sequences of frames."""
        return self.images.ndim == 5

    @property
    def samples(self) -> str:
        """What the data set is made of."""
        return self.dataset.test.kind

    def first(self, count: int) -> Tensor:
        """The first `count` of `images`, or all if there are fewer."""
        return self.images.narrow(-4, 0, min(count, len(self.labels)))

    @property
    def stills(self) -> Tensor:
        """`images` without time, `[N, C, H, W]`: the mean of their frames."""
        return self.images.mean(0) if self.are_sequences else self.images

    def picture(self, k: int) -> Tensor:
        """Image k to look at; see `picture_of`."""
        return picture_of(self.images, k)

    @property
    def initial(self) -> SpikingNetwork | None:
        """The network before the first step, made again from the run's seed; None where that cannot be done."""
        return self._initial[0]

    @property
    def no_initial(self) -> str:
        """Why there is no `initial`; empty if there is one."""
        return self._initial[1]

    @cached_property
    def _initial(self) -> tuple[SpikingNetwork | None, str]:
        try:
            require_same_data(self.dataset, self.metadata, self.file, images=True)  # E-I Init depends on them
            # In training mode batch norm takes the statistics of the batch: it has gathered no others yet.
            return initial_model(self.config).train(), ""
        except ValueError as error:
            return None, str(error)

    @cached_property
    def ei_layers(self) -> dict[str, SpikingLayer]:
        """The hidden layers with the paper's pathways by name; none in a baseline, in circuits with others, or where a
        part of the circuit is ablated."""
        found = spiking_layers(self.model).items()
        return {name: layer for name, layer in found if layer.synapses() is not None}

    @property
    def no_circuit(self) -> str:
        """Why there are no `ei_layers`; empty if there are."""
        if self.ei_layers:
            return ""
        if self.config.network.ablation is not None:
            return (
                f"A part of these circuits is ablated ({self.config.network.ablation}): their currents are not those "
                "of their weights, so there is nothing to show here."
            )
        if any(layer.lateral_parameters for layer in layers_of(self.model).values()):
            return (
                f"The circuits of {self.config.network.circuit!r} have other pathways than the paper's, which this "
                "section measures, so there is nothing to show here. eisnn.record has their currents."
            )
        return "This network has no E-I circuits, so there is nothing to show here."

    @property
    def unseen(self) -> str:
        """Why nothing can be measured inside; empty if it can."""
        if spiking_layers(self.model):
            return ""
        return f"Nothing spikes in circuit {self.config.network.circuit}, so there is nothing to show here."

    @cached_property
    def drawn(self) -> list[str]:
        """Names of the hidden layers that figures show: all, or `MOST_LAYERS` of them, evenly chosen."""
        names = list(spiking_layers(self.model))
        steps = min(len(names), MOST_LAYERS) - 1
        return [names[round(k * (len(names) - 1) / max(steps, 1))] for k in range(steps + 1)]

    @property
    def drawn_circuits(self) -> list[str]:
        """Those of them that are circuits: not attention, which has no weights."""
        return [name for name in self.drawn if name in self.ei_layers]

    @property
    def left_out(self) -> str:
        """A sentence if figures do not show all layers."""
        count = len(spiking_layers(self.model))
        return f" Shown are {len(self.drawn)} of {count} layers, evenly chosen." if count > len(self.drawn) else ""

    @cached_property
    def assessed(self) -> dict[str, Any]:
        """Accuracy on `images`, and the activity of each layer; see `assess`."""
        return assess(self.model, self.images, self.labels)


def open_run(folder: str | Path, images: int = 200, data_path: str | None = None) -> Opened:
    """Open the last checkpoint of a run.

    Args:
        folder: of the run.
        images: how many images of the evaluation split to show it, >= 1; the same ones for each run on the same data.
        data_path: where the data is, if not where it was at training.
    Raises: RunError for a folder that holds no run, or another log than its checkpoint was written with;
        CheckpointError, DataError; ValueError for less than one image.
    """
    if images < 1:
        raise ValueError(f"images is {images}, expected at least 1")
    run = Run(locate(folder))
    run.config()
    trained = load_trained(run.folder, data_path=data_path, accelerator="cpu")
    config, dataset = trained.config, trained.dataset
    metadata = load_checkpoint(trained.file)[1]
    progress = metadata.get("progress", {})
    run.require_log(progress.get("log_size", 0), progress.get("log_digest", ""))
    split = dataset.test
    chosen = torch.randperm(len(split), generator=torch.Generator().manual_seed(IMAGES_SEED))[:images].sort().values
    shown = split[chosen]
    batch = next(Loader(shown, len(shown), size=config.data.image_size).epoch())
    dtype = next(trained.model.parameters()).dtype
    images_of_run = batch.images.to(dtype)
    return Opened(
        run, config, trained.model.eval(), trained.file, dataset, metadata, shown, images_of_run, batch.labels
    )
