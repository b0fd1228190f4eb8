"""The row operations of exact balance (torch.py) on a CPU, compiled: rows.cpp."""

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from eisnn.functional.conserved import LEAST_TOTAL, SMALLEST
from eisnn.ops import build
from eisnn.ops.structs import fields_of
from eisnn.ops.weights.torch import ROWS, TorchRows


class Rows(ctypes.Structure):
    """Arguments of the kernel; see rows.cpp."""

    _fields_ = fields_of("Rows", Path(__file__).with_name("rows.cpp"))


def serves(weight: Tensor) -> bool:
    """Whether the kernel serves these weights; what torch compiles does without it."""
    known = weight.is_cpu and weight.dtype in (torch.float32, torch.float64)
    return known and not torch.compiler.is_compiling() and build.library() is not None


@ROWS.register("compiled", serves)
class CompiledRows(TorchRows):
    """The same, neuron by neuron."""

    def share(self, weight: Tensor, total: Tensor | None) -> tuple[Tensor, Tensor]:
        shared, sums = weight.new_empty(self.neurons, self.size), weight.new_empty(self.neurons, self.taps)
        self._run("share", weight=weight, total=total, shared=shared, sums=sums)
        return shared, sums

    def fold(self, weight: Tensor, product: Tensor, total: Tensor, row_norm: Tensor) -> tuple[Tensor, Tensor]:
        sums, norms = weight.new_empty(self.neurons, self.taps), weight.new_empty(self.neurons, 1)
        self._run("fold", weight=weight, folded=product, total=total, row_norm=row_norm, sums=sums, norms=norms)
        return sums, norms

    def through_fold(self, grad: Tensor, folded: Tensor, norms: Tensor, row_norm: Tensor) -> Tensor:
        self._run("through_fold", grad=grad, folded=folded, norms=norms, row_norm=row_norm)
        return grad

    def through_share(self, grad: Tensor, weight: Tensor, sums: Tensor, total: Tensor | None) -> Tensor:
        self._run("through_share", grad=grad, weight=weight, sums=sums, total=total)
        return grad

    def _run(self, operation: str, **tensors: Tensor | None) -> None:
        """Call the kernel; tensors by their names in `Rows`, of one dtype, rows without gaps in memory."""
        library = build.library()
        assert library is not None
        present = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        (dtype,) = {tensor.dtype for tensor in present.values()}
        rows = Rows(
            **{name: tensor.data_ptr() for name, tensor in present.items()},
            neurons=self.neurons,
            taps=self.taps,
            channels=self.size // self.taps,
            channels_inside=self.channels_inside,
            threads=torch.get_num_threads(),
            least=LEAST_TOTAL,
            smallest=SMALLEST,
        )
        getattr(library, f"rows_{operation}_{build.TYPES[dtype]}")(ctypes.byref(rows))
