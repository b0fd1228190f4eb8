"""The part of a configuration that describes the network, and the network it describes."""

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from torch import nn

from eisnn.config import Config, Positive, require_known
from eisnn.cortex import CorticalOptions
from eisnn.functional import SURROGATES
from eisnn.methods import ABLATIONS, CIRCUITS
from eisnn.models.network import SpikingNetwork
from eisnn.models.registry import create_model, list_models
from eisnn.models.transformer import TRANSFORMERS
from eisnn.nn import LIF, PLIF
from eisnn.nn.attention import AttentionKind
from eisnn.nn.options import PAPER, CircuitOptions


class NetworkConfig(Config):
    """A network, but for what its images say."""

    model: str = Field("vgg8", description="Architecture, see `eisnn list`.")
    circuit: str = Field("ei", description="Kind of layer: ei is the paper's, bn its twin; others: `eisnn list`.")
    circuit_options: CircuitOptions = Field(PAPER, description="Departures of circuit ei from the paper's.")
    ablation: str | None = Field(None, description="Part of circuit ei that is missing, see `eisnn list`.")
    ei_ratio: Positive = Field(4, description="E neurons for each I neuron, of circuits ei, dann and cortex.")
    cortex: CorticalOptions = Field(CorticalOptions(), description="Populations and time constants of circuit cortex.")
    start_from: str | None = Field(
        None, description="Run, checkpoint or name of a trained network like this, to start from its weights."
    )
    width: float = Field(1.0, gt=0, description="Multiplies the channels of every layer.")
    time_steps: Positive = Field(4, description="T, simulation steps for each image.")
    answer_steps: Positive | None = Field(
        None, description="The answer is the mean of the logits over so many last steps; None: over all T."
    )
    tau: float = Field(2.0, ge=1, description="Membrane time constant, time steps.")
    learn_tau: bool = Field(False, description="Each layer learns its time constant, from tau on (PLIF; slower).")
    surrogate: str = Field("sigmoid", description="Surrogate derivative of the spike.")
    weights: Literal["torch", "fan-out"] = Field(
        "torch",
        description="Convolutions of circuit bn at the start: torch's, or normal of variance 2 / fan-out (Kaiming).",
    )
    attention: AttentionKind = Field(
        "fixed",
        description="Scale of a transformer's attention: fixed is the published one; gain: measured at the start and "
        "learned; divisive: divided by what each token attends in all.",
    )
    stochastic_depth: float = Field(
        0.0, ge=0, lt=1, description="Of a resnet: probability of leaving out the last block for an image in training."
    )

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without options of another circuit: a default that changes must not make networks of others unreadable."""
        return {name: value for name, value in write(self).items() if name != "cortex" or self.circuit == "cortex"}

    @model_validator(mode="after")
    def _known_names(self) -> "NetworkConfig":
        require_known(
            model=(self.model, list_models()),
            circuit=(self.circuit, list(CIRCUITS)),
            ablation=(self.ablation, list(ABLATIONS)),
            surrogate=(self.surrogate, list(SURROGATES)),
        )
        return self

    @model_validator(mode="after")
    def _what_belongs_to_the_circuit(self) -> "NetworkConfig":
        own: dict[str, Any] = {"circuit_options": PAPER, "ablation": None}
        if self.circuit not in ("dann", "cortex"):
            own["ei_ratio"] = 4
        foreign = [name for name, value in own.items() if getattr(self, name) != value]
        if self.circuit != "ei" and foreign:
            raise ValueError(
                f"{', '.join(foreign)} belong to circuit ei, got circuit {self.circuit!r} (recipes named -plus set "
                "circuit_options: take the one without)"
            )
        if self.circuit != "cortex" and self.cortex != CorticalOptions():
            raise ValueError(f"cortex has the options of circuit cortex; got circuit {self.circuit!r}")
        if self.answer_steps is not None and self.answer_steps > self.time_steps:
            raise ValueError(f"answer_steps is {self.answer_steps}, more than the time_steps, {self.time_steps}")
        if self.ablation is not None and self.circuit_options != PAPER:
            raise ValueError(
                f"ablation is {self.ablation!r}, of the paper's circuit, but circuit_options depart from it; give one "
                "of them"
            )
        if self.weights != "torch" and self.circuit != "bn":
            raise ValueError(f"weights is {self.weights!r}, which belongs to circuit bn; got circuit {self.circuit!r}")
        if self.stochastic_depth and not self.model.startswith("resnet"):
            raise ValueError(f"stochastic_depth is for resnets, got model {self.model!r}")
        if self.attention != "fixed" and self.model not in TRANSFORMERS:
            raise ValueError(f"attention is for {', '.join(TRANSFORMERS)}, got model {self.model!r}")
        neurons = CIRCUITS[self.circuit].neurons
        if self.learn_tau and (self.tau == 1 or neurons != "any"):
            raise ValueError(
                f"learn_tau is for circuits of LIF neurons with tau > 1, got tau {self.tau} in circuit {self.circuit!r}"
            )
        if neurons == "rate" and (self.tau, self.surrogate) != (2.0, "sigmoid"):
            raise ValueError(
                f"the units of circuit {self.circuit!r} do not spike: tau and surrogate must stay 2.0 and 'sigmoid', "
                f"got {self.tau} and {self.surrogate!r}"
            )
        return self


def build_model(network: NetworkConfig, *, num_classes: int, in_channels: int, image_size: int) -> SpikingNetwork:
    """The network of a configuration for images of a kind; not yet initialised if E-I.

    Args:
        network: its part of the configuration.
        num_classes, in_channels, image_size: of the images; their size in pixels matters to an MLP only.
    """
    options: dict[str, Any] = {"image_size": image_size} if network.model.startswith("mlp") else {}
    if network.model in TRANSFORMERS:
        options["attention"] = network.attention
    if network.stochastic_depth:
        options["stochastic_depth"] = network.stochastic_depth
    circuit_options = network.cortex if network.circuit == "cortex" else network.circuit_options
    neuron = (PLIF if network.learn_tau else LIF)(tau=network.tau, surrogate=network.surrogate)
    model = create_model(
        network.model,
        num_classes=num_classes,
        in_channels=in_channels,
        time_steps=network.time_steps,
        circuit=network.circuit,
        neuron=None if CIRCUITS[network.circuit].neurons == "rate" else neuron,
        width=network.width,
        circuit_options=circuit_options if circuit_options != PAPER else None,
        ablation=network.ablation,
        ei_ratio=network.ei_ratio if network.circuit in ("ei", "dann", "cortex") else None,
        answer_steps=network.answer_steps,
        **options,
    )
    if network.weights == "fan-out":
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model
