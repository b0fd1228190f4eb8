"""The paper's circuit: whole, with departures (`CircuitOptions`), or with a part ablated."""

from functools import partial

from torch import nn

from eisnn.methods.ablations import AblatedConv2d, AblatedLinear, AblatedReadout, ablated
from eisnn.nn.circuit import EIConv2d, EILinear, EIReadout
from eisnn.nn.options import PAPER, CircuitOptions
from eisnn.nn.registry import Layers, register


@register("ei")
def ei(
    neuron: nn.Module | None,
    time_steps: int | None,
    ei_ratio: int = 4,
    options: CircuitOptions = PAPER,
    ablation: str | None = None,
) -> Layers:
    """The paper's circuit, or one that departs from it by `options`, or lacks a part by the name of an `ablation`."""
    if ablation is None:
        return Layers(
            partial(EIConv2d, neuron=neuron, ei_ratio=ei_ratio, options=options),
            partial(EILinear, neuron=neuron, ei_ratio=ei_ratio, options=options),
            partial(EIReadout, ei_ratio=ei_ratio, options=options),
        )
    if options != PAPER:
        raise ValueError(f"an ablation is of the paper's circuit, without other options; got {options}")
    missing = ablated(ablation)
    return Layers(
        partial(AblatedConv2d, neuron=neuron, ei_ratio=ei_ratio, ablation=missing),
        partial(AblatedLinear, neuron=neuron, ei_ratio=ei_ratio, ablation=missing),
        partial(AblatedReadout, ei_ratio=ei_ratio, ablation=missing),
    )
