"""The row operations of exact balance (torch.py) on a GPU, in Triton: one program for each neuron,
which holds all its weights, and so one pass each where torch takes ten.

A neuron's weights are looked at as `[taps, channels]`, whichever of the two lies inside; not tap by tap, they are one
tap.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from eisnn.functional.conserved import LEAST_TOTAL, SMALLEST
from eisnn.ops.weights.torch import TorchRows


@triton.jit
def _tile(taps, channels, tap_stride, channel_stride, TAPS: tl.constexpr, CHANNELS: tl.constexpr):
    """Where the weights of this program's neuron lie, and which elements of the tile exist."""
    tap, channel = tl.arange(0, TAPS), tl.arange(0, CHANNELS)
    row = tl.program_id(0).to(tl.int64) * taps * channels
    here = (tap[:, None] < taps) & (channel[None, :] < channels)
    return row + tap[:, None] * tap_stride + channel[None, :] * channel_stride, here


@triton.jit
def _share(total, taps, TOTAL: tl.constexpr, C: tl.constexpr):
    """What the weights of one tap are to sum to."""
    share = tl.full((1,), 1.0, C)
    if TOTAL:
        share = share * tl.load(total).to(C)
    return share / taps


@triton.jit
def _at_tap(taps, TAPS: tl.constexpr):
    """Where this neuron's numbers for each tap lie, and which exist."""
    return tl.program_id(0) * taps + tl.arange(0, TAPS), tl.arange(0, TAPS) < taps


@triton.jit
def _shared(
    weight, total, sums, taps, here, LEAST: tl.constexpr, TOTAL: tl.constexpr, C: tl.constexpr, TAPS: tl.constexpr
):
    """This neuron's weights, each tap scaled to its share; keeps what the taps summed to."""
    share = _share(total, taps, TOTAL, C)
    w = tl.load(weight, mask=here, other=0).to(C)
    s = tl.maximum(tl.sum(w, 1), LEAST * share)
    at_tap, there = _at_tap(taps, TAPS)
    tl.store(sums + at_tap, s, mask=there)
    return w * (share / s)[:, None]


@triton.jit
def share_kernel(
    weight, total, shared, sums, taps, channels, tap_stride, channel_stride,
    LEAST: tl.constexpr, TOTAL: tl.constexpr, C: tl.constexpr, TAPS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    at, here = _tile(taps, channels, tap_stride, channel_stride, TAPS, CHANNELS)
    tl.store(shared + at, _shared(weight + at, total, sums, taps, here, LEAST, TOTAL, C, TAPS), mask=here)


@triton.jit
def fold_kernel(
    weight, product, total, row_norm, folded, sums, norms, taps, channels, tap_stride, channel_stride,
    LEAST: tl.constexpr, SMALLEST: tl.constexpr, TOTAL: tl.constexpr, C: tl.constexpr, TAPS: tl.constexpr,
    CHANNELS: tl.constexpr,
):  # fmt: skip
    at, here = _tile(taps, channels, tap_stride, channel_stride, TAPS, CHANNELS)
    w = _shared(weight + at, total, sums, taps, here, LEAST, TOTAL, C, TAPS)
    f = w - tl.load(product + at, mask=here, other=0).to(C)
    norm = tl.maximum(tl.sqrt(tl.sum(tl.sum(f * f, 1), 0)), SMALLEST)
    tl.store(norms + tl.program_id(0), norm)
    tl.store(folded + at, f * (tl.load(row_norm).to(C) / norm), mask=here)


@triton.jit
def through_fold_kernel(
    grad, folded, norms, row_norm, grad_f, taps, channels, tap_stride, channel_stride,
    LEAST: tl.constexpr, TOTAL: tl.constexpr, C: tl.constexpr, TAPS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    at, here = _tile(taps, channels, tap_stride, channel_stride, TAPS, CHANNELS)
    norm_to = tl.load(row_norm).to(C)
    g = tl.load(grad + at, mask=here, other=0).to(C)
    unit = tl.load(folded + at, mask=here, other=0).to(C) / norm_to
    f = (g - unit * tl.sum(tl.sum(g * unit, 1), 0)) * (norm_to / tl.load(norms + tl.program_id(0)).to(C))
    tl.store(grad_f + at, f, mask=here)


@triton.jit
def through_share_kernel(
    grad, weight, sums, total, grad_weight, taps, channels, tap_stride, channel_stride,
    LEAST: tl.constexpr, TOTAL: tl.constexpr, C: tl.constexpr, TAPS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    at, here = _tile(taps, channels, tap_stride, channel_stride, TAPS, CHANNELS)
    at_tap, there = _at_tap(taps, TAPS)
    s = tl.load(sums + at_tap, mask=there, other=1).to(C)
    g = tl.load(grad + at, mask=here, other=0).to(C)
    w = tl.load(weight + at, mask=here, other=0).to(C)
    share = _share(total, taps, TOTAL, C)
    along = tl.where(s > LEAST * share, tl.sum(g * w, 1) / s, 0.0)
    tl.store(grad_weight + at, (g - along[:, None]) * (share / s)[:, None], mask=here)


class TritonRows(TorchRows):
    """The same by one program for each neuron."""

    def share(self, weight: Tensor, total: Tensor | None) -> tuple[Tensor, Tensor]:
        shared, sums = weight.new_empty(self.neurons, self.size), weight.new_empty(self.neurons, self.taps)
        self._launch(share_kernel, weight, _or(total, weight), shared, sums, total=total)
        return shared, sums

    def fold(
        self, weight: Tensor, product: Tensor, total: Tensor, row_norm: Tensor, folded: Tensor
    ) -> tuple[Tensor, Tensor]:
        sums, norms = weight.new_empty(self.neurons, self.taps), weight.new_empty(self.neurons, 1)
        self._launch(fold_kernel, weight, product, total, row_norm, folded, sums, norms, total=total, SMALLEST=SMALLEST)
        return sums, norms

    def through_fold(self, grad: Tensor, folded: Tensor, norms: Tensor, row_norm: Tensor) -> Tensor:
        grad_f = torch.empty_like(grad)
        self._launch(through_fold_kernel, grad, folded, norms, row_norm, grad_f, total=None)
        return grad_f

    def through_share(self, grad: Tensor, weight: Tensor, sums: Tensor, total: Tensor | None) -> Tensor:
        grad_weight = torch.empty_like(grad)
        self._launch(through_share_kernel, grad, weight, sums, _or(total, weight), grad_weight, total=total)
        return grad_weight

    def _launch(self, kernel: Any, *tensors: Tensor, total: Tensor | None, **constants: float) -> None:
        channels = self.size // self.taps
        strides = (channels, 1) if self.channels_inside else (1, self.taps)
        tile = {"TAPS": triton.next_power_of_2(self.taps), "CHANNELS": triton.next_power_of_2(channels)}
        kernel[(self.neurons,)](
            *tensors, self.taps, channels, *strides, LEAST=LEAST_TOTAL, TOTAL=total is not None, **constants, **tile,
            C=tl.float64 if tensors[0].dtype == torch.float64 else tl.float32,
            num_warps=max(1, min(16, tile["TAPS"] * tile["CHANNELS"] // 512)), enable_fp_fusion=False,
        )  # fmt: skip


def _or(total: Tensor | None, other: Tensor) -> Tensor:
    return other if total is None else total
