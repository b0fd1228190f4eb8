"""Ablations of the paper's circuit, by name: what becomes of the network when one part of the method is missing.

The layers here compute eqs. (9)-(15) as written, product by product, so that each part can be left out by itself. They
are slow, and are meant to be compared and not to be used; with nothing ablated they are `EIConv2d`, `EILinear` and
`EIReadout` (the tests hold them together).
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod, sqrt
from typing import Any, Literal

import torch
from torch import Tensor

from eisnn import functional as EF
from eisnn.nn.circuit import CURRENTS, EICircuit, EIConv2d, EILayer, EILinear, EIReadout
from eisnn.nn.layer import Pathway, SpikingLayer
from eisnn.nn.neurons import check_stateless, run_neuron


@dataclass(frozen=True)
class Ablation:
    """What is missing or different; the default is the whole method.

    Args:
        signed: Dale's law. Without it no parameter is clamped, and the I neurons' ReLU is more than the identity.
        kaiming: `W_EE` and `W_IE` from a normal distribution of variance 2/d (He et al. 2015) instead of E-I Init's
            exponential one, clamped to >= 0 where the law holds. `W_EI` and `g_I` start as E-I Init has them.
        epsilon: the division is by `I_div + epsilon` instead of the stabilised current; None stabilises.
        straight_through: of adaptive stabilisation. Without it the gradients of all replaced sites of a sample go to
            the site with the smallest positive current, as autograd has it.
        factor, power: the gradient of `W_EI` is multiplied by `factor / d ** power`.
        inhibition: "both", or only one kind. The other is then the constant that it is on average at the start:
            "subtractive" has `g_E = 1 / E[I_div]` and no division; "divisive" has `b_E = -E[I_sub] / E[I_div]` and no
            subtraction (the readout keeps its own, and is as ever).
        theta_i: threshold of the I neurons, which fire `floor(I_IE / theta_i)` spikes in a step, eq. (26), each of them
            worth `theta_i`; backward the identity. None is the paper's limit, `s_I = I_IE`.
    """

    signed: bool = True
    kaiming: bool = False
    epsilon: float | None = None
    straight_through: bool = True
    factor: float = 1.0
    power: float = 1.0
    inhibition: Literal["both", "subtractive", "divisive"] = "both"
    theta_i: float | None = None


# The first seven rows, and the tenfold factors, are the paper's (Tables 2 and 3); it tried epsilon up to 1e-5.
ABLATIONS: dict[str, Ablation] = {
    "kaiming-clamped": Ablation(kaiming=True),
    "epsilon-1e-8": Ablation(epsilon=1e-8),
    "epsilon-1e-7": Ablation(epsilon=1e-7),
    "epsilon-1e-6": Ablation(epsilon=1e-6),
    "epsilon-1e-5": Ablation(epsilon=1e-5),
    "no-gradient-scaling": Ablation(power=0.0),
    "no-sign-constraint": Ablation(kaiming=True, signed=False),
    "epsilon-1e-4": Ablation(epsilon=1e-4),
    "epsilon-1e-3": Ablation(epsilon=1e-3),
    "epsilon-1e-2": Ablation(epsilon=1e-2),
    "no-straight-through": Ablation(straight_through=False),
    "gradient-scaling-0.1": Ablation(factor=0.1),
    "gradient-scaling-10": Ablation(factor=10.0),
    "gradient-scaling-sqrt": Ablation(power=0.5),
    "subtractive-only": Ablation(inhibition="subtractive"),
    "divisive-only": Ablation(inhibition="divisive"),
    "floor": Ablation(theta_i=1.0),
    "floor-0.1": Ablation(theta_i=0.1),
}


class _Ablated(EICircuit):
    """What hidden circuits and readouts share."""

    def __init__(self, *args: Any, ablation: Ablation, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ablation = ablation
        if not ablation.signed:
            self.dale_parameters = ()  # type: ignore[misc]

    @property
    def draw_weights(self) -> Callable[[torch.Size, float, torch.Generator | None], Tensor] | None:
        """What E-I Init draws `W_EE` and `W_IE` with instead of its exponential distribution."""
        return self._kaiming if self.ablation.kaiming else None

    def _kaiming(self, shape: torch.Size, _: float, generator: torch.Generator | None) -> Tensor:
        weights = torch.empty(shape, dtype=torch.float64).normal_(0, sqrt(2 / prod(shape[1:])), generator=generator)
        return weights.clamp_(min=0) if self.ablation.signed else weights

    def _lateral_weight(self) -> Tensor:
        return EF.scale_gradient(self.weight_ei, self.ablation.factor / self.fan_in**self.ablation.power)

    def _inhibitory(self, x: Tensor) -> Tensor:
        """`s_I` of the I neurons, eqs. (5)-(8)."""
        i_ie = self.connection.feedforward(x, self.weight_ie)
        if (theta := self.ablation.theta_i) is not None:
            return i_ie + (theta * (i_ie / theta).floor() - i_ie).detach()
        # The derivative of the ReLU at 0 is 1: it is the identity where weights are non-negative.
        return i_ie if self.ablation.signed else torch.where(i_ie >= 0, i_ie, 0)


class _AblatedLayer(_Ablated, EILayer):
    """A hidden circuit."""

    @torch.no_grad()
    def start_(self, scale: float, inhibitory_gain: float, mean: float) -> None:
        """As `EILayer.start_`; then what stands for the kind of inhibition that is missing."""
        super().start_(scale, inhibitory_gain, mean)
        if self.ablation.inhibition == "subtractive":
            self.gain_e.fill_(1 / (inhibitory_gain * self.fan_in * scale * mean))
        elif self.ablation.inhibition == "divisive":
            self.bias.fill_(-1 / inhibitory_gain)

    def folded(self) -> SpikingLayer:
        raise ValueError("an ablated circuit cannot be folded: it is computed as written; fold one without an ablation")

    def synapses(self) -> None:
        """The currents are not those of its weights."""
        return

    def pathways(self) -> list[Pathway]:
        return [
            Pathway("E->E", self.weight_ee, self.connection),
            Pathway("E->I", self.weight_ie, self.connection),
            Pathway("I->E, subtractive", self.weight_ei, None),
            Pathway("I->E, divisive", self.weight_ei * self.gain_i, None),
        ]

    def quantities(self) -> tuple[str, ...]:
        """Nothing is said to be `undivided`, as it may divide by something else."""
        return CURRENTS

    @torch.no_grad()
    def measure(self, x: Tensor, out: Tensor) -> dict[str, Tensor]:
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.weight_ee.dtype)
            return dict(zip(CURRENTS, (*self.currents_as_written(x), self.integrated(x)), strict=True))

    def currents_as_written(self, x: Tensor) -> EF.Currents:
        """`I_EE`, `I_sub`, `I_div` of `x`, each on its own, `[T, B, n_E, ...]`."""
        weight_ei, s_i = self._lateral_weight(), self._inhibitory(x)
        i_ee = self.connection.feedforward(x, self.weight_ee)
        return EF.Currents(
            i_ee, EF.lateral(s_i, weight_ei), EF.lateral(EF.per_neuron(self.gain_i, s_i) * s_i, weight_ei)
        )

    def _divisor(self, i_div: Tensor) -> Tensor:
        """What eq. (14) divides by."""
        if self.ablation.epsilon is not None:
            return i_div + self.ablation.epsilon
        if self.ablation.signed and self.ablation.straight_through:
            return EF.stabilize(i_div)
        stabilized = torch.where(i_div == 0, EF.smallest_positive(i_div), i_div)  # without signs, some are below 0
        return i_div + (stabilized - i_div).detach() if self.ablation.straight_through else stabilized

    def integrated(self, x: Tensor) -> Tensor:
        i_ee, i_sub, i_div = self.currents_as_written(x)
        balanced = i_ee if self.ablation.inhibition == "divisive" else i_ee - i_sub
        wide = torch.promote_types(balanced.dtype, torch.float32)
        balanced, i_div = balanced.to(wide), i_div.to(wide)
        q = balanced if self.ablation.inhibition == "subtractive" else balanced / self._divisor(i_div)
        return EF.per_neuron(self.gain_e, q) * q + EF.per_neuron(self.bias, q)

    def respond(self, x: Tensor, time_steps: int | None, state: Any, return_state: bool) -> tuple[Tensor, Any]:
        return run_neuron(self.neuron, self.integrated(x), time_steps, state, return_state)


class AblatedConv2d(_AblatedLayer, EIConv2d):
    """`EIConv2d` without what `ablation` takes away; its other arguments."""


class AblatedLinear(_AblatedLayer, EILinear):
    """`EILinear` without what `ablation` takes away; its other arguments."""


class AblatedReadout(_Ablated, EIReadout):
    """`EIReadout` without what `ablation` takes away; its other arguments."""

    def respond(self, x: Tensor, time_steps: int | None, state: Any, return_state: bool) -> tuple[Tensor, Any]:
        check_stateless(state, type(self).__name__)
        excitation = self.connection.feedforward(x, self.weight_ee)
        return excitation - EF.lateral(self._inhibitory(x), self._lateral_weight()), None


def ablated(name: str) -> Ablation:
    """The ablation called `name`; ValueError with the known names for any other."""
    if name not in ABLATIONS:
        raise ValueError(f"unknown ablation {name!r}; known: {', '.join(ABLATIONS)}")
    return ABLATIONS[name]
