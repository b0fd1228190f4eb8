"""The scan of a cortical circuit on a CPU, compiled (cortex.cpp); gradients of weights are products over all steps."""

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eisnn.functional import cortex as FC
from eisnn.functional.checks import differentiated_once
from eisnn.functional.connection import Dense
from eisnn.ops import build
from eisnn.ops.cortex.torch import CIRCUITS
from eisnn.ops.structs import fields_of

SOURCE = Path(__file__).with_name("cortex.cpp")
TYPES = {dtype: name for dtype, name in build.TYPES.items() if dtype != torch.bfloat16}
KINDS = {"pv": "PV", "sst": "SST", "vip": "VIP"}
LATERAL = ("weight_ep", "weight_pp", "weight_ps", "weight_es", "weight_sv", "weight_vs")
VECTORS = ("gain_p", "gain_e", "bias", "sigma")
STATE = ("v", "history", *(f"{kind}_{part}" for kind in KINDS for part in ("u", "trace")))
# Arrays have the names of the routine's fields, those of interneurons with their kind before.
INPUTS = ("currents", "top_down", "onto_sst", "recurrent", *LATERAL, *VECTORS, *(f"{name}_start" for name in STATE))
Arrays = Mapping[str, Tensor]


class Cells(ctypes.Structure):
    """A kind of interneuron; see cortex.cpp."""

    _fields_ = fields_of("Cells", SOURCE)


class Circuit(ctypes.Structure):
    """Arguments of the routine; see cortex.cpp."""

    _fields_ = fields_of("Circuit", SOURCE, Cells=Cells)


def serves(currents: Tensor, weights: FC.CorticalWeights, constants: FC.CorticalConstants) -> bool:
    """Whether the routine serves this circuit: on a CPU, all-to-all, float32 or float64, a surrogate that it knows."""
    dense = all(isinstance(each, Dense) for each in (constants.forward, constants.recurrent, constants.surround))
    known = currents.is_cpu and constants.lif.surrogate_number is not None
    known = known and all(w is None or w.dtype == weights.bias.dtype for w in weights) and weights.bias.dtype in TYPES
    return dense and known and not torch.compiler.is_compiling() and build.library() is not None


@CIRCUITS.register("compiled", serves)
def compiled(
    currents: Tensor,
    weights: FC.CorticalWeights,
    constants: FC.CorticalConstants,
    state: FC.CorticalState,
    steps: int,
    top_down: Tensor | None,
) -> tuple[Tensor, FC.CorticalState]:
    """`cortical_circuit` in one call of the routine for each direction."""
    dtype = weights.bias.dtype
    currents = currents.to(dtype)
    if constants.excitatory:
        currents = FC.leaky(currents.expand(steps, *currents.shape[1:]), constants.excitatory, state.feedforward)
    given: dict[str, Tensor | None] = {name: getattr(weights, name) for name in (*LATERAL, *VECTORS)}
    given["weight_ep"] = FC.onto_e(weights)
    onto_all = (weights.recurrent_ee, weights.recurrent_pe, weights.recurrent_se, weights.recurrent_ve)
    recurrent = [weight for weight in onto_all if weight is not None]
    given |= {"currents": currents, "recurrent": torch.cat(recurrent) if recurrent else None}
    given |= {"v_start": state.v, "history_start": state.history}
    for kind in KINDS:
        given[f"{kind}_u_start"], given[f"{kind}_trace_start"] = getattr(state, kind)
    given["top_down"] = None if top_down is None else top_down.expand(steps, *state.vip.u.shape)
    tensors = [given.get(name) for name in INPUTS]
    spikes, *ends = Scan.apply(constants, steps, *(None if x is None else x.to(dtype) for x in tensors))
    end = dict(zip(STATE, ends, strict=True))
    cells = {kind: FC.Interneurons(end[f"{kind}_u"], end[f"{kind}_trace"]) for kind in KINDS}
    return spikes, FC.CorticalState(end["v"], end["history"], currents[-1], **cells)


class Scan(torch.autograd.Function):
    """Spikes and the `STATE` after the last step, of the tensors that `INPUTS` names."""

    @staticmethod
    def forward(ctx: Any, constants: FC.CorticalConstants, steps: int, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        given = {name: x.detach().contiguous() for name, x in zip(INPUTS, tensors, strict=True) if x is not None}
        made = _empty_outputs(given, constants, steps)
        _run("forward", given | made, constants)
        kept = {name: x for name, x in (given | made).items() if name != "currents"}
        ctx.constants, ctx.names, ctx.static = constants, list(kept), len(given["currents"]) < steps
        ctx.save_for_backward(*kept.values())
        ctx.set_materialize_grads(False)
        end = {"v": made["v_end"], "history": _history(given, made)}
        for kind in KINDS:
            end |= {f"{kind}_u": made[f"{kind}_u_end"], f"{kind}_trace": made[f"{kind}_trace"][-1].clone()}
        return (made["spikes"], *(end[name] for name in STATE))

    @staticmethod
    @differentiated_once
    def backward(ctx: Any, grad_spikes: Tensor | None, *grad_ends: Tensor | None) -> tuple[Any, ...]:
        known = dict(zip(ctx.names, ctx.saved_tensors, strict=True))
        given = {"grad_spikes": grad_spikes}
        given |= {_grad(f"{name}_end"): grad for name, grad in zip(STATE, grad_ends, strict=True)}
        made = _empty_gradients(known)
        known |= {name: grad.contiguous() for name, grad in given.items() if grad is not None} | made
        _run("backward", known, ctx.constants)
        needed = {name for name, needs in zip(INPUTS, ctx.needs_input_grad[2:], strict=True) if needs}
        found = _gradients(known, needed, ctx.static)
        return (None, None, *(found.get(name) for name in INPUTS))


def _grad(name: str) -> str:
    """The name of the gradient of an array."""
    kind, _, part = name.partition("_")
    return f"{kind}_grad_{part}" if kind in KINDS else f"grad_{name}"


def _empty_outputs(given: Arrays, constants: FC.CorticalConstants, steps: int) -> dict[str, Tensor]:
    """Memory for what the forward pass writes."""

    def over_time(name: str) -> Tensor:
        return given[name].new_empty(steps, *given[name].shape)

    made = {name: over_time("v_start") for name in ("spikes", "h", "q", "d")}
    if constants.excitatory and "recurrent" in given:
        made["passed_on"] = over_time("v_start")
    for kind in KINDS:
        made |= {f"{kind}_{part}": over_time(f"{kind}_u_start") for part in ("u", "trace")}
    return made | {
        f"{name}_end": torch.empty_like(given[f"{name}_start"]) for name in ("v", *(f"{k}_u" for k in KINDS))
    }


def _empty_gradients(known: Arrays) -> dict[str, Tensor]:
    """Memory for what the backward pass writes."""
    steps, batch, n_e = known["spikes"].shape
    n_y = n_e + sum(known[f"{kind}_u"].shape[2] for kind in KINDS)
    made = {"grad_y": known["h"].new_empty(steps, batch, n_y), "grad_div": torch.empty_like(known["d"])}
    made |= {_grad(f"{name}_start"): torch.empty_like(known[f"{name}_start"]) for name in STATE}
    return made | {_grad(name): known["h"].new_empty(batch, len(known[name])) for name in VECTORS if name in known}


def _history(given: Arrays, made: Arrays) -> Tensor:
    """What the synapses of E cells passed on at the last steps."""
    before = given["history_start"]
    delay = before.shape[1]
    passed_on = made.get("passed_on", made["spikes"])[len(made["spikes"]) - delay if delay else 0 :]
    return torch.cat([before, passed_on.transpose(0, 1)], 1)[:, -delay:].contiguous() if delay else before.clone()


def _run(direction: str, arrays: Arrays, constants: FC.CorticalConstants) -> None:
    """Call the routine."""

    def pointers(struct: type[ctypes.Structure], kind: str = "") -> dict[str, int]:
        there = {name: kind + name for name, *_ in struct._fields_ if kind + name in arrays}
        return {name: arrays[full].data_ptr() for name, full in there.items()}

    steps, batch, n_e = arrays["spikes"].shape
    static = "currents" in arrays and len(arrays["currents"]) == 1
    cells = {}
    for kind, name in KINDS.items():
        beta, quantum, unit = constants.decay[name], 1.0, 1.0
        if constants.thresholds is not None:
            quantum = float(constants.quanta[name])
            unit = constants.thresholds[name] * quantum
        n = arrays[f"{kind}_u"].shape[2]
        cells[kind] = Cells(n=n, decay=beta, scale=(1 - beta) / unit, quantum=quantum, **pointers(Cells, f"{kind}_"))
    circuit = Circuit(
        **pointers(Circuit),
        **cells,
        steps=steps,
        batch=batch,
        n_e=n_e,
        n_y=n_e + sum(each.n for each in cells.values()),
        delay=arrays["history_start"].shape[1],
        threads=torch.get_num_threads(),
        spiking=constants.thresholds is not None,
        hard_reset=constants.lif.reset == "hard",
        detach_reset=constants.lif.detach_reset,
        surrogate=constants.lif.surrogate_number,
        lif_decay=constants.lif.decay,
        theta=constants.lif.theta,
        alpha=constants.lif.width,
        excitatory=constants.excitatory,
        inhibitory=constants.inhibitory,
        current_step=0 if static else batch * (n_e + cells["pv"].n),
    )
    getattr(build.library(), f"cortex_{direction}_{TYPES[arrays['h'].dtype]}")(ctypes.byref(circuit))


def _gradients(known: Arrays, needed: set[str], static: bool) -> dict[str, Tensor]:
    """Of the inputs, those of weights where they are `needed`, of what the backward pass found; `static` currents are
    those of all steps."""
    grad_y = known["grad_y"]
    found = {name: known[_grad(name)].sum(0) for name in VECTORS if name in known}
    found |= {f"{name}_start": known[_grad(f"{name}_start")] for name in STATE}
    below = grad_y[:, :, : known["h"].shape[2] + known["pv_u"].shape[2]]
    found["currents"] = below.sum(0, keepdim=True) if static else below
    if "top_down" in known:
        found["top_down"] = grad_y[:, :, -known["top_down"].shape[2] :].clone()
    if "onto_sst" in known:
        found["onto_sst"] = grad_y[:, :, below.shape[2] :][:, :, : known["onto_sst"].shape[2]].clone()
    if "recurrent" in needed:
        found["recurrent"] = _of_recurrent(known, grad_y)
    sizes = [known["h"].shape[2], *(known[f"{kind}_u"].shape[2] for kind in KINDS)]
    reached = dict(zip(("e", *KINDS), grad_y.flatten(0, 1).split(sizes, 1), strict=True))
    kind_of = {kind[0]: kind for kind in reached}
    for name in needed.intersection(LATERAL):
        target, source = (kind_of[letter] for letter in name[-2:])
        trace = known[f"{source}_trace"]
        if name == "weight_ep":  # at the same step, and to the divisor too
            trace = trace.flatten(0, 1)
            found[name] = known["grad_div"].flatten(0, 1).T @ (known["gain_p"] * trace) - reached[target].T @ trace
        else:
            before = torch.cat([known[f"{source}_trace_start"][None], trace[:-1]]).flatten(0, 1)
            found[name] = -(reached[target].T @ before)
    return found


def _of_recurrent(known: Arrays, grad_y: Tensor) -> Tensor:
    """Gradient of the recurrent weights: what reached the cells at a step is what E cells passed on `delay` before."""
    history = known["history_start"]
    later = grad_y[history.shape[1] :].flatten(0, 1)
    grad = later.T @ known.get("passed_on", known["spikes"]).flatten(0, 1)[: len(later)]
    if history.any():
        at_first = grad_y[: history.shape[1]]
        grad += torch.einsum("tby,bte->ye", at_first, history[:, : len(at_first)])
    return grad
