"""The compiled CPU operations: built by the machine's C++ compiler when it is first needed, kept in the user's cache.

Without a compiler, which a warning says, or with the environment variable EISNN_NATIVE=0, everything runs on torch
operations instead.
"""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import warnings
from functools import cache
from pathlib import Path

import torch

FOLDER = Path(__file__).parent
SOURCES = tuple(FOLDER / name for name in ("population/population.cpp", "weights/rows.cpp", "cortex/cortex.cpp"))
HEADERS = tuple(FOLDER / name for name in ("product.h", "surrogate.h"))
FLAGS = (
    "-std=c++17", "-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fopenmp",
    "-fPIC", "-shared",
    # GCC takes half the width that an Intel processor has, unless told otherwise.
    *(["-mprefer-vector-width=512"] if platform.machine() in ("x86_64", "AMD64") else []),
)  # fmt: skip
TYPES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16"}  # as functions are named
LONGEST_BUILD = 300  # seconds that a process waits for another's


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
        code = b"".join(source.read_bytes() for source in SOURCES + HEADERS)
        key = hashlib.sha256(code + repr((FLAGS, command, _processor())).encode()).hexdigest()[:16]
        file = _private_folder() / f"kernels-{key}.so"
        if not _is_whole(file):
            _build(command, file)
        return ctypes.CDLL(str(file))
    except (OSError, subprocess.CalledProcessError) as error:
        why = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1:]
        warnings.warn(
            f"eisnn runs on torch operations, which take longer; its own could not be built: {''.join(why)} "
            "(install a C++ compiler or name one in CXX; EISNN_NATIVE=0 says that none is wanted)",
            RuntimeWarning,
            stacklevel=2,
        )
        return None


def describe() -> str:
    """What serves CPU maps here, for the record of a run: "compiled" with the start of the library's digest, or
    "torch"."""
    if (loaded := library()) is None:
        return "torch"
    return f"compiled {_digest_file(Path(loaded._name)).read_text()[:12]}"


def _build(compiler: list[str], file: Path) -> None:
    """Compile beside `file` and rename, one process at a time: those that wait find it built."""
    from filelock import FileLock

    # The system gives the lock back when its holder ends, however it ends.
    with FileLock(file.parent / "lock", timeout=LONGEST_BUILD):
        for abandoned in file.parent.glob("build-*"):  # by a process that was killed, as we hold the lock
            shutil.rmtree(abandoned, ignore_errors=True)
        if _is_whole(file):
            return
        folder = Path(tempfile.mkdtemp(prefix="build-", dir=file.parent))  # 0700
        try:
            built, digest = folder / file.name, folder / _digest_file(file).name
            command = [*compiler, *FLAGS, *map(str, SOURCES), "-o", str(built)]
            subprocess.run(command, check=True, capture_output=True, text=True)
            digest.write_text(hashlib.sha256(built.read_bytes()).hexdigest())
            for made, final in ((digest, _digest_file(file)), (built, file)):
                made.chmod(0o600)
                _flush(made)
                os.replace(made, final)
            _flush(file.parent)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _is_whole(file: Path) -> bool:
    """Whether the library may be loaded: it and its digest are our own, nobody else may write them, and they fit.

    Loading a truncated library ends the process. The digest tells of damage; against other users only owner and mode
    protect, as whoever may write here may write both.
    """
    try:
        digest = _digest_file(file)
        ours = all(_is_private(path) and stat.S_ISREG(path.lstat().st_mode) for path in (file, digest))
        return ours and hashlib.sha256(file.read_bytes()).hexdigest() == digest.read_text()
    except (OSError, ValueError):
        return False


def _digest_file(file: Path) -> Path:
    return file.with_suffix(".sha256")


def _is_private(path: Path) -> bool:
    """Whether it is our own and nobody else may write it."""
    found = path.lstat()
    return found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _private_folder() -> Path:
    """The folder of compiled libraries, made if need be; OSError if others could put a library there."""
    given = Path(os.environ.get("XDG_CACHE_HOME") or "")  # a relative one is to be ignored, says the specification
    folder = (given if given.is_absolute() else Path.home() / ".cache") / "eisnn" / "kernels"
    for made in (*reversed(folder.parents), folder):  # with `parents=True` only the last one gets the mode
        made.mkdir(mode=0o700, exist_ok=True)
    if not _is_private(folder) and folder.lstat().st_uid == os.getuid() and not folder.is_symlink():
        folder.chmod(0o700)
    if folder.is_symlink() or not _is_private(folder):
        raise OSError(f"{folder} is not this user's own, so that others could put a library there")
    return folder


def _flush(path: Path) -> None:
    """Have the disk hold a file or folder before we go on."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _processor() -> str:
    """What `-march=native` depends on: a home folder may be shared by different machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        flags = ""
    return platform.machine() + flags
