"""Where a number comes from: the machine, the versions and the command, to stand beside it in every result file."""

import json
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

import torch

import eisnn
from eisnn.files import write_atomically


def machine() -> dict[str, Any]:
    """Processor, cores, threads that torch uses, and the GPU if there is one."""
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return {
        "system": platform.system(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        **gpu,
    }


def versions() -> dict[str, str]:
    """Of this package, torch and Python."""
    return {"eisnn": eisnn.__version__, "torch": str(torch.__version__), "python": platform.python_version()}


def provenance() -> dict[str, Any]:
    """Command, machine and versions of this process. Of a whole path the command keeps the last part: where a user's
    data lie says nothing of the result."""
    program = Path(sys.argv[0])
    name = f"python {program.parent.name}/{program.name}" if program.suffix == ".py" else program.name
    given = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return {"command": shlex.join([*name.split(), *given]), "machine": machine(), "versions": versions()}


def write_result(file: Path, result: dict[str, Any]) -> None:
    """Write a result as JSON, whole or not at all, with its folder if need be."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, (json.dumps(result, indent=2) + "\n").encode())


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
