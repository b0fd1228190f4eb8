"""A run's folder: `config.json`, `metrics.jsonl`, `last.safetensors`, `best.safetensors`; `.lock` while it runs; of a
recorded run `currents.npz`."""

import json
import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import xxhash
from pydantic import ValidationError
from torch import Tensor

from eisnn.config import problems
from eisnn.files import write_atomically, writing
from eisnn.train.checkpoint import CheckpointError, load_checkpoint
from eisnn.train.config import TrainConfig

try:
    import fcntl
except ImportError:  # not on Windows: there, two processes in one folder are not noticed
    fcntl = None  # type: ignore[assignment]


# Fields that may change within a run: they say where and how often, not what is computed.
FREE = {"data_path", "download", "data_on_device", "accelerator", "devices", "num_nodes", "cuda_graph"}
FREE |= {"checkpoint_seconds", "tensorboard", "teacher", "start_from"}


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_number(value: object) -> bool:
    return type(value) in (int, float)


# By kind of record, what each field must be. All that an epoch logs is a number: what is not always there (tests,
# averages), too; what a test says is there as a whole.
LOGGED: dict[str, dict[str, Callable[[object], bool]]] = {
    "epoch": dict.fromkeys(("lr", "train_loss", "train_accuracy", "seconds", "images_per_second"), _is_number),
    "steps": {"step": _is_count, "loss": _is_number},
    "end": {"reason": lambda value: isinstance(value, str)},
}
for _kind in ("epoch", "steps"):
    LOGGED[_kind]["epoch"] = _is_count


SHARED = "model.safetensors"  # the weights of a shared network


class RunError(ValueError):
    """A run folder that cannot be used as asked; the message says why and what to do."""


class Run:
    """Where a run keeps what it must not lose. Only the first process writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config_file = folder / "config.json"
        self.metrics_file = folder / "metrics.jsonl"
        self.currents_file = folder / "currents.npz"
        self.last, self.best = folder / "last.safetensors", folder / "best.safetensors"

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @property
    def weights(self) -> Path:
        """The last checkpoint, or the weights of a shared network, which cannot be continued."""
        return self.folder / SHARED if not self.last.exists() and (self.folder / SHARED).exists() else self.last

    @property
    def resume_command(self) -> str:
        """What to type to continue."""
        return f"eisnn resume {shlex.quote(str(self.folder))}"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep all other processes out of the folder, which is made if need be; RunError if one is in it.

        The lock belongs to the open file: however this process ends, the system lets go of it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / ".lock", "a") as file:
            if fcntl is not None:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise RunError(
                        f"{self.folder} is in use by another process; let that finish, or stop it first"
                    ) from None
                except OSError:
                    pass  # a file system without locks
            yield

    def require_free(self) -> None:
        """RunError if the folder already holds a run, or what is left of one, or cannot be a folder."""
        there = next(path for path in (self.folder, *self.folder.parents) if path.exists())
        if not there.is_dir():
            raise RunError(f"{there} is a file, so a run cannot go into {self.folder}; choose another folder")
        for file in (self.config_file, self.metrics_file, self.last, self.best):
            if file.exists():
                raise RunError(
                    f"{self.folder} already holds a run (there is a {file.name} in it); continue it with "
                    f"`{self.resume_command}` or choose another folder"
                )

    def create(self, config: TrainConfig) -> None:
        """Begin a new run; RunError if the folder already holds one."""
        self.require_free()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.write_config(config)

    def write_config(self, config: TrainConfig) -> None:
        write_atomically(self.config_file, config.model_dump_json(indent=2).encode())

    def require_resumable(self) -> None:
        """RunError if there is no checkpoint to continue from, unless the run was killed before it wrote anything."""
        if self.last.exists():
            return
        for file in (self.metrics_file, self.best):
            if file.exists() and file.stat().st_size > 0:
                raise RunError(
                    f"{self.last} is missing, though the run has begun (there is a {file.name}): it cannot be "
                    "continued. Put the file back, or start a new run in another folder (--run-dir); "
                    "best.safetensors, if it is there, can still be evaluated"
                )

    def config(self) -> TrainConfig:
        """The run's configuration; RunError if the folder holds no run or the file is damaged."""
        if self.folder.is_file():
            raise RunError(f"{self.folder} is a file; give the folder of the run, such as {self.folder.parent}")
        if not self.folder.exists():
            raise RunError(f"{self.folder} holds no run: there is no such folder")
        if not self.config_file.exists():
            raise RunError(f"{self.folder} holds no run: there is no {self.config_file.name} in it")
        try:
            return TrainConfig.model_validate_json(self.config_file.read_bytes())
        except ValidationError as error:
            raise RunError(f"{self.config_file} is not a valid configuration: {'; '.join(problems(error))}") from error

    def log(self, record: dict[str, Any]) -> None:
        """Append one line to the metrics and flush it to the disk."""
        with writing(self.metrics_file), open(self.metrics_file, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def log_size(self) -> int:
        """Bytes of the metrics so far; a checkpoint keeps it."""
        return self.metrics_file.stat().st_size if self.metrics_file.exists() else 0

    def log_digest(self, size: int) -> str:
        """Of the first `size` bytes of the metrics, in hexadecimal."""
        if not size:
            return ""
        with open(self.metrics_file, "rb") as file:
            return xxhash.xxh3_128_hexdigest(file.read(size))

    def require_log(self, size: int, digest: str) -> None:
        """RunError if the lines that were there at the last checkpoint, `size` bytes, are not all there, or not those
        of `digest` ("" of older runs)."""
        if self.log_size() < size:
            raise RunError(
                f"{self.metrics_file} is missing or shorter than its checkpoint says ({self.log_size()} < {size} "
                "bytes): lines of it were lost. Put the whole file back, or start a new run in another folder "
                "(--run-dir); `eisnn evaluate` still works"
            )
        if digest and digest != self.log_digest(size):
            raise RunError(
                f"{self.metrics_file} is damaged: it is not the one that {self.last} was written with. Put the right "
                "file back, or start a new run in another folder (--run-dir); `eisnn evaluate` still works"
            )

    def truncate_log(self, size: int, digest: str) -> None:
        """Drop the lines written after the checkpoint that a resumed run starts from: it writes them again.

        Raises: as `require_log`.
        """
        self.require_log(size, digest)
        if self.metrics_file.exists():
            os.truncate(self.metrics_file, size)

    def metrics(self, kind: str = "epoch") -> list[dict[str, Any]]:
        """The logged records of one kind: "epoch", "steps", or "end" (of a diverged run); not a line cut in half.

        Raises: RunError naming the line that is no record.
        """
        if not self.metrics_file.exists():
            return []
        lines = self.metrics_file.read_bytes().splitlines(keepends=True)
        records = [self._record(line, number) for number, line in enumerate(lines, 1) if line.endswith(b"\n")]
        return [r for r in records if r["kind"] == kind]

    def _record(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            record = json.loads(line)
            fields = dict(LOGGED[record["kind"]])
            if record["kind"] == "epoch":
                fields |= dict.fromkeys(record.keys() - fields.keys() - {"kind"}, _is_number)
                if "test_accuracy" in record:
                    fields |= dict.fromkeys(("test_loss", "test_firing_rate", "best_accuracy"), _is_number)
            if all(kind(record.get(name)) for name, kind in fields.items()):
                return record
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass
        raise RunError(f"{self.metrics_file} is damaged: line {number} is {line[:50]!r}, no record of a run")

    def require_config_of(self, metadata: Mapping[str, Any]) -> None:
        """RunError if `config.json` is not what the last checkpoint, whose metadata is given, was trained with; what
        changes no result may differ."""
        there = config_of(metadata, self.last).json_fields()
        for name, value in self.config().json_fields().items():
            if name not in FREE and value != (trained_with := there.get(name)):
                raise RunError(
                    f"{self.config_file}: {name} is {value!r}, but {self.last} was trained with {trained_with!r}; put "
                    "that back, or start a new run with another (--run-dir)"
                )


class Checkpoint(NamedTuple):
    """What a checkpoint file holds."""

    file: Path
    config: TrainConfig
    tensors: dict[str, Tensor]
    metadata: dict[str, Any]


def open_checkpoint(path: str | Path) -> Checkpoint:
    """A checkpoint file, or a run folder's last checkpoint; CheckpointError if it is missing or damaged."""
    path = Path(path)
    file = Run(path).weights if path.is_dir() else path
    if path.is_dir() and not file.exists():
        raise CheckpointError(f"{path} holds no trained network: there is no {file.name} and no {SHARED} in it")
    tensors, metadata = load_checkpoint(file)
    return Checkpoint(file, config_of(metadata, file), tensors, metadata)


def config_of(metadata: Mapping[str, Any], file: Path) -> TrainConfig:
    """The configuration in the metadata of the checkpoint `file`; CheckpointError if there is none."""
    try:
        return TrainConfig.model_validate(metadata.get("config"))
    except ValidationError as error:
        raise CheckpointError(f"{file} holds no valid configuration: {'; '.join(problems(error))}") from error
