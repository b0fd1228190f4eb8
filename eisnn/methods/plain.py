"""Conv-LIF without any normalization: only the weights at the start keep the membrane in range. They are drawn in the
constructor; neither rule needs data.

    n, nu        fan-in; spikes of one input in a step
    U            membrane potential of a neuron without threshold and reset; over time its mean is mu_U (that of all
                 neurons) and its standard deviation sigma_U
    k[s]         decay^s, the potential s steps after a unit of current; sum k = tau, sum k^2 = 1 / (1 - decay^2)
"""

from collections.abc import Callable
from math import erfc, sqrt
from typing import Any

import torch
from torch import Tensor, nn

from eisnn.functional import LIFConstants, fan_in
from eisnn.nn.neurons import LIF
from eisnn.nn.projection import ProjectionLayer, projected
from eisnn.nn.registry import Layers, register

Init = Callable[[Tensor, LIFConstants], Any]


@torch.no_grad()
def fluctuation_driven_(
    weight: Tensor,
    constants: LIFConstants,
    nu: float = 0.05,
    xi: float = 1.0,
    mu_u: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Fluctuation-driven initialization: normal weights with which Poisson inputs of rate nu give `U` the mean `mu_u`
    and put the threshold xi standard deviations above it,

        mu_W = mu_U / (n nu sum k),   sigma_W^2 = ((theta - mu_U) / xi)^2 / (n nu sum k^2) - mu_W^2.

    Args:
        weight: `[neurons, ...]`, filled in place.
        constants: of the LIF neurons that follow.
        nu: the rate of all inputs, > 0; assumed here, where the paper takes that of its data.
        xi: distance of the threshold, > 0.
        mu_u: < theta.
    Raises: ValueError for values out of range, or if no variance is left beside the mean.
    Source: Rossbroich, Gygax, Zenke: Fluctuation-driven initialization for spiking neural network training,
    Neuromorphic Computing and Engineering 2, 2022, for neurons without synaptic filter, in discrete time.
    """
    if not (nu > 0 and xi > 0 and mu_u < constants.theta):
        raise ValueError(f"nu and xi must be > 0 and mu_u < theta = {constants.theta}, got {nu}, {xi}, {mu_u}")
    inputs = fan_in(weight) * nu
    mean = mu_u / (inputs * constants.tau)
    variance = ((constants.theta - mu_u) / xi) ** 2 * (1 - constants.decay**2) / inputs - mean**2
    if variance <= 0:
        raise ValueError(f"mu_u = {mu_u} leaves the weights no variance at fan-in {fan_in(weight)}; give a smaller one")
    return weight.normal_(mean, sqrt(variance), generator=generator)


@torch.no_grad()
def activity_preserving_(weight: Tensor, constants: LIFConstants, generator: torch.Generator | None = None) -> Tensor:
    """Deep activity propagation: centred normal weights of variance `1 / (n P(u > theta))`, with which spikes of
    potentials u ~ N(0, 1) give the next layer potentials of variance 1 again. Leak and reset do not enter.

    Args: as `fluctuation_driven_`. The first layer, whose inputs are no spikes, is filled like the others.
    Source: Micheli, Booij, van Gemert, Tömen: Deep activity propagation via weight initialization in spiking neural
    networks, NICE 2025, arXiv 2410.00580.
    """
    firing = 0.5 * erfc(constants.theta / sqrt(2))
    return weight.normal_(0, sqrt(1 / (fan_in(weight) * firing)), generator=generator)


def lif_constants(neuron: nn.Module | None) -> LIFConstants:
    """Those of an `LIF`; for any other neuron the defaults."""
    return neuron.constants if isinstance(neuron, LIF) else LIFConstants()


class PlainLayer(ProjectionLayer):
    """A projection and a neuron, nothing else.

    Args:
        projection: without bias; its weights are filled by `init`.
        neuron: copied into the layer; None returns the currents.
        init: `fluctuation_driven_`, `activity_preserving_` or another function of weights and constants.
    """

    def __init__(
        self, projection: nn.Conv2d | nn.Linear, neuron: nn.Module | None, init: Init = fluctuation_driven_
    ) -> None:
        super().__init__(projection, neuron)
        init(projection.weight, lif_constants(neuron))


@register("plain")
def plain(neuron: nn.Module | None, time_steps: int | None) -> Layers:
    """Conv-LIF with fluctuation-driven weights (FDI)."""
    return projected(lambda projection: PlainLayer(projection, neuron, fluctuation_driven_))


@register("dap")
def dap(neuron: nn.Module | None, time_steps: int | None) -> Layers:
    """Conv-LIF with weights by deep activity propagation."""
    return projected(lambda projection: PlainLayer(projection, neuron, activity_preserving_))
