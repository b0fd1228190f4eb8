"""LIF neurons that learn their time constant."""

from dataclasses import replace
from math import inf, log
from typing import Any

import torch
from torch import Tensor, nn

from eisnn.functional import LIFConstants, lif_step
from eisnn.functional.checks import check_state, check_steps


class PLIF(nn.Module):
    """Parametric LIF neurons (Fang et al. 2021): `1/tau = sigmoid(w)`, one trainable `w` for all neurons of a layer.

    Called as `LIF`, step by step instead of in one pass: several times as slow.

    Args:
        tau: membrane time constant at the start, in time steps, > 1.
        **constants: of the neuron, as those of `LIF` but for `tau`.
    Raises: ValueError for values out of range.
    Source: Incorporating learnable membrane time constant to enhance learning of spiking neural networks, ICCV 2021;
        there the input is scaled by 1/tau as well, here it is not, as in eq. (1).
    """

    def __init__(self, tau: float = 2.0, **constants: Any) -> None:
        super().__init__()
        if not 1 < tau < inf:
            raise ValueError(f"tau of PLIF is a learned time constant in time steps and must be > 1, got {tau!r}")
        self.w = nn.Parameter(torch.tensor(-log(tau - 1)))
        self.undecayed = LIFConstants(tau=inf, **constants)  # the decay is this module's
        self.given_width = self.undecayed.width

    @property
    def tau(self) -> float:
        """The present time constant, in time steps."""
        return 1 / float(self.w.detach().sigmoid())

    @property
    def constants(self) -> LIFConstants:
        """Of the `LIF` neurons that these are at present."""
        return replace(self.undecayed, tau=self.tau)

    def set_surrogate_width_(self, alpha: float) -> None:
        """As that of `LIF`."""
        self.undecayed = replace(self.undecayed, alpha=alpha)

    def forward(
        self, current: Tensor, time_steps: int | None = None, state: Tensor | None = None, return_state: bool = False
    ) -> Any:
        """As `LIF.forward`."""
        steps = check_steps("PLIF", current.shape, time_steps)
        check_state(state, current.shape[1:])
        decay = (1 - self.w.sigmoid()).to(current.dtype)
        v = torch.zeros_like(current[0]) if state is None else state
        spikes = []
        for i in current.expand(steps, *current.shape[1:]):
            s, v = lif_step(i, decay * v, self.undecayed)
            spikes.append(s)
        return (torch.stack(spikes), v) if return_state else torch.stack(spikes)

    def extra_repr(self) -> str:
        return f"tau={self.tau:.3g}, theta={self.undecayed.theta}, reset={self.undecayed.reset}"
