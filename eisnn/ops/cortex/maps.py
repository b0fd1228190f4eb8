"""The scan of a convolutional cortical circuit on a CPU. A step is a convolution of what E cells passed on, another one
for the surround of SST cells, and one call of the compiled routine (cortex.cpp) for all else, to which each position of
the map is a sample.
"""

from dataclasses import replace

import torch
from torch import Tensor

from eisnn.functional import cortex as FC
from eisnn.functional.connection import Conv
from eisnn.ops import build
from eisnn.ops.conv2d.op import conv2d
from eisnn.ops.cortex.cpu import INPUTS, KINDS, LATERAL, STATE, TYPES, VECTORS, Scan
from eisnn.ops.cortex.torch import CIRCUITS

AROUND = ("recurrent_ee", "recurrent_pe", "recurrent_ve")  # the others have the kernel size of the surround


def serves(currents: Tensor, weights: FC.CorticalWeights, constants: FC.CorticalConstants) -> bool:
    """Whether this serves the circuit: on a CPU, with a divisor that cannot be 0. The stabilisation of others looks at
    all positions of a sample."""
    maps = currents.device.type == "cpu" and currents.ndim == 5
    if not maps or weights.recurrent_ee is None or weights.sigma is None:
        return False
    known = weights.bias.dtype in TYPES and constants.lif.surrogate_number is not None
    return known and not torch.compiler.is_compiling() and build.library() is not None


@CIRCUITS.register("compiled steps", serves)
def by_steps(
    currents: Tensor,
    weights: FC.CorticalWeights,
    constants: FC.CorticalConstants,
    state: FC.CorticalState,
    steps: int,
    top_down: Tensor | None,
) -> tuple[Tensor, FC.CorticalState]:
    """`cortical_circuit`, a call of the routine for each step and direction."""
    around, surround = constants.recurrent, constants.surround
    assert isinstance(around, Conv)
    assert isinstance(surround, Conv)
    dtype, shape = weights.bias.dtype, (currents.shape[1], *currents.shape[3:])
    currents = FC.leaky(currents.to(dtype).expand(steps, *currents.shape[1:]), constants.excitatory, state.feedforward)
    within = torch.cat([weight for name in AROUND if (weight := getattr(weights, name)) is not None])
    fixed: dict[str, Tensor | None] = {name: getattr(weights, name) for name in (*LATERAL, *VECTORS)}
    fixed["weight_ep"] = FC.onto_e(weights)
    now = {"v": state.v}
    for kind in KINDS:
        now[f"{kind}_u"], now[f"{kind}_trace"] = getattr(state, kind)
    now = {name: rows_of(maps, shape) for name, maps in now.items()}
    now["history"] = now["v"].new_empty(len(now["v"]), 0, now["v"].shape[1])
    passed, spikes, below = list(state.history.to(dtype).unbind(1)), [], currents.shape[2]
    once = replace(constants, excitatory=0.0, delay=0)
    for t, feedforward in enumerate(currents):
        evoked = conv2d(passed[0], within, None, around)
        given = fixed | {f"{name}_start": rows for name, rows in now.items()}
        given["currents"] = rows_of(feedforward + evoked[:, :below], shape)[None]
        if weights.recurrent_se is not None:
            given["onto_sst"] = rows_of(conv2d(passed[0], weights.recurrent_se, None, surround), shape)[None]
        if weights.recurrent_ve is not None:
            from_above = 0 if top_down is None else top_down[min(t, len(top_down) - 1)]
            given["top_down"] = rows_of(evoked[:, below:] + from_above, shape)[None]
        fired, *ends = Scan.apply(
            once, 1, *(None if (x := given.get(name)) is None else x.to(dtype) for name in INPUTS)
        )
        now = dict(zip(STATE, ends, strict=True))
        spikes.append(maps_of(fired[0], shape))
        passed = [*passed[1:], constants.excitatory * passed[-1] + (1 - constants.excitatory) * spikes[-1]]
    after = {name: maps_of(rows, shape) for name, rows in now.items() if name != "history"}
    cells = {
        kind: FC.Interneurons(after[f"{kind}_u"], after[f"{kind}_trace"]) if before.u.numel() else before
        for kind, before in ((kind, getattr(state, kind)) for kind in KINDS)
    }
    return torch.stack(spikes), FC.CorticalState(after["v"], torch.stack(passed, 1), currents[-1], **cells)


def rows_of(maps: Tensor, shape: tuple[int, ...]) -> Tensor:
    """`[B, n, H, W]` -> `[B H W, n]`, for `shape` `(B, H, W)`; without such cells `[B, 0]` -> `[B H W, 0]`."""
    return maps.movedim(1, -1).flatten(0, -2) if maps.ndim == 4 else maps.new_empty(shape).flatten()[:, None][:, :0]


def maps_of(rows: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The inverse of `rows_of` where there are such cells; no copy."""
    return rows.unflatten(0, shape).movedim(-1, 1)
