"""What training minimises."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eisnn.data.loader import Batch
from eisnn.train.config import TrainConfig


def cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean over the rows of `logits` `[N, classes]`, in at least float32; `labels` `[N]`, or probabilities
    `[N, classes]`."""
    wide = logits.float() if logits.dtype != torch.float64 else logits
    return F.cross_entropy(wide, labels, label_smoothing=label_smoothing)


class Objective:
    """The loss of a configuration: cross-entropy of the logits averaged over T, or at each of the T steps.

    "tet" is the first term of temporal efficient training (Deng et al. 2022, eq. (10)), without the regularisation of
    the outputs towards a constant.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config

    def __call__(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean loss of a batch, and its logits averaged over T, `[B, classes]`."""
        smoothing = self.config.label_smoothing
        if self.config.loss == "mean":
            logits = model(batch.images)
            return cross_entropy(logits, batch.labels, smoothing), logits
        steps = model(batch.images, per_step=True)
        loss = cross_entropy(steps.flatten(0, 1), batch.labels.repeat(len(steps)), smoothing)
        return loss, steps.mean(0)
