"""A trained network whose answers another one learns from (distillation, Hinton et al. 2015)."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from eisnn.data import Dataset
from eisnn.train.build import new_network, open_given
from eisnn.train.checkpoint import load_model
from eisnn.train.config import TrainConfig

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

    Raises: as `open_given`; CheckpointError also if it is a network for other images.
    """
    if config.objective.teacher is None:
        return None
    checkpoint = open_given("teacher", config, dataset)
    here = {"precision": config.machine.precision, "channels_last": config.machine.channels_last}
    model = new_network(checkpoint.config.changed(**here), dataset)
    load_model(model, checkpoint.tensors, checkpoint.file)
    return Teacher(fabric.setup_module(model))
