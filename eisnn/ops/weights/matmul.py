"""Products of two matrices, alone or taken from a third, by the faster of the libraries that torch carries."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eisnn.ops.backends import transformed


def matmul(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """`a @ b`, `[m, k]`, `[k, n]` -> `[m, n]`; where `out` is given there, without a gradient.

    Whole float32 matrices by oneDNN on a CPU that is not Intel's, where torch exposes it: torch itself takes MKL, which
    uses half of what an AMD core can do (100 instead of 230 GFLOP/s on Zen 5).
    """
    if not _by_onednn_is_faster(a, b):
        return torch.mm(a, b, out=out)
    if out is not None:
        return out.copy_(matmul(a, b))
    if torch.is_grad_enabled() and (a.requires_grad or b.requires_grad):
        return _Matmul.apply(a, b)
    return _by_onednn_in_graphs(a, b) if torch.compiler.is_compiling() else _by_onednn(a, b)


def subtract_product(c: Tensor, a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """`c - a @ b`, `[m, n]`, `[m, k]`, `[k, n]` -> `[m, n]`; where `out` is given there, without a gradient."""
    if _by_onednn_is_faster(a, b):
        return torch.sub(c, matmul(a, b), out=out)
    return torch.addmm(c, a, b, alpha=-1, out=out)


def _by_onednn(a: Tensor, b: Tensor) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(_whole(a), _whole(b).T, None, "none", [], "")
    return product


def _whole(x: Tensor) -> Tensor:
    """Parts of larger matrices would take oneDNN's slow path."""
    return x if x.is_contiguous() or x.T.is_contiguous() else x.contiguous()


@torch.library.custom_op("eisnn::matmul", mutates_args=())
def _by_onednn_in_graphs(a: Tensor, b: Tensor) -> Tensor:
    """What inductor cannot look into: it has no lowering of oneDNN's operator for operands like these."""
    return _by_onednn(a, b)


@_by_onednn_in_graphs.register_fake
def _(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(a.shape[0], b.shape[1])


@contextmanager
def products_for(maps: Tensor) -> Iterator[None]:
    """Inside, products of float32 weights on CUDA are taken in TF32 if the maps that they are for have half precision,
    which loses four times as much. What the user has chosen by torch's `fp32_precision` stays."""
    try:
        coarse = maps.is_cuda and maps.dtype.itemsize < 4 and not torch.compiler.is_compiling()
        before = torch.get_float32_matmul_precision() if coarse else None
    except RuntimeError:  # the newer settings have been used, and this one may not be mixed with them
        before = None
    if before is None:
        yield
        return
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _made_by_intel() -> bool:
    try:
        return "GenuineIntel" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


_ONEDNN = (
    torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise") and not _made_by_intel()
)


def _by_onednn_is_faster(*factors: Tensor) -> bool:
    plain = all(x.is_cpu and x.dtype == torch.float32 and x.numel() > 0 for x in factors)
    return _ONEDNN and plain and not transformed()


class _Matmul(torch.autograd.Function):
    """oneDNN's operator has no derivative of its own."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return matmul(a, b)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = ctx.saved_tensors
        grad_a, grad_b = ctx.needs_input_grad
        return matmul(grads[0], b.T) if grad_a else None, matmul(a.T, grads[0]) if grad_b else None
