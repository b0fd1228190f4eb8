"""What a configuration describes, made: its data, its network and its devices."""

import atexit
from typing import TYPE_CHECKING, Any

import torch

from eisnn.data import Dataset, Loader, load
from eisnn.init import ei_init_
from eisnn.models import SpikingNetwork, create_model
from eisnn.nn import LIF
from eisnn.train.config import TrainConfig

if TYPE_CHECKING:
    from lightning.fabric import Fabric

PRECISION = {"32": "32-true", "bf16": "bf16-mixed"}  # 64 is a plugin


def load_data(config: TrainConfig) -> Dataset:
    """The data set of a configuration; its `test` is the held-out part where there is one."""
    dataset = load(config.dataset, config.data_path, download=config.download, size=config.image_size)
    return dataset.hold_out(config.hold_out, seed=0) if config.hold_out else dataset


def build_model(config: TrainConfig, dataset: Dataset) -> SpikingNetwork:
    """The network of a configuration, for the channels and classes of `dataset`; not yet initialised if E-I."""
    options: dict[str, Any] = {"image_size": config.image_size} if config.model == "mlp" else {}
    model = create_model(
        config.model,
        num_classes=len(dataset.classes),
        in_channels=dataset.train.pixels.shape[1],
        time_steps=config.time_steps,
        circuit=config.circuit,
        neuron=LIF(tau=config.tau, surrogate=config.surrogate),
        width=config.width,
        **options,
    )
    if config.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.double() if config.precision == "64" else model


def initialize(model: SpikingNetwork, train: Loader, config: TrainConfig, process_group: Any = None) -> None:
    """E-I Init of a new run, from the first batch that it will train on; nothing to do without circuits."""
    first = next(train.epoch(0)).images.to(next(model.parameters()).dtype)
    ei_init_(model, first, generator=torch.Generator().manual_seed(config.seed), process_group=process_group)


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
