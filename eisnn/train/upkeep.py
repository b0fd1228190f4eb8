"""What may be done to weights after the optimizer's step; weights are looked at, activity is not."""

import torch
from torch import nn

from eisnn.nn import EICircuit


@torch.no_grad()
def scale_synapses_(model: nn.Module, exponent: float) -> None:
    """Synaptic scaling (P1): multiply each neuron's `weight_ee` by `(inhibition / excitation) ** exponent`, in place.

    Excitation is the sum of a neuron's row of `W_EE`, inhibition that of `W_EI W_IE`; their ratio r becomes
    `r ** (1 - exponent)`. A neuron that has lost all of one of them is left alone. Signs do not change.

    Args:
        exponent: in [0, 1]; 1 balances exactly, 0 does nothing.
    """
    for circuit in model.modules():
        if isinstance(circuit, EICircuit):
            excitation = circuit.weight_ee.flatten(1).sum(1)
            inhibition = circuit.weight_ei @ circuit.weight_ie.flatten(1).sum(1)
            ratio = torch.where((excitation > 0) & (inhibition > 0), inhibition / excitation, 1)
            circuit.weight_ee.mul_(ratio.pow(exponent).view(-1, *[1] * (circuit.weight_ee.ndim - 1)))
