"""What training minimises."""

from collections.abc import Callable
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from eisnn.config import Config
from eisnn.data.loader import Batch
from eisnn.models.network import last_steps
from eisnn.train.im_loss import InformationMaximization
from eisnn.train.rate import RateTarget


class ObjectiveConfig(Config):
    """The loss, and who else is listened to."""

    loss: Literal["mean", "tet"] = Field(
        "mean",
        description="Cross-entropy of the mean of the logits over time, or the mean of each time step's (tet); of the "
        "last answer_steps, if they are given.",
    )
    im_loss: float = Field(0.0, ge=0, description="Weight of the information maximization loss (Guo et al. 2022).")
    target_rate: float | None = Field(
        None, gt=0, lt=1, description="Firing rate that no layer shall exceed; rate_weight says how much it matters."
    )
    rate_weight: float = Field(1.0, gt=0, description="Weight of the sum over layers of (rate / target - 1)^2.")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Part of the target spread over all classes.")
    teacher: str | None = Field(
        None, description="Run, checkpoint or name of a trained network, whose answers to learn as well."
    )
    distillation: float = Field(0.5, gt=0, le=1, description="Weight of the teacher's answers; labels get the rest.")
    temperature: float = Field(4.0, ge=0.01, le=1000, description="Divides the logits of both.")


def cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean over the rows of `logits` `[N, classes]`, in at least float32; `labels` `[N]`, or probabilities
    `[N, classes]`."""
    return F.cross_entropy(_wide(logits), labels, label_smoothing=label_smoothing)


def distillation_loss(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """`T^2 KL(softmax(teacher / T) || softmax(logits / T))`, mean over images; both `[B, classes]`.

    The factor keeps the size of the gradient as the temperature T rises. Source: Hinton et al. 2015.
    """
    ours, theirs = (F.log_softmax(_wide(x) / temperature, dim=-1) for x in (logits, teacher_logits))
    return temperature**2 * F.kl_div(ours, theirs, reduction="batchmean", log_target=True)


def _wide(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype != torch.float64 else logits


def targets(batch: Batch, classes: int) -> Tensor:
    """Labels `[B]`; of mixed images the shares of the classes, `[B, classes]`."""
    if batch.mixture is None:
        return batch.labels
    every = torch.arange(classes, device=batch.labels.device)  # one_hot would ask for the largest label
    own, others = (labels[:, None] == every for labels in (batch.labels, batch.mixture.labels))
    share = batch.mixture.share[:, None]
    return share * own + (1 - share) * others


class Objective:
    """The loss of a configuration: cross-entropy of the logits averaged over the steps of the answer, or at each of
    them; with a teacher, beside it the distance to its answers.

    "tet" is the first term of temporal efficient training (Deng et al. 2022), without that which draws the outputs
    towards a constant.

    Args:
        config: its part of the configuration.
        teacher: gives logits `[B, classes]` for images, without gradient.
        im_loss: has collected the term that `im_loss` weighs.
        rate: has collected the term that `rate_weight` weighs.
        answer_steps: the last steps, of which the answer is made; None is all T.
    """

    def __init__(
        self,
        config: ObjectiveConfig,
        teacher: Callable[[Tensor], Tensor] | None = None,
        im_loss: InformationMaximization | None = None,
        rate: RateTarget | None = None,
        answer_steps: int | None = None,
    ) -> None:
        self.config, self.teacher, self.im_loss, self.rate = config, teacher, im_loss, rate
        self.answer_steps = answer_steps

    def __call__(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean loss of a batch, and its logits averaged over the steps of the answer, `[B, classes]`."""
        config = self.config
        if config.loss == "mean":
            logits = model(batch.images)
            loss = cross_entropy(logits, targets(batch, logits.shape[-1]), config.label_smoothing)
        else:
            steps = last_steps(model(batch.images, per_step=True), self.answer_steps)
            each = torch.cat([targets(batch, steps.shape[-1])] * len(steps))
            loss, logits = cross_entropy(steps.flatten(0, 1), each, config.label_smoothing), steps.mean(0)
        if self.teacher is not None:
            learned = distillation_loss(logits, self.teacher(batch.images), config.temperature)
            loss = (1 - config.distillation) * loss + config.distillation * learned
        if self.im_loss is not None:
            loss = loss + config.im_loss * self.im_loss.take()
        if self.rate is not None:
            loss = loss + config.rate_weight * self.rate.take()
        return loss, logits
