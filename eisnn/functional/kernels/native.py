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
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from eisnn.functional.lif import LIFConstants

SOURCES = tuple(Path(__file__).with_name(name) for name in ("population.cpp", "rows.cpp"))
FLAGS = (
    "-std=c++17", "-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fopenmp",
    "-fPIC", "-shared",
    # GCC takes half the width that an Intel processor has, unless told otherwise.
    *(["-mprefer-vector-width=512"] if platform.machine() in ("x86_64", "AMD64") else []),
)  # fmt: skip
# As the kernel numbers them.
SURROGATES = ("sigmoid", "atan", "fast_sigmoid", "triangle", "rectangle", "leaky_relu")
TYPES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16"}


class Map(ctypes.Structure):
    """A tensor as the kernel sees it: `[step, image, row, inner]`, `inner` contiguous."""

    _fields_ = (("data", ctypes.c_void_p), ("step", ctypes.c_int64), ("image", ctypes.c_int64), ("row", ctypes.c_int64))


class Problem(ctypes.Structure):
    """Arguments of the kernel; see population.cpp."""

    _fields_ = (
        *((n, ctypes.c_int64) for n in ("steps_in", "steps", "batch", "rows", "inner", "neurons_inside")),
        *((n, ctypes.c_double) for n in ("decay", "theta", "alpha")),
        *((n, ctypes.c_int64) for n in ("hard_reset", "detach_reset", "surrogate", "threads")),
        *((n, Map) for n in ("balanced", "i_div", "i_ie", "spikes", "grad_spikes", "grad_balanced", "grad_i_div")),
        *((n, Map) for n in ("v", "v_last", "grad_v_last", "grad_v")),
        ("grad_i_ie", Map),
        ("n_i", ctypes.c_int64),
        ("groups", ctypes.c_int64),
        *(
            (n, ctypes.c_void_p)
            for n in ("weight", "grad_weight", "smallest", "gain", "bias", "grad_gain", "grad_bias")
        ),
    )


class Layout(NamedTuple):
    """How maps `[T, B, n, ...]` lie in memory: neurons inside (channels last, dense layers), or positions inside."""

    neurons_inside: bool
    rows: int
    inner: int

    def describe(self, maps: Tensor | None) -> Map:
        """A tensor `[T, B, n, ...]` or `[B, n, ...]` that `fits` this layout; None is absent."""
        if maps is None:
            return Map(None, 0, 0, 0)
        strides = maps.stride()
        step, strides = (strides[0], strides[1:]) if len(strides) in (3, 5) else (0, strides)
        row = 0 if len(strides) == 2 else strides[-1] if self.neurons_inside else strides[1]
        return Map(maps.data_ptr(), step, strides[0], row)

    def fits(self, maps: Tensor) -> bool:
        """Whether the kernel can walk through `maps` `[T, B, n, ...]` or `[B, n, ...]` as it lies in memory."""
        sizes, strides = (maps.shape, maps.stride()) if maps.ndim in (2, 4) else (maps.shape[1:], maps.stride()[1:])
        if len(sizes) == 2:
            return strides[1] == 1 or sizes[1] == 1
        rows_join = strides[2] == sizes[3] * strides[3] or sizes[2] == 1
        return rows_join and (strides[1] == 1 or sizes[1] == 1 if self.neurons_inside else strides[3] == 1)

    def empty(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device | None = None) -> Tensor:
        """An uninitialised tensor `[T, B, n, ...]` or `[B, n, ...]` that lies so."""
        if self.neurons_inside and len(shape) > 3:
            *outer, n, height, width = shape
            return torch.empty(*outer, height, width, n, dtype=dtype, device=device).movedim(-1, len(outer))
        return torch.empty(shape, dtype=dtype, device=device)

    def arrange(self, maps: Tensor | None) -> Tensor | None:
        """`maps`, copied only where it does not lie so."""
        if maps is None or self.fits(maps):
            return maps
        return self.empty(maps.shape, maps.dtype, maps.device).copy_(maps)


def layout_of(maps: Tensor, neurons: int | None = None) -> Layout:
    """The layout of `maps` `[T, B, n, ...]`, or the nearest one; contiguous where the kernels know none.

    Args:
        neurons: n, if `maps` holds more on the same axis.
    """
    if maps.ndim not in (3, 5):
        return Layout(False, 1, 1)
    n, positions = neurons or maps.shape[2], maps[0, 0, 0].numel()
    if maps.ndim == 3 or (maps.stride(2) == 1 and maps.shape[2] > 1):
        return Layout(True, positions, n)
    return Layout(False, n, positions)


def supports(maps: Tensor) -> bool:
    """Whether the kernel can serve these maps: on the CPU, in a dtype it knows, dense or two-dimensional."""
    return maps.device.type == "cpu" and maps.dtype in TYPES and maps.ndim in (3, 5) and library() is not None


def empty_grad_weight(weight: Tensor, batch: int) -> Tensor:
    """For the kernel's `grad_weight`: `[groups, n_E, n_I padded]`, of `weight` `[n_E, n_I]`.

    Groups of images are summed apart: as many as keep all their sums in the cache, but 8 to 32, for as many threads.
    """
    lanes = 64 // weight.element_size()
    n_e, n_i = weight.shape
    shape = n_e, -(-n_i // lanes) * lanes
    groups = max(8, min(32, (1 << 19) // max(1, prod(shape))))
    return weight.new_empty(min(batch, groups), *shape)


def run(
    direction: str,
    layout: Layout,
    constants: "LIFConstants",
    steps: int,
    maps: dict[str, Tensor | None],
    **arrays: Tensor,
) -> None:
    """Call the kernel.

    Args:
        direction: "forward" or "backward".
        layout: of the maps.
        constants: of the neurons.
        steps: T.
        maps: by field of `Problem`, `balanced` among them; copied where they do not fit the layout, so outputs must.
            The divisive current is either `i_div`, or, with neurons inside, made of `i_ie` by the array `weight`.
        arrays: its other tensors, contiguous.
    """
    loaded = library()
    balanced = maps["balanced"]
    assert loaded is not None
    assert balanced is not None
    arranged = {name: layout.arrange(tensor) for name, tensor in maps.items()}
    problem = Problem(
        **{name: layout.describe(tensor) for name, tensor in arranged.items()},
        **{name: tensor.data_ptr() for name, tensor in arrays.items()},
        steps_in=balanced.shape[0],
        steps=steps,
        batch=balanced.shape[1],
        rows=layout.rows,
        inner=layout.inner,
        neurons_inside=layout.neurons_inside,
        decay=constants.decay,
        theta=constants.theta,
        alpha=constants.width,
        hard_reset=constants.reset == "hard",
        detach_reset=constants.detach_reset,
        surrogate=SURROGATES.index(constants.surrogate),
        n_i=arrays["weight"].shape[1] if "weight" in arrays else 0,
        groups=len(arrays["grad_weight"]) if "grad_weight" in arrays else balanced.shape[1],
        threads=torch.get_num_threads(),
    )
    getattr(loaded, f"{direction}_{TYPES[balanced.dtype]}")(ctypes.byref(problem))


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
