"""The row operations of exact balance (torch.py) on a GPU: what calls the Triton kernels (triton.py), which are
imported when the first one is needed."""

import torch
from torch import Tensor

from eisnn.functional.conserved import LEAST_TOTAL, SMALLEST
from eisnn.ops.backends import HAS_TRITON
from eisnn.ops.weights.torch import ROWS, TorchRows

LARGEST = 1 << 14  # weights of one neuron that a program can hold


def serves(weight: Tensor) -> bool:
    """Whether the kernels serve these weights `[n, ...]`."""
    known = weight.is_cuda and HAS_TRITON and weight.dtype in (torch.float32, torch.float64)
    return known and weight[0].numel() <= LARGEST


@ROWS.register("triton", serves)
class TritonRows(TorchRows):
    """The same by one program for each neuron."""

    def share(self, weight: Tensor, total: Tensor | None) -> tuple[Tensor, Tensor]:
        shared, sums = weight.new_empty(self.neurons, self.size), weight.new_empty(self.neurons, self.taps)
        self._launch("share_kernel", weight, _or(total, weight), shared, sums, total=total)
        return shared, sums

    def fold(self, weight: Tensor, product: Tensor, total: Tensor, row_norm: Tensor) -> tuple[Tensor, Tensor]:
        sums, norms = weight.new_empty(self.neurons, self.taps), weight.new_empty(self.neurons, 1)
        self._launch("fold_kernel", weight, product, total, row_norm, sums, norms, total=total, SMALLEST=SMALLEST)
        return sums, norms

    def through_fold(self, grad: Tensor, folded: Tensor, norms: Tensor, row_norm: Tensor) -> Tensor:
        self._launch("through_fold_kernel", grad, folded, norms, row_norm, total=None)
        return grad

    def through_share(self, grad: Tensor, weight: Tensor, sums: Tensor, total: Tensor | None) -> Tensor:
        self._launch("through_share_kernel", grad, weight, sums, _or(total, weight), total=total)
        return grad

    def _launch(self, kernel: str, *tensors: Tensor, total: Tensor | None, **constants: float) -> None:
        from triton import next_power_of_2
        from triton.language import float32, float64

        from eisnn.ops.weights import triton

        channels = self.size // self.taps
        strides = (channels, 1) if self.channels_inside else (1, self.taps)
        tile = {"TAPS": next_power_of_2(self.taps), "CHANNELS": next_power_of_2(channels)}
        getattr(triton, kernel)[(self.neurons,)](
            *tensors, self.taps, channels, *strides, LEAST=LEAST_TOTAL, TOTAL=total is not None, **constants, **tile,
            C=float64 if tensors[0].dtype == torch.float64 else float32,
            num_warps=max(1, min(16, tile["TAPS"] * tile["CHANNELS"] // 512)), enable_fp_fusion=False,
        )  # fmt: skip


def _or(total: Tensor | None, other: Tensor) -> Tensor:
    return other if total is None else total
