"""The compiled CPU kernels: built by the machine's C++ compiler when it is first needed, kept in the user's cache.

Without a compiler, which a warning says, or with the environment variable EISNN_NATIVE=0, everything runs on torch
operations instead.
"""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch

SOURCES = tuple(Path(__file__).parent / name for name in ("population/population.cpp", "weights/rows.cpp"))
FLAGS = (
    "-std=c++17", "-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fopenmp",
    "-fPIC", "-shared",
    # GCC takes half the width that an Intel processor has, unless told otherwise.
    *(["-mprefer-vector-width=512"] if platform.machine() in ("x86_64", "AMD64") else []),
)  # fmt: skip
TYPES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16"}  # as functions are named


@cache
def library() -> ctypes.CDLL | None:
    """The kernel's library, built if need be; None where that is not possible."""
    if os.environ.get("EISNN_NATIVE") == "0" or sys.platform != "linux":
        return None
    command = shlex.split(os.environ.get("CXX", "")) or ["c++"]
    try:
        if (compiler := shutil.which(command[0])) is None:
            raise OSError(f"there is no C++ compiler {command[0]}")
        command[0] = compiler
        code = b"".join(source.read_bytes() for source in SOURCES)
        key = hashlib.sha256(code + repr((FLAGS, command, _processor())).encode()).hexdigest()[:16]
        file = _cache_folder() / f"kernels-{key}.so"
        if file.exists():
            with suppress(OSError):  # a damaged one is built again
                return ctypes.CDLL(str(file))
        _build(command, file)
        return ctypes.CDLL(str(file))
    except (OSError, subprocess.CalledProcessError) as error:
        why = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1:]
        warnings.warn(
            f"eisnn runs on torch operations, which take longer, as its CPU kernel could not be built: {''.join(why)} "
            "(install a C++ compiler or name one in CXX; EISNN_NATIVE=0 says that none is wanted)",
            RuntimeWarning,
            stacklevel=2,
        )
        return None


def _build(compiler: list[str], file: Path) -> None:
    """Compile beside `file` and rename: processes that build it at the same time do not disturb each other."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        built = Path(folder) / file.name
        command = [*compiler, *FLAGS, *map(str, SOURCES), "-o", str(built)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        os.replace(built, file)


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "eisnn"


def _processor() -> str:
    """What `-march=native` depends on: a home folder may be shared by different machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        flags = ""
    return platform.machine() + flags
