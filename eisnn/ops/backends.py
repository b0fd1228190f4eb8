"""Which back end serves an operation: Triton on a GPU, compiled routines on a CPU, else torch operations."""

from importlib.util import find_spec

import torch
from torch import Tensor
from torch.autograd import forward_ad

from eisnn.functional.lif import LIFConstants
from eisnn.ops.build import library
from eisnn.ops.population import cpu

HAS_TRITON = find_spec("triton") is not None


def transformed() -> bool:
    """Whether a transform of `torch.func` or forward-mode autograd is at work: for them, torch's operators serve. Of an
    operator that has no rule for tangents torch takes the derivative to be 0."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def in_triton(maps: Tensor) -> bool:
    """Whether Triton serves these maps `[T, B, n, ...]`: on CUDA, dense or two-dimensional."""
    return maps.is_cuda and HAS_TRITON and maps.ndim in (3, 5)


def backend(maps: Tensor) -> str:
    """What serves these maps best: "triton" on CUDA, "compiled" on a CPU, else "torch" operations."""
    if in_triton(maps):
        return "triton"
    return "compiled" if cpu.supports(maps) else "torch"


def of_weights(weight: Tensor) -> str:
    """What serves row operations on these weights best: "triton" on CUDA, "compiled" on a CPU, else "torch"."""
    if weight.dtype not in (torch.float32, torch.float64):
        return "torch"
    if weight.is_cuda:
        return "triton" if HAS_TRITON else "torch"
    served = weight.is_cpu and not torch.compiler.is_compiling() and library() is not None
    return "compiled" if served else "torch"


def of_neurons(maps: Tensor, constants: LIFConstants) -> str:
    """What serves LIF neurons with these constants: as `backend`, but "torch" for a surrogate that only it has."""
    return "torch" if constants.surrogate_number is None else backend(maps)
