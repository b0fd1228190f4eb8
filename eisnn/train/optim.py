"""The optimizer and its learning rate, a pure function of the step."""

import warnings
from math import cos, pi
from typing import Any, Literal

import torch
from pydantic import Field, ValidationError, model_validator
from torch import Tensor, nn

from eisnn.config import Config, Positive, problems
from eisnn.nn import layers_of
from eisnn.nn.dale import constrained_parameters, require_trainable
from eisnn.train.update_rules import RuledSGD, operations

ADAM_BETA_2 = 0.999
RULED = ("exponentiated", "orthogonal")
CORE, LONG = 1.3e11, 15.0  # operations a second of a fast CPU core; seconds a step that are worth a warning


class OptimizationConfig(Config):
    """How weights move: the optimizer, its rate, and for how long."""

    optimizer: Literal["sgd", "adam", "adamw", "exponentiated", "orthogonal"] = Field(
        "sgd",
        description="exponentiated: SGD by factors, so that no weight can change its sign; orthogonal: SGD whose steps "
        "of weight matrices have equal singular values (Muon).",
    )
    epochs: Positive = Field(300, description="Passes over the training images.")
    lr: float = Field(0.001, gt=0, description="Peak learning rate.")
    lr_start: float = Field(1e-7, ge=0, description="Learning rate at the start of the warm-up.")
    warmup_epochs: float = Field(10, ge=0, description="Length of the linear warm-up; then cosine to 0.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Of SGD; beta 1 of Adam.")
    first_step: Literal["usual", "published"] = Field(
        "usual",
        description="Of sgd; published: 1 + momentum times as long, as in the program of the paper's authors, where "
        "the momentum starts as the first gradient and takes it in again.",
    )
    weight_decay: float = Field(5e-4, ge=0, description="On the parameters that decay names.")
    decay: Literal["all", "feedforward"] = Field(
        "all", description="What decays: all parameters, or only weights from the layer below."
    )
    decoupled_decay: bool = Field(
        False,
        description="Decay the weights themselves, by lr * weight_decay of them a step, rather than as a part of the "
        "momentum; for orthogonal and exponentiated (adamw does so anyway).",
    )
    adaptive_clipping: float = Field(
        0.0,
        ge=0,
        description="Largest norm of a neuron's gradient, relative to that of its weights, as 0.1; 0 is off.",
    )
    average: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Decay of a moving average of the weights, kept with them, such as 0.999; 0 is off.",
    )

    @model_validator(mode="after")
    def _schedule(self) -> "OptimizationConfig":
        if self.warmup_epochs > self.epochs:
            raise ValueError(
                f"warmup_epochs is {self.warmup_epochs}, more than epochs = {self.epochs}; for a shorter run give a "
                "shorter warm-up as well (--warmup-epochs)"
            )
        if self.first_step == "published" and not (self.optimizer == "sgd" and self.momentum):
            raise ValueError(
                f"first_step is 'published', of SGD with momentum; got optimizer {self.optimizer!r} with momentum "
                f"{self.momentum}"
            )
        if self.decoupled_decay and self.optimizer not in RULED:
            raise ValueError(
                f"decoupled_decay belongs to the optimizers {' and '.join(RULED)}, got {self.optimizer!r}; "
                "of Adam it is adamw"
            )
        if self.lr_start > self.lr:
            raise ValueError(
                f"lr_start is {self.lr_start}, more than lr = {self.lr}: the warm-up rises from lr_start to lr; give a "
                "lower lr_start as well"
            )
        return self


def learning_rate(step: int, steps_per_epoch: int, config: OptimizationConfig) -> float:
    """Rate of `step` (from 0): linear warm-up from `lr_start` to `lr`, then cosine to 0 at the end of the run."""
    total = config.epochs * steps_per_epoch
    warmup = round(config.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return config.lr_start + (config.lr - config.lr_start) * step / warmup
    return config.lr * 0.5 * (1 + cos(pi * (step - warmup) / max(1, total - warmup)))


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def state_names(config: OptimizationConfig) -> tuple[str, ...]:
    """What the optimizer of a configuration keeps of each parameter after the first step."""
    if config.optimizer in ("adam", "adamw"):
        return "exp_avg", "exp_avg_sq", "step"
    return ("momentum_buffer",) if config.momentum else ()


def start_momentum(sgd: torch.optim.Optimizer, *_: Any) -> None:
    """Before a step of `torch.optim.SGD`: momenta that are not there yet start as the decayed gradient."""
    for group in sgd.param_groups:
        for w in group["params"]:
            if w.grad is not None and sgd.state[w].get("momentum_buffer") is None:
                sgd.state[w]["momentum_buffer"] = w.grad.detach() + group["weight_decay"] * w.detach()


def plus_optimizer(
    model: nn.Module, lr: float = 0.02, momentum: float = 0.9, weight_decay: float = 5e-4
) -> torch.optim.Optimizer:
    """The optimizer of the recipes `-plus`, for a network of your own with `options=eisnn.PLUS`: the parameter groups
    are made from the model.

    Steps of the weight matrices below the readout are orthogonalised (Muon), all other parameters get SGD's; only
    weights from the layer below decay. A readout is a layer without neurons, such as `EIReadout`, or whatever is the
    attribute `readout` of the model. Orthogonalising takes `4 n²d + 34 n³` operations a step for a matrix `[n, d]`
    that is wider than high: little for convolutions, half a minute on a CPU for a dense layer of 4,096 neurons and
    25,088 inputs (there is a warning). Call `eisnn.enforce_dale(optimizer, model)` afterwards, as with any optimizer.

    Args:
        model: whose parameters are trained.
        lr: learning rate; that of the recipes decays to 0 by a cosine, after a linear warm-up.
        momentum: in [0, 1).
        weight_decay: on feedforward weights.
    Returns: an optimizer as those of `torch.optim`.
    Raises: ValueError for a value out of range, and for a network that cannot be trained.
    """
    try:
        config = OptimizationConfig(
            optimizer="orthogonal",
            lr=lr,
            lr_start=0,
            momentum=momentum,
            weight_decay=weight_decay,
            decay="feedforward",
        )
    except ValidationError as error:
        raise ValueError(f"plus_optimizer: {'; '.join(problems(error))}") from None
    return make_optimizer(model, config)


def _warn_of_cost(matrices: dict[str, nn.Parameter]) -> None:
    """Warn where a step of orthogonalised updates takes long on a CPU, rather than be silent for minutes."""
    each = {name: operations(matrix.shape) for name, matrix in matrices.items()}
    if (total := sum(each.values())) > LONG * CORE:
        name = max(each, key=each.__getitem__)
        warnings.warn(
            f"orthogonalised updates of this network take {total / 1e12:.0f}e12 operations a step, at any batch size, "
            f"most of them for {name} {list(matrices[name].shape)}: about {total / CORE:.0f} s of a fast CPU core. "
            "Make that layer smaller, train on a GPU, or take another optimizer, such as torch.optim.SGD",
            stacklevel=3,
        )


def make_optimizer(model: nn.Module, config: OptimizationConfig, *, recordable: bool = False) -> torch.optim.Optimizer:
    """The optimizer of a configuration, with weight decay on all parameters, as in the paper, or on
    feedforward weights only, as exact balance needs it.

    "exponentiated" moves what Dale's law constrains by factors, "orthogonal" orthogonalises the steps of the weight
    matrices below the readout; the other parameters get SGD's steps.

    With `recordable`, on a GPU, its step can be recorded as a CUDA graph: the learning rate is a tensor there.

    Raises: ValueError for a network that cannot be trained, and if "exponentiated" finds no parameter that Dale's law
        constrains.
    """
    require_trainable(model)
    constrained = {id(parameter) for _, parameter in constrained_parameters(model)}
    if config.optimizer == "exponentiated" and not constrained:
        raise ValueError(
            "optimizer is 'exponentiated', but no parameter of the model keeps a sign; use circuit 'ei', "
            "without an ablation that takes the signs away"
        )

    readouts = [layer for layer in layers_of(model).values() if not layer.hidden]
    of_readouts = {id(parameter) for layer in readouts for parameter in layer.parameters()}
    lateral = {
        id(getattr(layer, name, None)) for layer in layers_of(model).values() for name in layer.lateral_parameters
    }

    def rule(name: str, parameter: nn.Parameter) -> str:
        readout = id(parameter) in of_readouts or name.startswith("readout.")
        matrix = parameter.ndim > 1 and not readout
        has = {"exponentiated": id(parameter) in constrained, "orthogonal": matrix}
        return config.optimizer if has.get(config.optimizer) else "additive"

    if config.optimizer == "orthogonal":
        _warn_of_cost({n: p for n, p in model.named_parameters() if p.is_cpu and rule(n, p) == "orthogonal"})
    chosen: dict[tuple[bool, str], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        decays = config.decay == "all" or (parameter.ndim > 1 and id(parameter) not in lateral)
        chosen.setdefault((not decays, rule(name, parameter)), []).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": chosen[free, kind], "weight_decay": 0.0 if free else config.weight_decay, "rule": kind}
        for free, kind in sorted(chosen)
    ]
    lr: Any = torch.tensor(config.lr, device=next(model.parameters()).device) if recordable else config.lr
    if config.optimizer in ("adam", "adamw"):
        for group in groups:
            del group["rule"]
        make = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
        return make(groups, lr, betas=(config.momentum, ADAM_BETA_2), capturable=recordable)
    made: torch.optim.Optimizer
    if config.optimizer == "sgd" and not recordable:  # torch's asks the host for the rate
        for group in groups:
            del group["rule"]
        made = torch.optim.SGD(groups, lr, config.momentum)
    else:
        made = RuledSGD(groups, lr, config.momentum, decoupled=config.decoupled_decay)
    if config.first_step == "published":
        made.register_step_pre_hook(start_momentum)
    return made
