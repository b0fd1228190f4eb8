"""Checkpoints: one safetensors file each, no pickle, made visible by one atomic rename.

model.NAME               weights and buffers
optimizer.INDEX.KEY      tensors of the optimizer's state
average.NAME             moving average of the weights, if the run keeps one
rng                      torch's CPU generator of each process [processes, bytes]
meter.NAME               running sums
metadata "eisnn"         JSON: format, progress, numbers of the optimizer, the run's configuration and data, versions
metadata "digest"        of all tensors and of that JSON, since format 2
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from eisnn.files import write_atomically
from eisnn.nn import uninitialized

FORMAT = 2


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, or of another model; the message names the file and the reason."""


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors (any device) and JSON-able metadata to `path`; an older file there is replaced at once or not."""
    own = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    described = json.dumps(dict(metadata) | {"format": FORMAT})
    write_atomically(path, save(own, {"eisnn": described, "digest": digest(own, described)}))


def digest(tensors: Mapping[str, Tensor], described: str) -> str:
    """32 hexadecimal digits that change with any name, dtype, shape or bit of contiguous `tensors` on the CPU, and with
    what is said about them."""
    hashed = xxhash.xxh3_128(described.encode())
    for name, value in sorted(tensors.items()):
        hashed.update(f"\n{name} {value.dtype} {list(value.shape)}\n".encode())
        if value.numel():
            hashed.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return hashed.hexdigest()


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a checkpoint; CheckpointError if it cannot be read."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except FileNotFoundError:
        raise CheckpointError(f"there is no checkpoint {path}") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a readable safetensors checkpoint: {error}. A checkpoint is the last.safetensors or "
            "best.safetensors of a run"
        ) from error
    if "eisnn" not in metadata:
        raise CheckpointError(f"{path} is a safetensors file but no eisnn checkpoint: its metadata lacks 'eisnn'")
    try:
        ours = json.loads(metadata["eisnn"])
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: its metadata 'eisnn' is no JSON: {error}") from error
    if not isinstance(ours, dict):
        raise CheckpointError(f"{path} is damaged: its metadata 'eisnn' is {ours!r:.50}, expected a JSON object")
    if "format" in ours and metadata.get("digest") != digest(tensors, metadata["eisnn"]):  # older ones have none
        raise CheckpointError(f"{path} is damaged: its digest is not that of what it holds; use another checkpoint")
    return tensors, ours


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    return {f"model.{name}": value for name, value in model.state_dict().items()}


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that hold NaN or infinity."""
    by_device: dict[torch.device, list[str]] = {}
    for name, value in tensors.items():
        by_device.setdefault(value.device, []).append(name)
    finite: dict[str, bool] = {}
    for names in by_device.values():  # the host waits for each device once
        finite |= dict(
            zip(names, torch.stack([tensors[name].isfinite().all() for name in names]).tolist(), strict=True)
        )
    return [name for name in tensors if not finite[name]]


def require_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """CheckpointError if a tensor of the checkpoint `path` holds NaN or infinity."""
    if names := not_finite(tensors):
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise CheckpointError(
            f"{path} is damaged: there are values that are not finite in {names[0]}{more}; use another checkpoint"
        )


def load_model(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load the `model.` tensors of a checkpoint; CheckpointError if names, shapes or signs do not fit, a value is not
    finite, or a circuit was never initialised."""
    state = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit the model: {' '.join(str(error).split())}") from error
    require_finite(state, path)
    if names := uninitialized(model):
        raise CheckpointError(
            f"{path} holds no trained network: {', '.join(names)} was never initialised; give a checkpoint of a run"
        )


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The optimizer's state as named tensors and JSON-able numbers."""
    state = optimizer.state_dict()
    tensors, numbers = {}, {}
    for index, entries in state["state"].items():
        for key, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{key}"] = value
            else:
                numbers[f"{index}.{key}"] = value
    groups = [{"params": group["params"]} for group in state["param_groups"]]
    return tensors, {"groups": groups, "numbers": numbers}


def load_optimizer(
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, Tensor],
    saved: Mapping[str, Any],
    names: Collection[str] | None = None,
) -> None:
    """The inverse of `optimizer_tensors`. Rates and the like are the optimizer's own, which the configuration says.

    Args:
        names: of the entries that each parameter has; None takes what comes.
    Raises: KeyError or ValueError if `saved` is of another optimizer, or names or shapes do not fit.
    """
    state: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = value
    for name, number in saved["numbers"].items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = number
    groups = optimizer.state_dict()["param_groups"]
    own, theirs = ([group["params"] for group in found] for found in (groups, saved["groups"]))
    if own != theirs:
        raise ValueError(
            f"its parameter groups hold {[len(group) for group in theirs]} parameters, those of the optimizer "
            f"{[len(group) for group in own]}: it was saved with another one"
        )
    if names is not None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        _require_entries(state, dict(zip((k for group in own for k in group), parameters, strict=True)), set(names))
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _require_entries(state: Mapping[int, dict[str, Any]], parameters: Mapping[int, Tensor], names: set[str]) -> None:
    if unknown := sorted(state.keys() - parameters.keys()):
        raise ValueError(f"it has entries of parameters {unknown}, which the optimizer does not have")
    for index, parameter in parameters.items():
        entries = state.get(index, {})
        if entries.keys() != names:
            raise ValueError(f"parameter {index} has the entries {sorted(entries)}, expected {sorted(names)}")
        for name, value in entries.items():
            if isinstance(value, Tensor) and value.ndim and value.shape != parameter.shape:
                raise ValueError(f"{index}.{name} is {list(value.shape)}, expected {list(parameter.shape)}")
