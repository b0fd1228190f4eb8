"""Leaky integrate-and-fire neurons, eqs. (1)-(4): one step, and the scan over T.

Shapes: currents and spikes `[T, B, ...]`, potentials `[B, ...]`. Current and potential are in units of the threshold
current, time in steps.

    H[t] = (1 - 1/tau) V[t-1] + I[t]        the input is not decayed
    s[t] = Heaviside(H[t] - theta)          H = theta fires
    V[t] = H[t] - theta s[t]                soft reset; hard reset: V[t] = H[t] (1 - s[t])
"""

import json
from dataclasses import dataclass, field, fields
from functools import cache
from math import inf
from numbers import Real
from typing import Literal

import torch
from torch import Tensor

from eisnn.functional.surrogate import SURROGATES, heaviside


@dataclass(frozen=True)
class LIFConstants:
    """Constants of an LIF neuron.

    Args:
        tau: membrane time constant in time steps, >= 1 (1 is a neuron without memory).
        theta: firing threshold, > 0.
        reset: "soft" subtracts the threshold, "hard" sets the potential to 0.
        surrogate: name of the surrogate derivative, see `eisnn.functional.SURROGATES`.
        alpha: its width parameter; None takes its default.
        detach_reset: no gradient through the reset term (the paper's choice).
    """

    tau: float = 2.0
    theta: float = 1.0
    reset: Literal["soft", "hard"] = "soft"
    surrogate: str = "sigmoid"
    alpha: float | None = None
    detach_reset: bool = True
    # All of it as text, which is what a torch operator takes.
    code: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not (isinstance(self.tau, Real) and self.tau >= 1):
            raise ValueError(f"tau is the membrane time constant in time steps and must be >= 1, got {self.tau!r}")
        if not (isinstance(self.theta, Real) and 0 < self.theta < inf):
            raise ValueError(f"theta is the firing threshold and must be > 0 and finite, got {self.theta!r}")
        if self.reset not in ("soft", "hard"):
            raise ValueError(f'reset must be "soft" or "hard", got {self.reset!r}')
        if self.surrogate not in SURROGATES:
            raise ValueError(f"unknown surrogate {self.surrogate!r}; known: {', '.join(sorted(SURROGATES))}")
        may_be_zero = self.surrogate == "leaky_relu"
        if not (isinstance(self.width, Real) and 0 <= self.width < inf and (self.width > 0 or may_be_zero)):
            raise ValueError(
                f"alpha is the width parameter of the surrogate {self.surrogate} and must be "
                f"{'>=' if may_be_zero else '>'} 0 and finite, got {self.alpha!r}"
            )
        if not isinstance(self.detach_reset, bool):
            raise ValueError(f"detach_reset must be True or False, got {self.detach_reset!r}")
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        object.__setattr__(self, "code", json.dumps(given, default=float))

    @staticmethod
    @cache
    def decode(code: str) -> "LIFConstants":
        """The constants of this `code`, exactly."""
        return LIFConstants(**json.loads(code))

    @property
    def decay(self) -> float:
        """`1 - 1/tau`: the part of the potential that remains after one step, in [0, 1)."""
        return 1 - 1 / self.tau

    @property
    def surrogate_number(self) -> int | None:
        """See `Surrogate.number`."""
        return SURROGATES[self.surrogate].number

    @property
    def width(self) -> float:
        """`alpha`, or the surrogate's default."""
        return SURROGATES[self.surrogate].alpha if self.alpha is None else self.alpha


def lif_step(current: Tensor, v: Tensor, constants: LIFConstants) -> tuple[Tensor, Tensor]:
    """One time step of (1)-(4).

    Args:
        current: `I[t]`, `[B, ...]`.
        v: `V[t-1]`, like `current`.
    Returns: spikes `s[t]` in {0, 1} and the potential `V[t]`.
    """
    h = constants.decay * v + current
    s = heaviside(h - constants.theta, constants.surrogate, constants.alpha)
    return s, potential_after(h, s, constants)


def potential_after(h: Tensor, s: Tensor, constants: LIFConstants) -> Tensor:
    """Eq. (3), the reset: `V[t]` of `H[t]` and the spikes `s[t]`."""
    reset = s.detach() if constants.detach_reset else s
    return h - constants.theta * reset if constants.reset == "soft" else h * (1 - reset)


def lif(
    current: Tensor, constants: LIFConstants, v: Tensor | None = None, time_steps: int | None = None
) -> tuple[Tensor, Tensor]:
    """The scan of `lif_step` over T, as written, which `eisnn.ops.lif` does fast.

    Args:
        current: `[T, B, ...]`; or `[1, B, ...]` with `time_steps=T`, a current that is the same at every step.
        constants: see `LIFConstants`.
        v: potential before the first step, `[B, ...]`; None is 0.
        time_steps: T, where `current` holds a single step.
    Returns: spikes `[T, B, ...]` in {0, 1} and the potential after the last step `[B, ...]`.
    """
    steps = current.shape[0] if time_steps is None else time_steps
    v = torch.zeros_like(current[0]) if v is None else v
    spikes = []
    for i in current.expand(steps, *current.shape[1:]):
        s, v = lif_step(i, v, constants)
        spikes.append(s)
    return torch.stack(spikes), v
