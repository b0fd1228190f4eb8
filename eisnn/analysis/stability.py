"""Does a recurrent network return to where it works? Its cortical layers, linearised around what they do."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from eisnn.analysis.layers import choose_layers, evaluated, spiking_layers
from eisnn.analysis.record import record
from eisnn.cortex import CorticalLayer, largest_eigenvalue
from eisnn.init.recurrent import operating_point


@torch.no_grad()
def stability(
    model: nn.Module, inputs: Tensor, layers: str | Iterable[str] | None = None, onset: float = 0.0
) -> dict[str, float]:
    """Modulus of the largest eigenvalue of each cortical layer, by name, in one time step.

    Below 1 small deviations die out, by this factor a step; 1 and more they grow. The layer is linearised where it
    works while the model sees `inputs`, which is what E-I Init does to refuse a recurrence (`largest_eigenvalue`).
    Training may leave the range. A layer that has run away until most cells fire at every step is stable there: look at
    the rates too. Without recurrence from E cells it is 0.

    Args:
        model: any module that holds cortical layers, or one by itself, whose name is ""; evaluated, and left in the
            mode it was in.
        inputs: what it takes.
        layers: one name or several; None takes every cortical layer.
        onset: ms at the start of the sequence that are left out, >= 0, in which layers settle.
    Raises: ValueError for a name that is no cortical layer's, none of them, an onset that leaves nothing, or inside of
        `stimulate`, whose factors and currents the linearisation does not know.
    """
    found = {name: layer for name, layer in spiking_layers(model).items() if isinstance(layer, CorticalLayer)}
    names = list(choose_layers(model, found if layers is None else layers))
    if not names or any(name not in found for name in names):
        there = ", ".join(map(repr, found)) or "none"
        raise ValueError(f"stability is that of cortical layers; there are: {there}, asked for: {names}")
    if lit := [name for name in names if found[name].stimuli]:
        raise ValueError(f"stability is that of layers without stimuli; {', '.join(map(repr, lit))} is stimulated")
    with evaluated(model), record(model, names, ["I_E", "I_div"]) as recorded:
        model(inputs)
    eigenvalues = {}
    for name in names:
        layer, seen = found[name], recorded[name]
        duration = len(seen["I_E"]) * layer.options.dt
        if not 0 <= onset < duration:
            raise ValueError(f"onset must be >= 0 and below the {duration:g} ms of the sequence, got {onset!r}")
        i_e, i_div = (seen[what][round(onset / layer.options.dt) :] for what in ("I_E", "I_div"))
        point = operating_point(layer, i_e, i_div)
        size = i_e.new_zeros(1, 1, layer.sizes["E"] + layer.sizes["PV"], *i_e.shape[3:])
        eigenvalues[name] = largest_eigenvalue(size, layer.weights(), layer.constants, point)
    return eigenvalues
