"""The cortical circuit by name: recurrence, time constants, PV, SST and VIP cells (`eisnn.cortex`)."""

from functools import partial

from torch import nn

from eisnn.cortex import CorticalConv2d, CorticalLinear, CorticalOptions
from eisnn.cortex.options import lif_constants, require_options
from eisnn.nn.circuit import EIReadout
from eisnn.nn.registry import Layers, register


class UnconstrainedReadout(EIReadout):
    """`EIReadout` without Dale's law, of the circuit's unconstrained twin."""

    dale_parameters = ()


@register("cortex", neurons="own")
def cortex(
    neuron: nn.Module | None,
    time_steps: int | None,
    ei_ratio: int = 4,
    options: CorticalOptions = CorticalOptions(),  # noqa: B008 - frozen
) -> Layers:
    """E and PV cells with recurrence; SST and VIP cells by `options`. The time constant of `neuron` is in steps."""
    lif_constants(neuron, "cortex")
    readout = EIReadout if require_options(options, "cortex").dale else UnconstrainedReadout
    return Layers(
        partial(CorticalConv2d, neuron=neuron, ei_ratio=ei_ratio, options=options),
        partial(CorticalLinear, neuron=neuron, ei_ratio=ei_ratio, options=options),
        partial(readout, ei_ratio=ei_ratio),
    )
