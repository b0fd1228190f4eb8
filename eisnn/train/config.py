"""One complete, typed and validated description of a training run. Its fields are the options of `eisnn train`.

It has a part for each thing that is configured, and each part is defined beside the functions that take it. The names
of all fields are unique, so that a field can be given without its part: on the command line, in `changed`, and in the
configurations of older runs, which were flat.
"""

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator
from pydantic.fields import FieldInfo

from eisnn.config import Config, Positive
from eisnn.data.config import DataConfig
from eisnn.data.tasks.neurogym import TASKS
from eisnn.methods import CIRCUITS
from eisnn.models.config import NetworkConfig
from eisnn.names import did_you_mean
from eisnn.train.loss import ObjectiveConfig
from eisnn.train.machine import MachineConfig
from eisnn.train.optim import OptimizationConfig

# Fields that older runs have, with the only value that they may have.
REMOVED = {"center_gradients": False, "synaptic_scaling": 0.0, "circuit_options.balanced": False}


class OutputConfig(Config):
    """What a run keeps of itself, and how often."""

    checkpoint_seconds: float = Field(
        60.0, ge=0, description="Time between checkpoints; 0 writes one at every step (on cuda: with each log line)."
    )
    evaluate_epochs: Positive = Field(
        1, description="Epochs from one evaluation to the next; there is one after the last epoch in any case."
    )
    log_steps: Positive = Field(50, description="Steps between lines of the log.")
    tensorboard: bool = Field(False, description="Write TensorBoard events beside metrics.jsonl.")
    record: bool = Field(False, description="Save histograms of each layer's currents after every epoch.")


class TrainConfig(Config):
    """A training run.

    Raises: pydantic.ValidationError naming the field, the value and what would be right.
    """

    network: NetworkConfig = NetworkConfig()
    data: DataConfig = DataConfig()
    optimization: OptimizationConfig = OptimizationConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    machine: MachineConfig = MachineConfig()
    output: OutputConfig = OutputConfig()
    seed: Annotated[int, Field(ge=0, lt=2**64)] = Field(0, description="Of weights, order and augmentation.")

    @model_validator(mode="before")
    @classmethod
    def _nested(cls, given: Any) -> Any:
        """Fields that are given without their part, in it; and without those that are no more."""
        if not isinstance(given, dict):
            return given
        nested: dict[str, Any] = {}
        for name, value in _without_removed(given).items():
            part = PART_OF.get(name)
            if part is None:
                nested[name] = value
            elif part in given:
                raise ValueError(f"{name} is given beside {part}, which it is a part of; give it in there")
            else:
                nested.setdefault(part, {})[name] = value
        return nested

    @model_validator(mode="after")
    def _parts_fit(self) -> "TrainConfig":
        circuit = self.network.circuit
        if self.objective.im_loss and (circuit == "ei" or CIRCUITS[circuit].neurons != "any"):
            raise ValueError(
                f"im_loss is {self.objective.im_loss}: it follows the LIF neurons of circuits such as plain or bn, not "
                f"of {circuit!r}"
            )
        processes = self.machine.devices * self.machine.num_nodes
        if self.data.batch_size < processes:
            raise ValueError(
                f"batch_size is {self.data.batch_size}, less than one image for each of {processes} processes"
            )
        if self.data.dataset in TASKS:
            self._require_steps_of_trials()
        return self

    def _require_steps_of_trials(self) -> None:
        network, dt = self.network, self.data.trials.dt
        steps = TASKS[self.data.dataset].steps(dt)
        given, right = (network.time_steps, network.answer_steps), (sum(steps.values()), steps["decision"])
        if given != right:
            raise ValueError(
                f"trials of {self.data.dataset} have {right[0]} steps of {dt} ms, and choose in the last {right[1]}: "
                f"time_steps and answer_steps must be these, got {given[0]} and {given[1]}"
            )
        if network.circuit == "cortex" and network.cortex.dt != dt:
            raise ValueError(f"cortex.dt is {network.cortex.dt:g} ms, but the trials have steps of {dt} ms (trials.dt)")

    def fields(self) -> dict[str, Any]:
        """All fields by name, without their parts."""
        return {name: getattr(getattr(self, part), name) for name, part in PART_OF.items()} | {"seed": self.seed}

    def json_fields(self) -> dict[str, Any]:
        """Those that are written, as JSON has them and results of experiments keep them."""
        parts = self.model_dump(mode="json")
        written = {name: parts[part][name] for name, part in PART_OF.items() if name in parts[part]}
        return written | {"seed": self.seed}

    @classmethod
    def descriptions(cls) -> dict[str, FieldInfo]:
        """Type and meaning of all fields, likewise."""
        found = {name: PARTS[part].model_fields[name] for name, part in PART_OF.items()}
        return found | {"seed": cls.model_fields["seed"]}

    def changed(self, **fields: Any) -> "TrainConfig":
        """A copy with other values, validated.

        Args:
            **fields: by name, without their part; None leaves a field as it is, a dict changes what it names of a field
                that has fields of its own, and paths become absolute.
        Raises: ValueError for a field that there is not; pydantic.ValidationError, as `TrainConfig`.
        """
        given = {name: value for name, value in fields.items() if value is not None}
        own = self.fields()
        if unknown := [name for name in fields if name not in own]:
            hint = did_you_mean(unknown[0], own) or "`eisnn train RECIPE --help` names them all"
            raise ValueError(f"a training run has no field {unknown[0]!r}; {hint.rstrip()}")
        for name in {"data_path", "teacher", "start_from"} & given.keys():
            given[name] = str(Path(os.path.expanduser(given[name])).absolute())
        for name, value in given.items():
            if isinstance(value, dict) and name in own and value.keys() <= vars(own[name]).keys():
                given[name] = vars(own[name]) | value
        return TrainConfig(**(own | given))


PARTS: dict[str, type[Config]] = {
    name: field.annotation
    for name, field in TrainConfig.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Config)
}
PART_OF = {field: name for name, part in PARTS.items() for field in part.model_fields}


def _without_removed(fields: dict[str, Any]) -> dict[str, Any]:
    """Without those that are no more; ValueError if one of them did something."""
    kept = dict(fields)
    for name, off in REMOVED.items():
        field, _, inner = name.partition(".")
        value = kept.get(field)
        if inner and isinstance(value, dict):
            kept[field] = {key: entry for key, entry in value.items() if key != inner}
            value = value.get(inner, off)
        elif inner or field not in kept:
            continue
        else:
            del kept[field]
        if value != off:
            raise ValueError(f"{name} is {value!r}, an option that is no more: use eisnn 0.1.0, or train without it")
    return kept
