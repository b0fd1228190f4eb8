"""The optimizer and its learning rate, a pure function of the step."""

from math import cos, pi
from typing import Any

import torch
from torch import nn

from eisnn.train.config import TrainConfig


def learning_rate(step: int, steps_per_epoch: int, config: TrainConfig) -> float:
    """Rate of `step` (from 0): linear warm-up from `lr_start` to `lr`, then cosine to 0 at the end of the run."""
    total = config.epochs * steps_per_epoch
    warmup = round(config.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return config.lr_start + (config.lr - config.lr_start) * step / warmup
    return config.lr * 0.5 * (1 + cos(pi * (step - warmup) / max(1, total - warmup)))


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD with momentum; weight decay on all parameters (method, section 6), or on feedforward weights only (P3)."""
    decaying: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        feedforward = parameter.ndim > 1 and not name.endswith("weight_ei")
        (decaying if feedforward or config.decay == "all" else free).append(parameter)
    groups: list[dict[str, Any]] = [{"params": decaying}]
    if free:
        groups.append({"params": free, "weight_decay": 0.0})
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)
