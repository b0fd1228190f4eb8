"""The devices and processes that a run is computed on, and how the network lies there."""

import atexit
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from pydantic import Field
from torch import nn

from eisnn.config import Config, Positive
from eisnn.ops import build

if TYPE_CHECKING:
    from lightning.fabric import Fabric

Network = TypeVar("Network", bound=nn.Module)
PRECISION = {"32": "32-true", "bf16": "bf16-mixed"}  # 64 is a plugin


class MachineConfig(Config):
    """Where and in which precision a run is computed."""

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


def laid_out(model: Network, machine: MachineConfig) -> Network:
    """The same network with its weights in the memory format and precision of a run."""
    if machine.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.double() if machine.precision == "64" else model


def make_fabric(machine: MachineConfig) -> "Fabric":
    """Lightning Fabric for the devices of a configuration; ValueError if this machine lacks them."""
    from lightning.fabric import Fabric
    from lightning.fabric.plugins import DoublePrecision

    class Double(DoublePrecision):
        def convert_output(self, data: Any) -> Any:
            return data  # Fabric's own casts it to float32

    found = torch.cuda.device_count()
    accelerator = machine.accelerator if machine.accelerator != "auto" else "cuda" if found else "cpu"
    if accelerator == "cuda" and machine.devices > found:
        raise ValueError(
            f"accelerator is 'cuda' and devices is {machine.devices}, but torch finds {found} CUDA devices here; "
            "ask for fewer, or for accelerator 'cpu'"
        )
    return Fabric(
        accelerator=accelerator,
        devices=machine.devices,
        num_nodes=machine.num_nodes,
        strategy="ddp" if machine.devices * machine.num_nodes > 1 else "auto",
        precision=PRECISION.get(machine.precision),  # type: ignore[arg-type]
        plugins=Double() if machine.precision == "64" else None,
    )


def arithmetic(device: torch.device) -> dict[str, Any]:
    """What the last bits of a result depend on: the device, and of a CPU the threads and the back end, with the digest
    of its library: another compiler or version of the kernel makes another."""
    if device.type != "cpu":
        return {"device": device.type}
    return {"device": "cpu", "threads": torch.get_num_threads(), "back_end": build.describe()}


def launch(fabric: "Fabric") -> None:
    """Start the processes of a run, or join those of an earlier run of this program."""
    distributed = torch.distributed
    before = distributed.is_available() and distributed.is_initialized()
    fabric.launch()
    if not before and distributed.is_available() and distributed.is_initialized():
        # Left to the end of the interpreter, gloo's threads may abort the process.
        atexit.register(lambda: distributed.destroy_process_group() if distributed.is_initialized() else None)
