"""What does an operation: torch operations, or a back end that has entered itself for the inputs that it serves.

A back end is a class for each operation that it has, in a file of the operation's folder that eisnn/ops/__init__.py
imports, or in your own program:

    @POPULATIONS.register("metal", lambda maps, constants: maps.device.type == "mps")
    class MetalPopulation(Population): ...
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

HAS_TRITON = find_spec("triton") is not None
T = TypeVar("T")
_is_exporting = getattr(torch.compiler, "is_exporting", lambda: False)  # torch 2.6 has none


class Implementations(Generic[T]):
    """One operation by back end: of those that serve its inputs, the first that was entered; else "torch"."""

    def __init__(self, by_torch: T) -> None:
        self.made = {"torch": by_torch}
        self.serves: dict[str, Callable[..., bool]] = {}

    def register(self, name: str, serves: Callable[..., bool]) -> Callable[[T], T]:
        """Enter an implementation: the name of its back end, and what says of the operation's inputs whether it serves
        them. Raises ValueError if the name is taken."""
        if name in self.made:
            raise ValueError(f"there is a back end {name!r} already; name another")

        def enter(implementation: T) -> T:
            self.made[name], self.serves[name] = implementation, serves
            return implementation

        return enter

    def name(self, *inputs: object) -> str:
        """What serves these inputs."""
        return next((name for name, serves in self.serves.items() if serves(*inputs)), "torch")

    def __call__(self, *inputs: object) -> T:
        """The implementation that serves these inputs."""
        return self.made[self.name(*inputs)]


def exporting() -> bool:
    """Whether `torch.export` or `torch.onnx` traces: then all is made of torch's own operators, so that what is
    exported runs without this package."""
    return _is_exporting() or torch.onnx.is_in_onnx_export()


def transformed() -> bool:
    """Whether a transform of `torch.func` or forward-mode autograd is at work: for them, torch's operators serve. Of an
    operator that has no rule for tangents torch takes the derivative to be 0."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def in_triton(maps: Tensor) -> bool:
    """Whether Triton serves these maps `[T, B, n, ...]`: on CUDA, dense or two-dimensional."""
    return maps.is_cuda and HAS_TRITON and maps.ndim in (3, 5) and not exporting()
