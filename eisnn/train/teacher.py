"""A trained network whose answers another one learns from (distillation, Hinton et al. 2015)."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from eisnn.data import DataError, Dataset
from eisnn.train.build import new_network, require_same_data
from eisnn.train.checkpoint import CheckpointError, load_model
from eisnn.train.config import TrainConfig
from eisnn.train.run import open_checkpoint

if TYPE_CHECKING:
    from lightning.fabric import Fabric


class Teacher:
    """A trained network in evaluation mode; Dale's law of its pupil is untouched.

    Args:
        model: on the device of the run, wrapped for its precision.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model.eval()

    def __call__(self, images: Tensor) -> Tensor:
        """Logits `[B, classes]`, without gradient."""
        with torch.no_grad():
            logits: Tensor = self._model(images)
        return logits


def load_teacher(config: TrainConfig, dataset: Dataset, fabric: "Fabric") -> Teacher | None:
    """The teacher that a configuration names, or None.

    Raises: CheckpointError if its checkpoint cannot be read or is of a network for other images; DataError if it knows
        other classes than `dataset`; ValueError if it was trained at another image size, or on images that this run
        holds out.
    """
    if config.objective.teacher is None:
        return None
    try:
        checkpoint = open_checkpoint(config.objective.teacher)
    except CheckpointError as error:
        raise CheckpointError(f"teacher: {error}") from error
    theirs = checkpoint.config
    try:
        require_same_data(dataset, checkpoint.metadata, checkpoint.file, images=False)
    except DataError as error:
        raise DataError(f"teacher: {error}, or another teacher (--teacher)") from error
    if theirs.data.image_size != config.data.image_size:
        raise ValueError(
            f"the teacher {checkpoint.file} was trained on images of {theirs.data.image_size} pixels, this run has "
            f"image_size {config.data.image_size}; give the same"
        )
    if theirs.data.hold_out < config.data.hold_out:
        raise ValueError(
            f"the teacher {checkpoint.file} was trained with hold_out {theirs.data.hold_out}, this run has "
            f"{config.data.hold_out}: it has seen images that this run holds out; train one that holds out as much"
        )
    machine = config.machine
    model = new_network(theirs.changed(precision=machine.precision, channels_last=machine.channels_last), dataset)
    load_model(model, checkpoint.tensors, checkpoint.file)
    return Teacher(fabric.setup_module(model))
