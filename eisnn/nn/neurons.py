"""Neurons as modules, and how a layer runs one.

A neuron is called with the currents of a whole sequence, `[T, B, ...]`, and returns its spikes in the same shape.
"""

import inspect
from dataclasses import replace
from math import inf, log
from typing import Any, Literal, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from eisnn.functional import LIFConstants, lif_step
from eisnn.functional.checks import check_state, check_steps
from eisnn.ops import lif


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


HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def fusable(neuron: nn.Module | None) -> TypeGuard[LIF]:
    """Whether calling `neuron` does exactly what the fused operation does: it is an `LIF`, no subclass, and nothing
    listens to its calls."""
    return plain_lif(neuron) and not _has_any_global_hook()


def plain_lif(neuron: nn.Module | None) -> TypeGuard[LIF]:
    """Whether `neuron` is an `LIF`, no subclass, and nothing listens to its own calls."""
    return (
        type(neuron) is LIF and "forward" not in neuron.__dict__ and not any(getattr(neuron, hooks) for hooks in HOOKS)
    )


def run_neuron(
    neuron: nn.Module | None, current: Tensor, time_steps: int | None, state: Any, return_state: bool
) -> tuple[Tensor, Any]:
    """Pass the integrated current `I_E` through `neuron`: output `[T, B, ...]` and the new state (None without one).

    `LIF` broadcasts a static current itself; any other module receives `[T, B, ...]`, and state only when asked for.
    Raises TypeError if state is asked of a module that takes none.
    """
    if type(neuron) is LIF:
        return neuron(current, time_steps, state, return_state=True)
    if time_steps is not None:
        current = current.expand(time_steps, *current.shape[1:])
    if neuron is None:
        check_stateless(state, "a layer with neuron=None")
        return current, None
    if state is None and not return_state:
        return neuron(current), None
    try:
        return neuron(current, state=state, return_state=True)
    except TypeError as error:
        if _takes_state(neuron):
            raise
        raise TypeError(
            f"the neuron {type(neuron).__name__} keeps no state: its forward takes no state= and return_state=, so "
            "call without them, or give the layers a neuron that has both, e.g. eisnn.LIF()"
        ) from error


def _takes_state(neuron: nn.Module) -> bool:
    parameters = inspect.signature(neuron.forward).parameters
    return {"state", "return_state"} <= set(parameters) or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def check_stateless(state: Any, owner: str) -> None:
    """Raise ValueError for a state given to what keeps none."""
    if state is not None:
        raise ValueError(f"{owner} keeps no state: state must be None, got {type(state).__name__}")
