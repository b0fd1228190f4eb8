"""Trained networks opened with their data, whoever wrote the checkpoint, and evaluated."""

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eisnn.data import Dataset, Loader
from eisnn.data.config import evaluation_loader, keeps_resident, load_data
from eisnn.interop.authors import Released, read_released, released_folder
from eisnn.interop.shared import locate
from eisnn.models import SpikingNetwork
from eisnn.nn import NonFiniteActivity
from eisnn.train.average import averaged_weights
from eisnn.train.build import new_network, require_same_data
from eisnn.train.checkpoint import CheckpointError, load_model
from eisnn.train.config import TrainConfig
from eisnn.train.evaluation import evaluate_loader
from eisnn.train.machine import make_fabric
from eisnn.train.metrics import FiringRate
from eisnn.train.run import open_checkpoint


@dataclass(frozen=True)
class Trained:
    """A checkpoint, opened: the network with its weights (on the CPU), its configuration, its data and its file; and
    the network with the average of its weights, if the run kept one; and notes: that the data are others, or what of a
    released file of the authors' program has no effect."""

    model: SpikingNetwork
    config: TrainConfig
    dataset: Dataset
    file: Path
    average: SpikingNetwork | None = None
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Trained({str(self.file)!r}, {self.config.network.model}, {self.dataset})"

    def test_pixels(self) -> Tensor:
        """All test images as the network takes them, rounded to bytes, `[N, C, H, W]`."""
        loader = Loader(self.dataset.test, len(self.dataset.test), size=self.config.data.image_size)
        return next(iter(loader.epoch())).images.mul(255).round().to(torch.uint8)

    def training_images(self, count: int) -> Tensor:
        """At most `count` training images drawn with the seed 0, as the network takes them, not augmented; ValueError
        for less than one."""
        if count < 1:
            raise ValueError(f"images is {count}, expected at least 1")
        size = self.config.data.image_size
        return next(Loader(self.dataset.train, count, shuffle=True, size=size).epoch()).images


def load_trained(path: str | Path, *, data_path: str | None = None, accelerator: str | None = None) -> Trained:
    """Open a trained network together with its data (`eisnn.load` gives the network alone).

    Args:
        path: a run's folder (its last checkpoint), `RUN/best.safetensors`, any checkpoint of this package, a name that
            `eisnn.load` knows, or a released checkpoint of the authors' program (the folder of `model.safetensors` and
            `config.json`).
        data_path: where the data is, if not where it was at training.
        accelerator: other than at training.
    Raises: CheckpointError naming the file if it is missing, damaged or of another model; DataError, also if the
        classes are not those of the training.
    """
    path = locate(path)
    if (released := released_folder(path)) is not None:
        return _load_released(read_released(released), data_path, accelerator)
    file, config, tensors, metadata = open_checkpoint(path)
    config = config.changed(devices=1, num_nodes=1, data_path=data_path, accelerator=accelerator)
    dataset = load_data(config.data, config.network.time_steps, file)
    same = require_same_data(dataset, metadata, file, images=False)
    model = new_network(config, dataset)
    load_model(model, tensors, file)
    average = None
    if weights := averaged_weights(tensors):
        average = deepcopy(model)
        load_model(average, weights, file)
    note = f"the data set '{dataset.name}' is not the one of the training: other images, labels or preprocessing"
    return Trained(model, config, dataset, file, average, () if same else (note,))


def _load_released(released: Released, data_path: str | None, accelerator: str | None) -> Trained:
    config = released.config.changed(data_path=data_path, accelerator=accelerator)
    dataset = load_data(config.data, config.network.time_steps, released.file)
    asked = released.model.in_channels, released.model.num_classes
    there = dataset.channels, len(dataset.classes)
    if asked != there:
        raise CheckpointError(
            f"{released.file} takes images of {asked[0]} channels and tells {asked[1]} classes apart; the data set "
            f"'{dataset.name}' has {there[0]} channels and {there[1]} classes"
        )
    return Trained(released.model, config, dataset, released.file, notes=released.notes)


def evaluate(path: str | Path, *, data_path: str | None = None, accelerator: str | None = None) -> dict[str, Any]:
    """Evaluate a checkpoint file, or a run folder's last checkpoint, on its evaluation split.

    Args:
        path, data_path, accelerator: as in `load_trained`.
    Returns: loss, accuracy in %, firing rate, and what was evaluated; the three also of the averaged weights
        ("average_loss", ...), if the run kept an average; and `notes`, see `Trained`.
    Raises: CheckpointError naming the file if it is missing, damaged or of another model; DataError.
    """
    trained = load_trained(path, data_path=data_path, accelerator=accelerator)
    config, dataset = trained.config, trained.dataset
    fabric = make_fabric(config.machine)
    resident = keeps_resident(config.data, fabric.device, dataset.test)
    loader = evaluation_loader(config.data, dataset, device=fabric.device, resident=resident)

    def measure(model: SpikingNetwork) -> dict[str, float]:
        rates = FiringRate(model)
        try:
            found = evaluate_loader(fabric.setup_module(model), loader, rates)
        except NonFiniteActivity as error:
            raise CheckpointError(f"{trained.file}: {error}, its weights are too large; use another one") from error
        assert found is not None
        return found

    result = measure(trained.model)
    if trained.average is not None:
        result |= {f"average_{name}": value for name, value in measure(trained.average).items()}
    split = f"held-out {config.data.hold_out:.0%} of the training images" if config.data.hold_out else "test split"
    return {
        "checkpoint": str(trained.file),
        "dataset": config.data.dataset,
        "split": split,
        "images": len(dataset.test),
        "kind": dataset.test.kind,
        "notes": trained.notes,
        **result,
    }
