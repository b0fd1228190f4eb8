"""Sharing a trained network: a folder with its weights and its card, on this machine or on the Hugging Face hub."""

import json
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from tempfile import TemporaryDirectory
from typing import Any

from eisnn import __version__
from eisnn.data.events.recordings import Recordings
from eisnn.data.tasks import Trials
from eisnn.files import write_atomically
from eisnn.interop.shared import CARD, first_line, locate
from eisnn.interop.trained import Trained, load_trained
from eisnn.provenance import versions
from eisnn.train.build import trained_on
from eisnn.train.checkpoint import CheckpointError, digest, load_checkpoint, model_tensors, save_checkpoint
from eisnn.train.config import TrainConfig
from eisnn.train.run import SHARED, Run, RunError

TAGS = ("spiking-neural-network", "excitatory-inhibitory", "dales-law", "pytorch")


def publish(
    run: str | Path,
    name: str,
    *,
    out: str | Path | None = None,
    dry_run: bool = False,
    private: bool = False,
    license: str | None = None,
    data_path: str | None = None,
) -> Path:
    """Write a run's trained network, its curves and its card into a folder, and upload that to the Hugging Face hub,
    from where `eisnn.load("hf:OWNER/NAME")` gets it.

    Args:
        run: the run's folder, whose last checkpoint is taken, or a name that `eisnn.load` knows.
        name: OWNER/NAME on the hub.
        out: the new folder; None is `published` in the run's, of a shared network `NAME-published` here. One that
            holds the same already is taken, so that an upload that failed can be tried again.
        dry_run: write the folder, upload nothing.
        private: only the owner can see it.
        license: as the hub calls it, such as "apache-2.0"; None leaves it open.
        data_path: where the data set is, if not where it was at training.
    Returns: the folder.
    Raises: ValueError for a name that is not OWNER/NAME; RunError for a folder that holds no run, or one that was not
        evaluated at its end, an `out` that holds something else, or an upload that failed; CheckpointError, DataError;
        ImportError without huggingface_hub.
    """
    if name.count("/") != 1 or not all(name.split("/")):
        raise ValueError(f"name is {name!r}, expected OWNER/NAME, as on the hub")
    opened = Run(locate(run))
    opened.config()
    epochs = opened.metrics()
    if not epochs or "test_accuracy" not in epochs[-1]:
        raise RunError(f"{run} was not evaluated after its last epoch, so its card would say nothing; let it end first")
    usual = opened.folder / "published" if opened.last.exists() else Path(f"{opened.folder.name}-published")
    folder = usual if out is None else Path(out)
    there = folder.exists() and any(folder.iterdir())
    api = None if dry_run else _hub(name)  # says what is wrong before anything is written
    trained = load_trained(opened.folder, data_path=data_path)
    fields = trained.config.model_dump(mode="json")
    fields["data"]["data_path"] = fields["objective"]["teacher"] = fields["network"]["start_from"] = None  # of here
    config = TrainConfig.model_validate(fields)
    result: dict[str, Any] = {key: epochs[-1].get(key) for key in ("epoch", "train_accuracy", "test_accuracy")}
    metadata = {
        "config": config.model_dump(mode="json"),
        "data": asdict(trained_on(trained.dataset)),
        "versions": versions(),
        "progress": {"epoch": result["epoch"], "accuracy": result["test_accuracy"]},
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent) as made:  # the folder is there whole or not at all
        shared = Run(Path(made) / folder.name)
        shared.folder.mkdir()
        save_checkpoint(shared.folder / SHARED, model_tensors(trained.model), metadata)
        shared.write_config(config)
        write_atomically(shared.metrics_file, opened.metrics_file.read_bytes())
        write_atomically(shared.folder / CARD, card(name, trained, result, license).encode())
        if there:
            _require_same(folder, shared.folder, name)
        else:
            shared.folder.rename(folder)
    if api is not None:
        try:
            api.create_repo(name, private=private, exist_ok=True)
            api.upload_folder(repo_id=name, folder_path=folder, commit_message=f"A network of eisnn {__version__}")
        except Exception as error:  # the library lets through those of the network
            raise RunError(
                f"{name} could not be uploaded to {api.endpoint}: {first_line(error)}; it is in {folder}, and the same "
                "command tries again"
            ) from error
    return folder


def _require_same(there: Path, made: Path, name: str) -> None:
    """RunError if the folder `there` holds something else than the one just made."""
    ours, theirs = ({file.name: _content(file) for file in folder.iterdir()} for folder in (made, there))
    others = [file for file in sorted(ours | theirs) if ours.get(file) is None or theirs.get(file) != ours[file]]
    if others:
        place = quote(str(there))
        upload = f"`hf upload {name} {place} .` uploads it as it is; " if (there / SHARED).is_file() else ""
        raise RunError(
            f"{there} is there already and differs in {', '.join(others)} from what would be written; {upload}name "
            f"another folder (--out), or remove this one: rm -r {place}"
        )


def _content(file: Path) -> bytes | str | None:
    """None if it is a folder or damaged; of weights a digest, as the same may stand in a file in several orders."""
    if not file.is_file():
        return None
    if file.suffix != Path(SHARED).suffix:
        return file.read_bytes()
    try:
        tensors, metadata = load_checkpoint(file)
    except CheckpointError:
        return None
    return digest(tensors, json.dumps(metadata))


def _hub(name: str) -> Any:
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.utils import validate_repo_id
    except ImportError:
        raise ImportError("publish needs huggingface_hub, which is not installed: pip install 'eisnn[hub]'") from None
    validate_repo_id(name)
    return HfApi(library_name="eisnn", library_version=__version__)


def card(name: str, trained: Trained, result: dict[str, Any], license: str | None = None) -> str:
    """The card of a network, Markdown with the metadata that the hub reads (`model-index` among it)."""
    config, dataset = trained.config, trained.dataset
    network, optimization = config.network, config.optimization
    split = "held-out training images" if config.data.hold_out else "test"
    if isinstance(dataset.test, Recordings):
        task, sample = "video-classification", f"frames)  # [T, B, {dataset.channels}, H, W], counts of events"
        told = "Frames hold counts of events, never\nnegative"
    elif isinstance(dataset.test, Trials):
        task, sample = "other", f"inputs)  # [T, B, {dataset.channels}, 1, 1], rates of input neurons"
        told = "Inputs are rates, never\nnegative"
    else:
        task, sample = "image-classification", f"images)  # [B, {dataset.channels}, H, W] in [0, 1]"
        told = "Images are values in [0, 1], never\nmean-subtracted"
    measured = [
        {
            "task": {"type": task},
            "dataset": {"name": dataset.name, "type": dataset.name, "split": split},
            "metrics": [{"type": "accuracy", "value": round(result["test_accuracy"] / 100, 5)}],
        }
    ]
    wide = "" if isinstance(dataset.test, Trials) else f", {config.data.image_size} pixels wide"
    about: dict[str, Any] = {
        "library_name": "eisnn",
        "tags": list(TAGS),
        "datasets": [dataset.name],
        "metrics": ["accuracy"],
        "model-index": [{"name": name.split("/")[1], "results": measured}],
    }
    if license is not None:
        about["license"] = license
    front = "\n".join(f"{key}: {json.dumps(value)}" for key, value in about.items())  # JSON is YAML
    weights = sum(parameter.numel() for parameter in trained.model.parameters())
    return f"""---
{front}
---

# {name}

A spiking network of the PyTorch package `eisnn`: `{network.model}`, circuit `{network.circuit}`, T =
{network.time_steps}, {weights:,} parameters, trained on `{dataset.name}`.

```python
import eisnn

model = eisnn.load("hf:{name}")
logits = model({sample} -> [B, {len(dataset.classes)}]
model.about.classes
```

| | |
|---|---|
| accuracy, {split} | {result["test_accuracy"]:.2f} % of {len(dataset.test):,} |
| accuracy, training | {result["train_accuracy"]:.2f} % of {len(dataset.train):,} |
| epochs | {result["epoch"]} |
| runs | 1, seed {config.seed} |
| optimizer | {optimization.optimizer}, learning rate {optimization.lr} |
| classes | {", ".join(dataset.classes)} |
| versions | {", ".join(f"{key} {value}" for key, value in versions().items())} |

`config.json` holds every setting of the run, `metrics.jsonl` its curves. {told}{wide}. The same run again:

```python
from pathlib import Path

import eisnn
from eisnn.train import TrainConfig

eisnn.fit(TrainConfig.model_validate_json(Path("config.json").read_text()), "runs/again")
```
"""
