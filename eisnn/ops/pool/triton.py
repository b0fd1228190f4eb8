"""2x2 average pooling with the channels inside, in Triton: torch's own kernels for that layout are many times as slow
as the memory of a GPU."""

import torch
import triton
import triton.language as tl
from torch import Tensor

POSITIONS, CHANNELS = 16, 64  # of one tile


@triton.jit
def _tile(positions, channels, width, POSITIONS: tl.constexpr, CHANNELS: tl.constexpr):
    """Where the first of the four pixels of each pooled one lies, in pixels; the channels; and what exists."""
    position = tl.program_id(1) * POSITIONS + tl.arange(0, POSITIONS)
    channel = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    pooled = width // 2
    first = 2 * (position // pooled) * width + 2 * (position % pooled)
    return position, first, channel, (position[:, None] < positions) & (channel[None, :] < channels)


@triton.jit
def forward_kernel(
    x, out, positions, channels, height, width, C: tl.constexpr, POSITIONS: tl.constexpr, CHANNELS: tl.constexpr
):
    image = tl.program_id(0).to(tl.int64)
    position, first, channel, here = _tile(positions, channels, width, POSITIONS, CHANNELS)
    at = x + (image * height * width + first[:, None]) * channels + channel[None, :]
    upper = tl.load(at, mask=here, other=0).to(C) + tl.load(at + channels, mask=here, other=0).to(C)
    at += width * channels
    lower = tl.load(at, mask=here, other=0).to(C) + tl.load(at + channels, mask=here, other=0).to(C)
    to = out + (image * positions + position[:, None]) * channels + channel[None, :]
    tl.store(to, ((upper + lower) * 0.25).to(out.dtype.element_ty), mask=here)


@triton.jit
def backward_kernel(
    grad, grad_x, positions, channels, height, width, C: tl.constexpr, POSITIONS: tl.constexpr, CHANNELS: tl.constexpr
):
    image = tl.program_id(0).to(tl.int64)
    position, first, channel, here = _tile(positions, channels, width, POSITIONS, CHANNELS)
    of = grad + (image * positions + position[:, None]) * channels + channel[None, :]
    each = (tl.load(of, mask=here, other=0).to(C) * 0.25).to(grad_x.dtype.element_ty)
    at = grad_x + (image * height * width + first[:, None]) * channels + channel[None, :]
    tl.store(at, each, mask=here)
    tl.store(at + channels, each, mask=here)
    at += width * channels
    tl.store(at, each, mask=here)
    tl.store(at + channels, each, mask=here)


def forward(x: Tensor) -> Tensor:
    """`[N, H, W, C]` -> `[N, H // 2, W // 2, C]`, contiguous both."""
    n, height, width, channels = x.shape
    out = x.new_empty(n, height // 2, width // 2, channels)
    _launch(forward_kernel, x, out, out, x)
    return out


def backward(grad: Tensor, height: int, width: int) -> Tensor:
    """From the gradient of the pooled map `[N, H // 2, W // 2, C]` to that of the map `[N, H, W, C]`, contiguous
    both."""
    n, *_, channels = grad.shape
    empty = torch.empty if height % 2 == width % 2 == 0 else torch.zeros  # an odd border is not pooled
    grad_x = empty(n, height, width, channels, dtype=grad.dtype, device=grad.device)
    _launch(backward_kernel, grad, grad_x, grad, grad_x)
    return grad_x


def _launch(kernel: triton.JITFunction, source: Tensor, target: Tensor, pooled: Tensor, whole: Tensor) -> None:
    n, height, width, channels = pooled.shape
    positions = height * width
    grid = n, triton.cdiv(positions, POSITIONS), triton.cdiv(channels, CHANNELS)
    wide = tl.float64 if source.dtype == torch.float64 else tl.float32
    kernel[grid](source, target, positions, channels, *whole.shape[1:3], C=wide, POSITIONS=POSITIONS, CHANNELS=CHANNELS)
