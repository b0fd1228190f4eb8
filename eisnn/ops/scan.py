"""The scan of LIF neurons over T by torch, in place and piece by piece."""

from collections.abc import Iterator

import torch
from torch import Tensor

from eisnn.functional.lif import LIFConstants
from eisnn.functional.surrogate import surrogate_derivative


def scan_(potentials: Tensor, spikes: Tensor, v: Tensor | None, constants: LIFConstants) -> Tensor:
    """Run (1)-(4) in place: `potentials` holds `I[t]` and receives `H[t]`; `spikes` receives `s[t]`.

    Returns: the potential after the last step.
    """
    for t, h in enumerate(potentials):
        if v is not None:
            h.add_(v, alpha=constants.decay)
        s = spikes[t]
        s.copy_(torch.where(h.isnan(), h, (h >= constants.theta).to(h.dtype)))  # NaN does not vanish
        v = h.sub(s, alpha=constants.theta) if constants.reset == "soft" else torch.where(h >= constants.theta, 0, h)
    assert v is not None
    return v


def scan_backward_(
    potentials: Tensor, grad_spikes: Tensor, grad_v: Tensor | None, constants: LIFConstants
) -> tuple[Tensor, Tensor]:
    """Gradients of the scan, backwards in time; `potentials` holds `H[t]` and receives `dL/dI[t]`.

    Args:
        grad_spikes: `dL/ds[t]`, like `potentials`.
        grad_v: `dL/dV[T]` or None for 0.
    Returns: `potentials`, and `dL/dV[0]` for the potential before the first step.
    """
    soft, theta = constants.reset == "soft", constants.theta
    for t in reversed(range(potentials.shape[0])):
        h = potentials[t]
        derivative = surrogate_derivative(h - theta, constants.surrogate, constants.alpha)
        grad_h = grad_spikes[t] * derivative
        if grad_v is not None:
            if soft:
                through = grad_v if constants.detach_reset else grad_v * (1 - theta * derivative)
            else:
                through = torch.where(h >= theta, 0, grad_v)
                if not constants.detach_reset:
                    through = through - grad_v * h * derivative
            grad_h.add_(through)
        h.copy_(grad_h)
        grad_v = grad_h.mul_(constants.decay)
    assert grad_v is not None
    return potentials, grad_v


# Elements of one piece of a map: a handful of float32 buffers of this size fit a core's second-level cache.
PIECE = 1 << 16


def pieces(maps: Tensor) -> Iterator[slice]:
    """Slices of the batch axis of `maps` `[T, B, ...]` whose time steps stay in the cache; on an accelerator, where
    launching costs more than memory, the whole batch."""
    batch = maps.shape[1]
    images = max(1, PIECE // max(1, maps[0, :1].numel())) if maps.device.type == "cpu" else max(1, batch)
    return (slice(b, b + images) for b in range(0, batch, images))
