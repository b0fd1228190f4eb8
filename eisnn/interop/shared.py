"""Trained networks by name: those in the package, those on the Hugging Face hub, and any folder or file that holds one.

A shared network is a folder like that of a run, without what is needed to continue: `config.json`, `metrics.jsonl`,
`model.safetensors` (a checkpoint of the weights alone) and `README.md`, its card.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eisnn.interop.authors import read_released, released_folder
from eisnn.models import SpikingNetwork
from eisnn.names import did_you_mean
from eisnn.train.build import build_model
from eisnn.train.checkpoint import CheckpointError, load_model
from eisnn.train.config import TrainConfig
from eisnn.train.run import SHARED, Run, open_checkpoint

HUB = "hf:"
CARD = "README.md"
IN_PACKAGE = Path(__file__).parent.parent / "networks"


@dataclass(frozen=True)
class About:
    """What is known of a network that was loaded.

    Attributes:
        name: that it was asked for by.
        file: its weights.
        config: of its training; of a released checkpoint of the authors' program what that says.
        classes: names, in the order of the logits; () if the file does not say.
        accuracy: on the evaluation split after training, %; None if the file does not say.
        notes: what of a released file has no effect here.
    """

    name: str
    file: Path
    config: TrainConfig
    classes: tuple[str, ...] = ()
    accuracy: float | None = None
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        network, accuracy = self.config.network, "" if self.accuracy is None else f", accuracy {self.accuracy:.2f} %"
        return f"About({self.name!r}: {network.model}, circuit {network.circuit}, {self.config.data.dataset}{accuracy})"


def network_names() -> list[str]:
    """The trained networks in the package."""
    return sorted(folder.name for folder in IN_PACKAGE.iterdir() if (folder / SHARED).is_file())


def locate(path: str | Path) -> Path:
    """Where a trained network is: `path` itself if it exists, the folder of a network in the package of that name, or
    the folder into which "hf:OWNER/NAME" (or "hf:OWNER/NAME@REVISION") was downloaded.

    Raises: CheckpointError for what is not there, and what cannot be downloaded; TypeError for what is no name and no
        path; ImportError without huggingface_hub.
    """
    if not isinstance(path, str | Path):
        raise TypeError(
            f"a trained network has a name or a path, got {path!r}; `eisnn list` names those in the package"
        )
    text = str(path)
    if text.startswith(HUB):
        return _download(text.removeprefix(HUB))
    if Path(path).exists():
        return Path(path)
    names = network_names()
    if text in names:
        return IN_PACKAGE / text
    raise CheckpointError(
        f"there is no {text}; {did_you_mean(text, names)}give a folder or file, one of the networks in the package "
        f"({', '.join(names)}), or {HUB}OWNER/NAME on the hub"
    )


def load(name: str | Path) -> SpikingNetwork:
    """A trained network, in evaluation mode on the CPU; `model.about` says what is known of it.

    Args:
        name: of a network in the package, such as "demo-plus" (`eisnn list` has all); "hf:OWNER/NAME" or
            "hf:OWNER/NAME@REVISION" on the Hugging Face hub; a run's folder; a checkpoint; a published folder; or one
            that the authors of the paper released.
    Raises: CheckpointError naming what is missing, damaged or of another model; ImportError without huggingface_hub,
        where it is needed.
    """
    there = locate(name)
    if (released := released_folder(there)) is not None:
        found = read_released(released)
        return _with(found.model, About(str(name), found.file, found.config, notes=found.notes))
    file, config, tensors, metadata = open_checkpoint(there)
    data = metadata.get("data")
    classes = data.get("classes") if isinstance(data, dict) else None
    if not isinstance(classes, list):
        raise CheckpointError(f"{file} does not say what data it was trained on: its metadata lacks 'data'")
    model = build_model(
        config.network,
        num_classes=len(classes),
        in_channels=_channels(data, tensors, file),
        image_size=config.data.image_size,
    )
    load_model(model, tensors, file)
    progress = metadata.get("progress")
    accuracy = progress.get("accuracy") if isinstance(progress, dict) else metadata.get("accuracy")
    return _with(model, About(str(name), file, config, tuple(classes), accuracy))


def _with(model: SpikingNetwork, about: About) -> SpikingNetwork:
    model.about = about  # type: ignore[assignment]
    return model.eval()


def _channels(data: Any, tensors: dict[str, Any], file: Path) -> int:
    """Of the images; older checkpoints do not say, but their first convolution does."""
    if isinstance(channels := data.get("channels"), int):
        return channels
    kernels = [t for name, t in tensors.items() if name.startswith("model.") and t.ndim == 4]
    if not kernels:
        raise CheckpointError(f"{file} does not say how many channels its images had; open it with load_trained")
    return int(kernels[0].shape[1])


def first_line(error: Exception) -> str:
    """What an error of the hub's library or of the network below it says, without what follows for programmers."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _download(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError
    except ImportError:
        raise ImportError("hf: needs huggingface_hub, which is not installed: pip install 'eisnn[hub]'") from None
    repository, _, revision = name.partition("@")
    run = Run(Path())
    files = [SHARED, run.config_file.name, run.metrics_file.name, CARD]
    try:
        folder = Path(snapshot_download(repository, revision=revision or None, allow_patterns=files))
    except HFValidationError as error:
        raise CheckpointError(f"{HUB}{name} names no network on the hub, expected hf:OWNER/NAME: {error}") from None
    except Exception as error:  # the library lets through whatever a server's answer breaks in it
        raise CheckpointError(f"{HUB}{name} could not be loaded: {first_line(error)}") from error
    if missing := [file for file in (SHARED, run.config_file.name) if not (folder / file).is_file()]:
        raise CheckpointError(f"{HUB}{name} holds no network of eisnn: there is no {' and no '.join(missing)} in it")
    return folder
