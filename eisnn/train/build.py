"""What a configuration describes, made: its data, its network and its devices."""

import atexit
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from eisnn.data import DataError, Dataset, Loader, Split, load
from eisnn.data.memory import fits
from eisnn.init import ei_init_
from eisnn.methods import CIRCUITS
from eisnn.models import SpikingNetwork, create_model
from eisnn.nn import LIF, PLIF
from eisnn.nn.options import PAPER
from eisnn.train.checkpoint import CheckpointError
from eisnn.train.config import TrainConfig

if TYPE_CHECKING:
    from lightning.fabric import Fabric

PRECISION = {"32": "32-true", "bf16": "bf16-mixed"}  # 64 is a plugin


def load_data(config: TrainConfig) -> Dataset:
    """The data set of a configuration; its `test` is the held-out part where there is one."""
    dataset = load(
        config.dataset,
        config.data_path,
        download=config.download,
        size=config.image_size,
        time_steps=config.time_steps,
    )
    dataset = dataset.hold_out(config.hold_out, seed=0) if config.hold_out else dataset
    return dataset.subset(config.train_images, config.test_images, seed=0)


@pydantic.dataclasses.dataclass
class TrainedOn:
    """What a checkpoint keeps of its data, so that other data is noticed."""

    classes: list[str]
    training_images: int


def trained_on(dataset: Dataset) -> TrainedOn:
    return TrainedOn(list(dataset.classes), len(dataset.train))


def require_same_data(dataset: Dataset, metadata: Mapping[str, Any], file: Path, *, images: bool) -> None:
    """DataError if `dataset` has other classes, or with `images` another number of training images, than the data that
    the checkpoint `file` was trained on."""
    try:
        then, now = TrainedOn(**metadata["data"]), trained_on(dataset)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{file} does not say what data it was trained on: its metadata lacks 'data'") from error
    if then.classes != now.classes:
        gone, new = (sorted(set(a.classes) - set(b.classes)) for a, b in ((then, now), (now, then)))
        raise DataError(
            f"the data set '{dataset.name}' has other classes than {file} was trained on: gone {gone[:5]}, "
            f"new {new[:5]}; give the data of the training (--data-path)"
        )
    if images and then.training_images != now.training_images:
        raise DataError(
            f"the data set '{dataset.name}' has {now.training_images} training images, but {file} was trained on "
            f"{then.training_images}; give the data of the training (--data-path), or start a new run"
        )


def build_model(config: TrainConfig, dataset: Dataset) -> SpikingNetwork:
    """The network of a configuration, for the channels and classes of `dataset`; not yet initialised if E-I."""
    options: dict[str, Any] = {"image_size": config.image_size} if config.model == "mlp" else {}
    if config.stochastic_depth:
        options["stochastic_depth"] = config.stochastic_depth
    neuron = (PLIF if config.learn_tau else LIF)(tau=config.tau, surrogate=config.surrogate)
    model = create_model(
        config.model,
        num_classes=len(dataset.classes),
        in_channels=dataset.channels,
        time_steps=config.time_steps,
        circuit=config.circuit,
        neuron=None if CIRCUITS[config.circuit].neurons == "rate" else neuron,
        width=config.width,
        circuit_options=config.circuit_options if config.circuit_options != PAPER else None,
        ablation=config.ablation,
        ei_ratio=config.ei_ratio if config.circuit in ("ei", "dann") else None,
        **options,
    )
    if config.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.double() if config.precision == "64" else model


def initialize(model: SpikingNetwork, train: Loader, config: TrainConfig, process_group: Any = None) -> None:
    """E-I Init of a new run, from the first batch that it will train on; nothing to do without circuits.

    Raises: ValueError if the batches are too small for it, or for the batch norm of the twin.
    """
    first = next(train.epoch(0)).images.to(next(model.parameters()).dtype)
    try:
        # In evaluation mode, so that no branch is left out.
        ei_init_(model.eval(), first, generator=torch.Generator().manual_seed(config.seed), process_group=process_group)
    except ValueError as error:
        if config.batch_size > 1:
            raise
        raise ValueError(
            f"batch_size is 1, but E-I Init measures how the images of the first batch differ: give 2 or more ({error})"
        ) from error
    if any(isinstance(module, _BatchNorm) or getattr(module, "batch_statistics", False) for module in model.modules()):
        _require_batch_statistics(model, first[:1], train)


def _require_batch_statistics(model: SpikingNetwork, image: torch.Tensor, train: Loader) -> None:
    """ValueError if some batch leaves a process one image only and the model cannot normalize that."""
    images, size, processes = len(train.images), train.batch_size, train.world_size

    def smallest_part(batch_size: int) -> int:
        return (images % batch_size or batch_size) // processes

    with torch.no_grad():
        model.eval()(image)  # what else may be wrong, such as the size of the images
        if smallest_part(size) > 1:
            return
        try:
            deepcopy(model).train()(image)
        except ValueError as error:
            right = next((n for n in range(size + 1, images + 1) if smallest_part(n) > 1), None)
            raise ValueError(
                f"batch_size is {size} and there are {images} training images, so some batch (the last one of an "
                f"epoch) leaves a process a single image, over which batch norm cannot normalize; "
                + (f"batch_size {right} would do" if right else "more images are needed")
            ) from error


def train_loader(config: TrainConfig, dataset: Dataset, **sharing: Any) -> Loader:
    """Shuffled, augmented batches of the training split; `sharing` says on which device, and with whom."""
    return Loader(
        dataset.train,
        config.batch_size,
        size=config.image_size,
        augmentation=config.augmentation,
        shuffle=True,
        seed=config.seed,
        **sharing,
    )


def keeps_resident(config: TrainConfig, device: torch.device, *splits: Split) -> bool:
    """Whether all images of `splits` shall lie on `device`, rather than one batch after the other."""
    if config.data_on_device == "auto":
        return fits(sum(split.nbytes for split in splits), device)
    return config.data_on_device


def initial_model(config: TrainConfig) -> SpikingNetwork:
    """The network of a run as it is before the first step, on the CPU."""
    dataset = load_data(config)
    torch.manual_seed(config.seed)
    model = build_model(config, dataset)
    initialize(model, train_loader(config, dataset), config)
    return model


def make_fabric(config: TrainConfig) -> "Fabric":
    """Lightning Fabric for the devices of a configuration; ValueError if this machine lacks them."""
    from lightning.fabric import Fabric
    from lightning.fabric.plugins import DoublePrecision

    class Double(DoublePrecision):
        def convert_output(self, data: Any) -> Any:
            return data  # Fabric's own casts it to float32

    found = torch.cuda.device_count()
    accelerator = config.accelerator if config.accelerator != "auto" else "cuda" if found else "cpu"
    if accelerator == "cuda" and config.devices > found:
        raise ValueError(
            f"accelerator is 'cuda' and devices is {config.devices}, but torch finds {found} CUDA devices here; "
            "ask for fewer, or for accelerator 'cpu'"
        )
    return Fabric(
        accelerator=accelerator,
        devices=config.devices,
        num_nodes=config.num_nodes,
        strategy="ddp" if config.devices * config.num_nodes > 1 else "auto",
        precision=PRECISION.get(config.precision),  # type: ignore[arg-type]
        plugins=Double() if config.precision == "64" else None,
    )


def launch(fabric: "Fabric") -> None:
    """Start the processes of a run, or join those of an earlier run of this program."""
    distributed = torch.distributed
    before = distributed.is_available() and distributed.is_initialized()
    fabric.launch()
    if not before and distributed.is_available() and distributed.is_initialized():
        # Left to the end of the interpreter, gloo's threads may abort the process.
        atexit.register(lambda: distributed.destroy_process_group() if distributed.is_initialized() else None)
