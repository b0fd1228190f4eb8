"""Models by name."""

from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any

from torch import nn

from eisnn.cortex import CorticalOptions
from eisnn.functional.checks import check_int
from eisnn.methods import make_layers
from eisnn.models.mlp import MLP
from eisnn.models.network import SpikingNetwork
from eisnn.models.resnet import BLOCKS, SEWResNet
from eisnn.models.transformer import TRANSFORMERS, SpikingTransformer
from eisnn.models.vgg import PLANS, VGG
from eisnn.names import did_you_mean
from eisnn.nn import CircuitOptions
from eisnn.nn.registry import circuit_of

MODELS: dict[str, Callable[..., SpikingNetwork]] = {
    **{name: partial(VGG, plan) for name, plan in PLANS.items()},
    **{name: partial(SEWResNet, blocks) for name, blocks in BLOCKS.items()},
    **{name: partial(SpikingTransformer, stages) for name, stages in TRANSFORMERS.items()},
    "mlp": partial(MLP, (512, 256)),
    "mlp-64": partial(MLP, (64,)),
}


_OF_ALL = ("layers", "in_channels", "num_classes", "time_steps")  # arguments of every class of models


def list_models() -> list[str]:
    """Names that `create_model` knows."""
    return list(MODELS)


def create_model(
    name: str,
    num_classes: int = 10,
    in_channels: int = 3,
    time_steps: int = 4,
    circuit: str = "ei",
    neuron: nn.Module | None = None,
    ei_ratio: int | None = None,
    circuit_options: CircuitOptions | CorticalOptions | None = None,
    ablation: str | None = None,
    answer_steps: int | None = None,
    **options: Any,
) -> SpikingNetwork:
    """Build a network; an E-I one still needs `eisnn.ei_init_` before its first forward.

    Args:
        name: one of `list_models()`.
        num_classes, in_channels, time_steps: readout, input, and T.
        circuit: "ei" is the paper's, "bn" the batch-norm twin; the others are in `eisnn.methods.CIRCUITS`.
        neuron: copied into each layer; None is `LIF()`, the paper's, and `ReLU()` for circuit "dann".
        ei_ratio: E neurons for each I neuron (4 in the paper), for circuits that have both.
        circuit_options: departures from the paper's circuit, for circuit "ei"; of circuit "cortex" its
            `eisnn.cortex.CorticalOptions`.
        ablation: what part of the paper's circuit is missing, one of `eisnn.methods.ABLATIONS`, for circuit "ei".
        answer_steps: the answer is the mean of the logits over so many last steps; None is all T.
        **options: of the model class, e.g. `width=0.25`, `image_size=28` (MLP).
    Raises: ValueError for an unknown model, circuit or ablation or a value out of range; TypeError for a neuron that is
        no module or an option that the circuit or the model does not have.
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; known: {', '.join(MODELS)}")
    given = {"ei_ratio": ei_ratio, "options": circuit_options, "ablation": ablation}
    given = {option: value for option, value in given.items() if value is not None}
    layers = make_layers(circuit, circuit_of(circuit).default_neuron if neuron is None else neuron, time_steps, **given)
    if answer_steps is not None:
        check_int("create_model", "answer_steps", answer_steps)
        if answer_steps > time_steps:
            raise ValueError(f"answer_steps is {answer_steps}, more than the time_steps, {time_steps}")
    known = [option for option in signature(MODELS[name]).parameters if option not in _OF_ALL]
    if unknown := [option for option in options if option not in known]:
        hint = did_you_mean(unknown[0], [*known, *_OF_ALL])
        raise TypeError(f"the model {name!r} has no option {unknown[0]!r}; {hint}its options: {', '.join(known)}")
    model = MODELS[name](layers, in_channels, num_classes, time_steps, **options)
    model.answer_steps = answer_steps
    return model
