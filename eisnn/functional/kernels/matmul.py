"""The product of two matrices, by the faster of the libraries that torch carries."""

import torch
from torch import Tensor


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """`a @ b`, `[m, k]`, `[k, n]` -> `[m, n]`.

    Whole float32 matrices on a CPU, of which no gradient is asked, by oneDNN, where torch exposes it: torch itself
    takes MKL, which uses half of what an AMD core can do (100 instead of 230 GFLOP/s on Zen 5).
    """
    if _ONEDNN and all(_served(x) for x in (a, b)):
        return torch.ops.mkldnn._linear_pointwise(a, b.T, None, "none", [], "")
    return a @ b


_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _served(x: Tensor) -> bool:
    """Whether oneDNN is fast with it (parts of larger matrices take its slow path), and autograd does not look."""
    whole = x.is_contiguous() or x.T.is_contiguous()
    watched = torch.is_grad_enabled() and x.requires_grad
    return x.is_cpu and x.dtype == torch.float32 and whole and x.numel() > 0 and not watched
