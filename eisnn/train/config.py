"""One complete, typed and validated description of a training run. Its fields are the options of `eisnn train`."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from eisnn.data.augment import Augmentation
from eisnn.nn.options import PAPER, CircuitOptions

Positive = Annotated[int, Field(ge=1)]


class TrainConfig(BaseModel):
    """A training run.

    Raises: pydantic.ValidationError naming the field, the value and what would be right.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    # The network
    model: str = Field("vgg8", description="Architecture, see `eisnn list`.")
    circuit: str = Field("ei", description="Kind of layer: ei is the paper's, bn its twin; others: `eisnn list`.")
    circuit_options: CircuitOptions = Field(PAPER, description="Departures of circuit ei from the paper's.")
    ablation: str | None = Field(None, description="Part of circuit ei that is missing, see `eisnn list`.")
    ei_ratio: Positive = Field(4, description="E neurons for each I neuron, of circuits ei and dann.")
    width: float = Field(1.0, gt=0, description="Multiplies the channels of every layer.")
    time_steps: Positive = Field(4, description="T, simulation steps for each image.")
    tau: float = Field(2.0, ge=1, description="Membrane time constant, time steps.")
    learn_tau: bool = Field(False, description="Each layer learns its time constant, from tau on (PLIF; slower).")
    surrogate: str = Field("sigmoid", description="Surrogate derivative of the spike.")
    # The data
    dataset: str = Field("cifar10", description="Data set, see `eisnn list`.")
    data_path: str | None = Field(None, description="Its archive or folder; None looks in the data folder.")
    download: bool = Field(False, description="Fetch the data set if it is not there.")
    image_size: Positive = Field(32, description="Side of the images, pixels; smaller ones are padded, larger resized.")
    hold_out: float = Field(
        0.0, ge=0, lt=1, description="Part of the training images held out, and evaluated on instead of the test split."
    )
    train_images: Positive | None = Field(
        None, description="Use only so many training images, as many of each class; None uses all."
    )
    test_images: Positive | None = Field(None, description="Evaluate on only so many images, likewise.")
    data_on_device: bool | Literal["auto"] = Field(
        "auto",
        description="Keep all images on the training device, rather than move each batch there; auto: where they take "
        "at most a quarter of its free memory.",
    )
    augmentation: Augmentation = Field(default_factory=Augmentation, description="Of the training images.")
    # Optimization
    optimizer: Literal["sgd", "adam", "adamw", "exponentiated", "orthogonal"] = Field(
        "sgd",
        description="exponentiated: SGD by factors, so that no weight can change its sign; orthogonal: SGD whose steps "
        "of weight matrices have equal singular values (Muon).",
    )
    epochs: Positive = Field(300, description="Passes over the training images.")
    batch_size: Positive = Field(128, description="Images a step, over all processes together.")
    lr: float = Field(0.001, gt=0, description="Peak learning rate.")
    lr_start: float = Field(1e-7, ge=0, description="Learning rate at the start of the warm-up.")
    warmup_epochs: float = Field(10, ge=0, description="Length of the linear warm-up; then cosine to 0.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Of SGD; beta 1 of Adam.")
    weight_decay: float = Field(5e-4, ge=0, description="On the parameters that decay names.")
    decay: Literal["all", "feedforward"] = Field(
        "all", description="What decays: all parameters, or only weights from the layer below."
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
    center_gradients: bool = Field(
        False, description="Subtract from the gradients of weight_ee and weight_ie their mean over the fan-in."
    )
    synaptic_scaling: float = Field(
        0.0,
        ge=0,
        le=1,
        description="After each step scale a neuron's excitation towards its inhibition, by the ratio of the two to "
        "this power, such as 0.05; 0 is off.",
    )
    stochastic_depth: float = Field(
        0.0, ge=0, lt=1, description="Of a resnet: probability of leaving out the last block for an image in training."
    )
    # The loss
    loss: Literal["mean", "tet"] = Field(
        "mean", description="Cross-entropy of the mean of the logits over time, or the mean of each time step's (tet)."
    )
    im_loss: float = Field(0.0, ge=0, description="Weight of the information maximization loss (Guo et al. 2022).")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Part of the target spread over all classes.")
    teacher: str | None = Field(None, description="A run's folder or checkpoint, whose answers to learn as well.")
    distillation: float = Field(0.5, gt=0, le=1, description="Weight of the teacher's answers; labels get the rest.")
    temperature: float = Field(4.0, ge=0.01, le=1000, description="Divides the logits of both.")
    seed: Annotated[int, Field(ge=0, lt=2**64)] = Field(0, description="Of weights, order and augmentation.")
    # The machine
    precision: Literal["32", "bf16", "64"] = Field("32", description="bf16 is mixed: division and membrane stay in 32.")
    accelerator: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: cuda where there is one, else cpu.")
    devices: Positive = Field(1, description="Devices (processes) on each node.")
    num_nodes: Positive = Field(1, description="Nodes.")
    channels_last: bool = Field(True, description="Memory format of maps and kernels; faster on most machines.")
    cuda_graph: bool = Field(
        True,
        description="On one GPU record forward and backward pass once and replay them, which spares the host launching "
        "every kernel; not with stochastic_depth, which draws numbers on the host.",
    )
    # The record
    checkpoint_seconds: float = Field(
        60.0, ge=0, description="Time between checkpoints; 0 writes one at every step (on cuda: with each log line)."
    )
    evaluate_epochs: Positive = Field(
        1, description="Epochs from one evaluation to the next; there is one after the last epoch in any case."
    )
    log_steps: Positive = Field(50, description="Steps between lines of the log.")
    tensorboard: bool = Field(False, description="Write TensorBoard events beside metrics.jsonl.")
    record: bool = Field(False, description="Save histograms of each layer's currents after every epoch.")

    @field_validator("circuit_options", mode="before")
    @classmethod
    def _without_balanced(cls, given: Any) -> Any:
        """Runs of earlier versions name an option that is gone; none of them used it."""
        if isinstance(given, dict) and given.get("balanced") is False:
            return {name: value for name, value in given.items() if name != "balanced"}
        return given

    @model_validator(mode="after")
    def _known_names(self) -> "TrainConfig":
        from eisnn.data import list_datasets
        from eisnn.functional import SURROGATES
        from eisnn.methods import ABLATIONS, CIRCUITS
        from eisnn.models import list_models

        known = {
            "model": list_models(),
            "circuit": list(CIRCUITS),
            "ablation": list(ABLATIONS),
            "surrogate": list(SURROGATES),
            "dataset": list_datasets(),
        }
        for field, names in known.items():
            if getattr(self, field) not in (*names, None):
                raise ValueError(f"{field} is {getattr(self, field)!r}; known: {', '.join(sorted(names))}")
        return self

    @model_validator(mode="after")
    def _schedule(self) -> "TrainConfig":
        if self.warmup_epochs > self.epochs:
            raise ValueError(
                f"warmup_epochs is {self.warmup_epochs}, more than epochs = {self.epochs}; for a shorter run give a "
                "shorter warm-up as well"
            )
        if self.lr_start > self.lr:
            raise ValueError(
                f"lr_start is {self.lr_start}, more than lr = {self.lr}: the warm-up rises from lr_start to lr; give a "
                "lower lr_start as well"
            )
        return self

    @model_validator(mode="after")
    def _what_belongs_to_the_circuit(self) -> "TrainConfig":
        from eisnn.nn.registry import circuit_of

        own = {"circuit_options": PAPER, "ablation": None, "ei_ratio": 4}
        given = [name for name, value in own.items() if getattr(self, name) != value]
        foreign = given if self.circuit not in ("ei", "dann") else [name for name in given if name != "ei_ratio"]
        if self.circuit != "ei" and foreign:
            raise ValueError(f"{', '.join(foreign)} belong to circuit ei, got circuit {self.circuit!r}")
        if self.ablation is not None and self.circuit_options != PAPER:
            raise ValueError(
                f"ablation is {self.ablation!r}, of the paper's circuit, but circuit_options depart from it; give one "
                "of them"
            )
        if self.circuit != "ei" and (self.center_gradients or self.synaptic_scaling):
            raise ValueError(f"center_gradients and synaptic_scaling are for circuit ei, got circuit {self.circuit!r}")
        if self.circuit_options.conserved and self.synaptic_scaling:
            raise ValueError("synaptic_scaling is for circuits without conserved totals, which balance exactly")
        if self.stochastic_depth and not self.model.startswith("resnet"):
            raise ValueError(f"stochastic_depth is for resnets, got model {self.model!r}")
        neurons = circuit_of(self.circuit).neurons
        if self.im_loss and (self.circuit == "ei" or neurons != "any"):
            raise ValueError(
                f"im_loss is {self.im_loss}: it follows the LIF neurons of circuits such as plain or bn, not of "
                f"{self.circuit!r}"
            )
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

    @model_validator(mode="after")
    def _augmentation_leaves_something(self) -> "TrainConfig":
        sizes = {"crop_padding": self.augmentation.crop_padding}
        if self.augmentation.cutout == "square":
            sizes["cutout_size"] = self.augmentation.cutout_size
        for name, size in sizes.items():
            if size > self.image_size:
                raise ValueError(
                    f"augmentation.{name} is {size} pixels, more than the images have (image_size {self.image_size}): "
                    "nothing would be left of some"
                )
        return self

    @model_validator(mode="after")
    def _an_image_for_each_process(self) -> "TrainConfig":
        processes = self.devices * self.num_nodes
        if self.batch_size < processes:
            raise ValueError(f"batch_size is {self.batch_size}, less than one image for each of {processes} processes")
        return self

    def changed(self, **fields: Any) -> "TrainConfig":
        """A copy with other values, validated; None leaves a field as it is, and paths become absolute."""
        given = {name: value for name, value in fields.items() if value is not None}
        for name in {"data_path", "teacher"} & given.keys():
            given[name] = str(Path(os.path.expanduser(given[name])).absolute())
        return TrainConfig(**(self.model_dump() | given))


def problems(error: ValidationError) -> list[str]:
    """One line for each of pydantic's errors: field, what would be right, and the value; our own name all three."""
    return [
        f"{'.'.join(map(str, e['loc']))}: {e['msg']}, got {e['input']!r}"
        if e["loc"]
        else e["msg"].removeprefix("Value error, ")
        for e in error.errors()
    ]
