"""Checkpoints of the authors' program (DeepEISNN): a folder with `model.safetensors` and `config.json`, read into our
VGG networks and written back. `eisnn.interop.authors_names` maps the names."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from eisnn.config import problems
from eisnn.data import list_datasets
from eisnn.files import write_atomically
from eisnn.interop.authors_names import feedforward, numbered_names, parameter_map, to_ours, to_theirs, unpaired
from eisnn.methods import make_layers
from eisnn.models import PLANS, VGG
from eisnn.nn import LIF, PAPER, EICircuit
from eisnn.train.checkpoint import CheckpointError, load_model
from eisnn.train.config import TrainConfig

WEIGHTS, SETTINGS = "model.safetensors", "config.json"


class Neuron(BaseModel):
    """The field `neuron`."""

    model_config = ConfigDict(extra="allow")
    tau: float = Field(ge=1, allow_inf_nan=False)


class Settings(BaseModel):
    """`config.json`; fields that are not here are allowed, and reported."""

    model_config = ConfigDict(extra="allow")
    dataset: str
    type: str
    arch: str
    num_layers: StrictInt
    T: Annotated[StrictInt, Field(ge=1)]
    ei_ratio: Annotated[StrictInt, Field(ge=1)]
    light_classifier: bool
    dropout: float = Field(ge=0, lt=1)
    neuron: Neuron
    image_size: Annotated[StrictInt, Field(ge=1)] | None = None  # ours, where images are not of 32 pixels


@dataclass(frozen=True)
class Released:
    """A released checkpoint, read.

    Args:
        model: with its weights, on the CPU.
        config: data set and constants; the channels are those of `model`, whatever the config's width.
        notes: names in the file that nothing reads, and fields that have no effect here.
        file: the weights.
    """

    model: VGG
    config: TrainConfig
    notes: tuple[str, ...]
    file: Path


def released_folder(path: Path) -> Path | None:
    """The folder if `path` is such a checkpoint, or the weights in one; else None."""
    folder = path.parent if path.name == WEIGHTS else path
    there = (folder / WEIGHTS).is_file() and (folder / SETTINGS).is_file()
    return folder if there and not _is_ours(folder / SETTINGS) else None


def _is_ours(file: Path) -> bool:
    """Whether `config.json` is that of a shared network of this package, which has the same two files."""
    try:
        return "optimization" in json.loads(file.read_bytes())
    except (ValueError, TypeError, RecursionError):
        return False


def read_released(folder: Path) -> Released:
    """Read a checkpoint in the authors' layout.

    Raises: CheckpointError naming the file: a field or tensor that is missing, unknown or of another shape, a weight
        that is negative or not finite, an architecture that is none of our VGG networks.
    """
    file = folder / WEIGHTS
    settings, tensors = _settings(folder / SETTINGS), _tensors(file)
    config, notes = _config(settings, folder / SETTINGS)
    plan = _plan(config.network.model, tensors, file)
    if plan != list(PLANS[config.network.model]):
        notes.append(
            f"channels are {_channels(plan)}, where {config.network.model} has {_channels(PLANS[config.network.model])}"
        )
    layers = make_layers("ei", LIF(tau=config.network.tau), config.network.time_steps, ei_ratio=config.network.ei_ratio)
    first, *_, last = feedforward(tensors)
    model = VGG(plan, layers, first.shape[1], len(last), config.network.time_steps)
    names = _names(model, tensors, file)
    state = {}
    for ours, parameter in model.named_parameters():
        try:
            state[f"model.{ours}"] = to_ours(tensors[names[ours]], parameter)
        except ValueError as error:
            raise CheckpointError(f"{file} does not fit the model: {names[ours]}: {error}") from error
    circuits = [name for name, m in model.named_modules() if isinstance(m, EICircuit)]
    load_model(model, state | {f"model.{name}.initialized": torch.tensor(True) for name in circuits}, file)
    if unread := sorted(set(tensors) - set(names.values())):
        notes.append(f"unused names, which nothing reads in a readout: {', '.join(unread)}")
    return Released(model, config, tuple(notes), file)


def write_released(model: nn.Module, config: TrainConfig, folder: Path, like: Path | None = None) -> Path:
    """Write a checkpoint in the authors' layout; read back, it gives the same weights bit for bit.

    Args:
        model: a VGG of the paper's circuits, initialised.
        config: of its run: model, data set and tau.
        folder: for the two files; made if need be.
        like: a released checkpoint of the same network, whose layer numbers and spelling of names are taken. Without
            it only networks that pool after every convolution (VGG-8) can be written.
    Returns: `folder`.
    Raises: ValueError for another kind of network; CheckpointError if a checkpoint is there already, or `like` is none
        or of another network.
    """
    circuits = [m for m in model.modules() if isinstance(m, EICircuit)]
    paper = all(getattr(m, "options", PAPER) == PAPER and not hasattr(m, "ablation") for m in circuits)
    paper = paper and model.answer_steps is None
    if not isinstance(model, VGG) or not circuits or not paper or config.network.model not in PLANS:
        kind = f"{config.network.model} with circuit {config.network.circuit}" + (
            "" if paper else " and options, answer_steps or an ablation"
        )
        raise ValueError(f"the authors' layout holds VGG networks of the paper's circuit; this is {kind}")
    for file in (folder / WEIGHTS, folder / SETTINGS):
        if file.exists():
            raise CheckpointError(f"{file} is there already; choose another folder")
    arch, layers = re.fullmatch(r"(\D+)(\d+)", config.network.model).groups()  # type: ignore[union-attr]
    spelling: dict[str, Any] = {"dataset": config.data.dataset, "type": "ei", "arch": arch, "num_layers": int(layers)}
    if like is None:
        names = parameter_map(model, numbered_names(model))
    else:
        other = released_folder(like)
        if other is None:
            raise CheckpointError(f"{like} is no released checkpoint: it needs {WEIGHTS} and {SETTINGS}")
        names = _names(model, _tensors(other / WEIGHTS), other / WEIGHTS)
        spelling = _settings(other / SETTINGS).model_dump(include=set(spelling))
    settings = Settings(
        **spelling,
        T=model.time_steps,
        ei_ratio=circuits[0].ei_ratio,
        light_classifier=True,
        dropout=0.0,
        neuron=Neuron(tau=config.network.tau),
        image_size=None if config.data.image_size == TrainConfig().data.image_size else config.data.image_size,
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / WEIGHTS, save(to_theirs(model, names)))
    write_atomically(folder / SETTINGS, (settings.model_dump_json(indent=2, exclude_none=True) + "\n").encode())
    return folder


def _settings(file: Path) -> Settings:
    try:
        return Settings.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise CheckpointError(f"{file} does not describe a released network: {'; '.join(problems(error))}") from error


def _tensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is not a readable safetensors file: {error}") from error


def _names(model: VGG, tensors: Mapping[str, Tensor], file: Path) -> dict[str, str]:
    try:
        return parameter_map(model, tensors)
    except ValueError as error:
        raise CheckpointError(f"{file} does not fit the network: {error}") from error


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _config(settings: Settings, file: Path) -> tuple[TrainConfig, list[str]]:
    """Our configuration, and notes on what has no effect."""
    name = _plain(settings.arch).removesuffix(str(settings.num_layers)) + str(settings.num_layers)
    if name not in PLANS:
        raise CheckpointError(
            f"{file}: arch is {settings.arch!r} and num_layers {settings.num_layers}, none of the networks that can be "
            f"read: {', '.join(PLANS)}"
        )
    datasets = {_plain(known): known for known in list_datasets()}
    if _plain(settings.dataset) not in datasets:
        raise CheckpointError(f"{file}: dataset is {settings.dataset!r}; known: {', '.join(datasets.values())}")
    notes = []
    if settings.type != "ei":
        notes.append(f"type {settings.type!r} has no effect: the tensors say what kind of network it is")
    if settings.dropout:
        notes.append(f"dropout {settings.dropout} is inactive in evaluation")
    if not settings.light_classifier:
        notes.append("light_classifier is false: the one readout is read after a global average all the same")
    extra = dict(settings.model_extra or {})
    extra |= {f"neuron.{key}": value for key, value in (settings.neuron.model_extra or {}).items()}
    notes += [f"{key} {value!r} is not known here and has no effect" for key, value in extra.items()]
    config = TrainConfig().changed(
        model=name,
        dataset=datasets[_plain(settings.dataset)],
        time_steps=settings.T,
        tau=settings.neuron.tau,
        ei_ratio=settings.ei_ratio,
        image_size=settings.image_size,
    )
    return config, notes


def _plan(name: str, tensors: Mapping[str, Tensor], file: Path) -> list[Any]:
    """The plan of network `name` with the channels of the file."""
    if alone := unpaired(tensors):
        raise CheckpointError(f"{file} does not fit the network: missing: {', '.join(alone)}")
    weights = feedforward(tensors)
    convolutions = [len(w) for w in weights if w.ndim == 4]
    expected = sum(entry != "P" for entry in PLANS[name])
    if (len(convolutions), len(weights)) != (expected, expected + 1):
        raise CheckpointError(
            f"{file} holds {len(convolutions)} convolutional and {len(weights) - len(convolutions)} dense circuits; "
            f"{name} has {expected} and one readout (a classifier of several layers cannot be read)"
        )
    channels = iter(convolutions)
    return [entry if entry == "P" else next(channels) for entry in PLANS[name]]


def _channels(plan: Iterable[Any]) -> str:
    return "-".join(str(entry) for entry in plan if entry != "P")
