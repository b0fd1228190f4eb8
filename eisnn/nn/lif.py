"""The neuron as a module."""

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from eisnn.functional import LIFConstants, lif


class LIF(nn.Module):
    """Leaky integrate-and-fire neurons, eqs. (1)-(4), over a whole sequence.

    The state is passed and returned: the module has no parameters, no buffers and nothing to reset.

    Args:
        tau: membrane time constant in time steps, >= 1.
        theta: threshold, > 0 and finite.
        reset: "soft" (subtract the threshold) or "hard" (to 0).
        surrogate: "sigmoid" (alpha 4), "atan", "fast_sigmoid", "triangle", "rectangle", "leaky_relu".
        alpha: width parameter of the surrogate, > 0 ("leaky_relu": >= 0); None takes its default.
        detach_reset: no gradient through the reset.
    Raises: ValueError for values out of range.
    """

    def __init__(
        self,
        tau: float = 2.0,
        theta: float = 1.0,
        reset: Literal["soft", "hard"] = "soft",
        surrogate: str = "sigmoid",
        alpha: float | None = None,
        detach_reset: bool = True,
    ) -> None:
        super().__init__()
        self.constants = LIFConstants(tau, theta, reset, surrogate, alpha, detach_reset)
        self.given_width = self.constants.width

    def set_surrogate_width_(self, alpha: float) -> None:
        """Give the surrogate the width parameter `alpha`, as E-I Init does that makes gradients even; ValueError out of
        range. `given_width` stays what the neuron came with, from which E-I Init sets out."""
        self.constants = replace(self.constants, alpha=alpha)

    def initial_state(self, current: Tensor) -> Tensor:
        """Potential before the first step, 0, for currents `[T, B, ...]`: `[B, ...]`."""
        return torch.zeros_like(current[0])

    def forward(
        self, current: Tensor, time_steps: int | None = None, state: Tensor | None = None, return_state: bool = False
    ) -> Any:
        """Spikes `[T, B, ...]` of `current` `[T, B, ...]` (or `[1, B, ...]` with `time_steps=T`: the same at each
        step); with `return_state` also the potential after the last step, `[B, ...]`, which `state` takes."""
        spikes, v = lif(current, self.constants, state, time_steps)
        return (spikes, v) if return_state else spikes

    def extra_repr(self) -> str:
        c = self.constants
        return f"tau={c.tau}, theta={c.theta}, reset={c.reset}, surrogate={c.surrogate}, alpha={c.width:.4g}"
