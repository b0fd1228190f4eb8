"""A run's folder: `config.json`, `metrics.jsonl`, `last.safetensors`, `best.safetensors`."""

import json
import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from eisnn.train.checkpoint import write_atomically
from eisnn.train.config import TrainConfig


class RunError(ValueError):
    """A run folder that cannot be used as asked; the message says why and what to do."""


class Run:
    """Where a run keeps what it must not lose. Only the first process writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config_file = folder / "config.json"
        self.metrics_file = folder / "metrics.jsonl"
        self.last, self.best = folder / "last.safetensors", folder / "best.safetensors"

    def require_free(self) -> None:
        """RunError if the folder already holds a run, or what is left of one."""
        for file in (self.config_file, self.metrics_file, self.last, self.best):
            if file.exists():
                raise RunError(
                    f"{self.folder} already holds a run (there is a {file.name} in it); continue it with "
                    f"`eisnn resume {self.folder}` or choose another folder (--run-dir)"
                )

    def create(self, config: TrainConfig) -> None:
        """Claim the folder for a new run; RunError if it already holds one."""
        self.require_free()
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.config_file, config.model_dump_json(indent=2).encode())

    def config(self) -> TrainConfig:
        """The run's configuration; RunError if the folder holds no run or the file is damaged."""
        if not self.config_file.exists():
            raise RunError(f"{self.folder} holds no run: there is no {self.config_file.name} in it")
        try:
            return TrainConfig.model_validate_json(self.config_file.read_bytes())
        except ValidationError as error:
            raise RunError(f"{self.config_file} is not a valid configuration: {error}") from error

    def log(self, record: dict[str, Any]) -> None:
        """Append one line to the metrics and flush it to the disk."""
        with open(self.metrics_file, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def log_size(self) -> int:
        """Bytes of the metrics so far; a checkpoint keeps it."""
        return self.metrics_file.stat().st_size if self.metrics_file.exists() else 0

    def truncate_log(self, size: int) -> None:
        """Drop the lines written after the checkpoint that a resumed run starts from: it writes them again."""
        if self.log_size() < size:
            raise RunError(
                f"{self.metrics_file} is shorter than its checkpoint says ({self.log_size()} < {size} bytes); "
                "lines of it were lost"
            )
        if self.metrics_file.exists():
            os.truncate(self.metrics_file, size)

    def metrics(self, kind: str = "epoch") -> list[dict[str, Any]]:
        """The logged records of one kind: "epoch", "steps", or "end" (of a diverged run); not a line cut in half."""
        if not self.metrics_file.exists():
            return []
        lines = self.metrics_file.read_text(encoding="utf-8").splitlines(keepends=True)
        records = [json.loads(line) for line in lines if line.endswith("\n")]
        return [r for r in records if r["kind"] == kind]
