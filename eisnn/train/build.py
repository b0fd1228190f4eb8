"""What a configuration describes, made: its data and its network."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pydantic
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from eisnn.data import DataError, Dataset, Loader
from eisnn.data.config import load_data, train_loader
from eisnn.init import ei_init_
from eisnn.models import SpikingNetwork
from eisnn.models.config import build_model
from eisnn.nn import uninitialized
from eisnn.train.checkpoint import CheckpointError, load_model
from eisnn.train.config import TrainConfig
from eisnn.train.machine import laid_out
from eisnn.train.run import Checkpoint, open_checkpoint

NO_EPOCH = 2**31 - 1  # whose order and augmentation no training has


@pydantic.dataclasses.dataclass
class TrainedOn:
    """What a checkpoint keeps of its data, so that other data is noticed."""

    classes: list[str]
    training_images: int
    fingerprint: str | None = None  # older checkpoints have none
    channels: int | None = None  # nor this


def trained_on(dataset: Dataset) -> TrainedOn:
    return TrainedOn(list(dataset.classes), len(dataset.train), dataset.fingerprint, dataset.channels)


def require_same_data(dataset: Dataset, metadata: Mapping[str, Any], file: Path, *, images: bool) -> bool:
    """Whether `dataset` is the data that the checkpoint `file` was trained on, sample by sample.

    Raises: DataError if it has other classes, or with `images` other samples, labels or preprocessing.
    """
    try:
        then, now = TrainedOn(**metadata["data"]), trained_on(dataset)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{file} does not say what data it was trained on: its metadata lacks 'data'") from error
    if then.classes != now.classes:
        gone, new = (sorted(set(a.classes) - set(b.classes)) for a, b in ((then, now), (now, then)))
        raise DataError(
            f"the data set '{dataset.name}' has other classes than {file} was trained on: gone {gone[:5]}, "
            f"new {new[:5]}; give the data of the training (--data-path)"
        )
    if images and then.training_images != now.training_images:
        raise DataError(
            f"the data set '{dataset.name}' has {now.training_images} training images, but {file} was trained on "
            f"{then.training_images}; give the data of the training (--data-path), or start a new run"
        )
    same = then.fingerprint in (None, now.fingerprint)
    if images and not same:
        raise DataError(
            f"the data set '{dataset.name}' has other images, labels or preprocessing (fingerprint {now.fingerprint}) "
            f"than {file} was trained on ({then.fingerprint}); give the data of the training (--data-path), or start a "
            "new run"
        )
    return same


def new_network(config: TrainConfig, dataset: Dataset) -> SpikingNetwork:
    """The network of a run, for the channels and classes of `dataset`; not yet initialised if E-I."""
    model = build_model(
        config.network,
        num_classes=len(dataset.classes),
        in_channels=dataset.channels,
        image_size=config.data.image_size,
    )
    return laid_out(model, config.machine)


def open_given(field: str, config: TrainConfig, dataset: Dataset) -> Checkpoint:
    """The trained network that a field of `config`, "teacher" or "start_from", names.

    Raises: CheckpointError if its checkpoint cannot be read; DataError if it knows other classes than `dataset`;
        ValueError if it was trained at another image size, or on images that this run holds out.
    """
    option, path = f"--{field.replace('_', '-')}", config.fields()[field]
    try:
        checkpoint = open_checkpoint(path)
    except CheckpointError as error:
        raise CheckpointError(f"{field}: {error}") from error
    try:
        require_same_data(dataset, checkpoint.metadata, checkpoint.file, images=False)
    except DataError as error:
        raise DataError(f"{field}: {error}, or another network ({option})") from error
    theirs, own = checkpoint.config.data, config.data
    if theirs.image_size != own.image_size:
        raise ValueError(
            f"{field}: {checkpoint.file} was trained on images of {theirs.image_size} pixels, this run has image_size "
            f"{own.image_size}; give the same"
        )
    if theirs.hold_out < own.hold_out:
        raise ValueError(
            f"{field}: {checkpoint.file} was trained with hold_out {theirs.hold_out}, this run has {own.hold_out}: it "
            "has seen images that this run holds out; train one that holds out as much"
        )
    return checkpoint


def initialize(
    model: SpikingNetwork, config: TrainConfig, dataset: Dataset, train: Loader, process_group: Any = None
) -> None:
    """The weights of a new run: those of the trained network that `config` names, else by E-I Init, from the first
    batch that it will train on, or from a separate one of other images and augmentation.

    Raises: ValueError if the batches are too small for it, or for the batch norm of the twin; as `open_given`.
    """
    separate = config.data.init_batch == "separate"
    first = next(train.epoch(NO_EPOCH if separate else 0)).images.to(next(model.parameters()).dtype)
    if config.network.start_from is not None:
        given = open_given("start_from", config, dataset)
        load_model(model, given.tensors, given.file)
    try:
        if uninitialized(model):
            # In evaluation mode, so that no branch is left out.
            generator = torch.Generator().manual_seed(config.seed)
            ei_init_(model.eval(), first, generator=generator, process_group=process_group)
    except ValueError as error:
        if train.batch_size > 1:
            raise
        raise ValueError(
            f"batch_size is 1, but E-I Init measures how the images of the first batch differ: give 2 or more ({error})"
        ) from error
    if any(isinstance(module, _BatchNorm) or getattr(module, "batch_statistics", False) for module in model.modules()):
        _require_batch_statistics(model, first.narrow(train.images.batch_axis, 0, 1), train)


def _require_batch_statistics(model: SpikingNetwork, image: torch.Tensor, train: Loader) -> None:
    """ValueError if some batch leaves a process one image only and the model cannot normalize that."""
    images, size, processes = len(train.images), train.batch_size, train.world_size

    def smallest_part(batch_size: int) -> int:
        return (images % batch_size or batch_size) // processes

    with torch.no_grad():
        model.eval()(image)  # what else may be wrong, such as the size of the images
        if smallest_part(size) > 1:
            return
        try:
            deepcopy(model).train()(image)
        except ValueError as error:
            right = next((n for n in range(size + 1, images + 1) if smallest_part(n) > 1), None)
            raise ValueError(
                f"batch_size is {size} and there are {images} training images, so some batch (the last one of an "
                f"epoch) leaves a process a single image, over which batch norm cannot normalize; "
                + (f"batch_size {right} would do" if right else "more images are needed")
            ) from error


def initial_model(config: TrainConfig) -> SpikingNetwork:
    """The network of a run as it is before the first step, on the CPU."""
    dataset = load_data(config.data, config.network.time_steps)
    torch.manual_seed(config.seed)
    model = new_network(config, dataset)
    initialize(model, config, dataset, train_loader(config.data, dataset, config.seed))
    return model
