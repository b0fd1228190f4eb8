"""Cortical circuits as written: E, PV, SST and VIP populations with recurrence, delays and time constants.

One step, and the scan over T. The paper's circuit, eqs. (9)-(15), is the limit without recurrence, SST, VIP and memory.

x              [T, B, C, ...]   spikes of the layer below, >= 0
s_E            [B, n_E, ...]    spikes of the layer; what comes from them arrives `delay` >= 1 steps later
s_PV, s_SST, s_VIP              output of the interneurons, >= 0
W_AB, R_AB     onto A from B: of the layer below or at the same position (W), of E of this layer around it (R)

    I_PV[t]  = W_PE x[t] + R_PE s_E[t-D] - W_PP s_PV[t-1] - W_PS s_SST[t-1]
    I_SST[t] = R_SE s_E[t-D] - W_SV s_VIP[t-1]
    I_VIP[t] = R_VE s_E[t-D] + top_down[t] - W_VS s_SST[t-1]
    N[t]     = W_EE x[t] + R_EE s_E[t-D] - W_EP s_PV[t] - W_ES s_SST[t-1]
    I_E[t]   = g_E N[t] / (sigma + W_EP (g_P s_PV[t])) + b                        then LIF
    u_A[t]   = beta_A u_A[t-1] + (1 - beta_A) I_A[t],  s_A[t] = max(u_A[t], 0)    of each interneuron A

What a synapse passes on may be smoothed over time as well: by the decay `excitatory` what comes from E cells, by
`inhibitory` what comes from interneurons.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eisnn.functional.circuit import integrate, scale_gradient
from eisnn.functional.connection import Connection, Dense, fan_in, per_neuron
from eisnn.functional.lif import LIFConstants, lif_step

INTERNEURONS = ("PV", "SST", "VIP")
POPULATIONS = ("E", *INTERNEURONS)


class CorticalWeights(NamedTuple):
    """The weights of a circuit, all >= 0 but for `bias`; None where it has no such pathway.

    weight_ee, weight_pe   [n_E or n_PV, C, ...]   from the layer below
    weight_ep, weight_es   [n_E, n_PV or n_SST]    onto E at the same position; `weight_pp` and so on likewise
    recurrent_ee, ...      [n, n_E, ...]           from E of this layer
    gain_p [n_PV], gain_e [n_E], sigma [n_E], bias [n_E]
    """

    weight_ee: Tensor
    weight_pe: Tensor
    weight_ep: Tensor
    gain_p: Tensor
    gain_e: Tensor
    bias: Tensor
    sigma: Tensor | None = None
    recurrent_ee: Tensor | None = None
    recurrent_pe: Tensor | None = None
    recurrent_se: Tensor | None = None
    recurrent_ve: Tensor | None = None
    weight_pp: Tensor | None = None
    weight_ps: Tensor | None = None
    weight_es: Tensor | None = None
    weight_sv: Tensor | None = None
    weight_vs: Tensor | None = None


@dataclass(frozen=True)
class CorticalConstants:
    """What a circuit does in time and space.

    Args:
        lif: constants of the E neurons.
        decay: `beta` of each kind of interneuron that there is, in [0, 1).
        excitatory, inhibitory: decays of the synapses, in [0, 1); 0 passes on what comes, unsmoothed.
        dt: ms in a step, for what is said in ms (`Stimulus`).
        delay: steps, >= 1, from a spike of E to what it evokes in this layer.
        thresholds: of interneurons that are LIF neurons, by kind, in units of what one spike gives; None: graded ones.
        quanta: what one spike of such an interneuron gives, by kind.
        forward, recurrent, surround: how `W_EE` and `W_PE` project; the `R`; and `R_SE`.
    """

    lif: LIFConstants
    decay: Mapping[str, float]
    excitatory: float = 0.0
    inhibitory: float = 0.0
    dt: float = 1.0
    delay: int = 1
    thresholds: Mapping[str, float] | None = None
    quanta: Mapping[str, Tensor] = field(default_factory=dict)
    forward: Connection = field(default_factory=Dense)
    recurrent: Connection = field(default_factory=Dense)
    surround: Connection = field(default_factory=Dense)


class Interneurons(NamedTuple):
    """State of a kind of interneuron: potential `u` and what its synapses pass on, each `[B, n, ...]`; without such
    neurons `[B, 0]`."""

    u: Tensor
    trace: Tensor


class CorticalState(NamedTuple):
    """Everything that a circuit carries from step to step.

    v           [B, n_E, ...]      potential of the E neurons
    history     [B, D, n_E, ...]   what their synapses passed on at the last D steps, oldest first; D = 0 without
                                   recurrence
    feedforward [B, n_E + n_PV, ...]   what the synapses of the layer below passed on at the last step
    """

    v: Tensor
    history: Tensor
    feedforward: Tensor
    pv: Interneurons
    sst: Interneurons
    vip: Interneurons


class Stimulus(NamedTuple):
    """What an experimenter does to cells of one population, by light or current.

    Args:
        factor: on their output, >= 0; 0 silences them.
        current: added to their input (`I_E` of the E neurons, before they integrate it). Both are numbers, or tensors
            that broadcast to `[T, B, n, ...]`.
        neurons: which of them: a boolean mask that broadcasts to `[n, ...]`; None is all.
        onset, offset: when it acts, ms from the first step; an `offset` of None is the end.
        course: instead of these, how much of it acts at each step, `[T]` in [0, 1].
    """

    factor: float | Tensor = 1.0
    current: float | Tensor = 0.0
    neurons: Any = None
    onset: float = 0.0
    offset: float | None = None
    course: Any = None

    def at(self, t: int, dt: float) -> "Stimulus":
        """The factor and current that act at step t, of `dt` ms."""
        now = (t + 1e-6) * dt
        if now < self.onset or (self.offset is not None and now >= self.offset):
            return Stimulus()
        factor, current = (
            v[min(t, len(v) - 1)] if isinstance(v, Tensor) and v.ndim else v for v in (self.factor, self.current)
        )
        if self.neurons is None and self.course is None:
            return Stimulus(factor, current)
        acts = 1.0 if self.neurons is None else self.neurons
        acts = acts if self.course is None else acts * self.course[t]
        return Stimulus(1 + acts * (factor - 1), acts * current)


Stimuli = Mapping[str, Stimulus]


def leaky(x: Tensor, decay: float, before: Tensor) -> Tensor:
    """`y[t] = decay y[t-1] + (1 - decay) x[t]` of all steps at once, as one product with a triangular matrix.

    Args:
        x: `[T, ...]`.
        decay: in [0, 1); 0 returns `x`.
        before: `y` before the first step, `[...]`.
    """
    if decay == 0:
        return x
    if x.ndim == 5 and x.stride(2) == 1 and x.shape[2] > 1:  # as it lies in memory
        return leaky(x.movedim(2, -1), decay, before.movedim(1, -1)).movedim(-1, 2)
    steps = torch.arange(len(x), device=x.device)
    lag = steps[:, None] - steps
    kernel = torch.where(lag >= 0, (1 - decay) * decay ** lag.clamp_min(0).to(x.dtype), 0)
    smoothed = (kernel @ x.flatten(1)).unflatten(1, x.shape[1:])
    return smoothed + torch.outer(decay ** (steps + 1).to(x.dtype), before.flatten()).unflatten(1, before.shape)


def start_state(currents: Tensor, weights: CorticalWeights, constants: CorticalConstants) -> CorticalState:
    """Everything at 0, for `currents` `[T, B, n_E + n_PV, ...]` from the layer below."""
    batch, inside = currents.shape[1], currents.shape[3:]

    def none(*shape: int) -> Tensor:
        return currents.new_zeros(batch, *shape)

    def interneurons(onto_e: Tensor | None) -> Interneurons:
        shape = (0,) if onto_e is None else (onto_e.shape[1], *inside)
        return Interneurons(none(*shape), none(*shape))

    n_e = len(weights.weight_ee)
    return CorticalState(
        none(n_e, *inside),
        none(0 if weights.recurrent_ee is None else constants.delay, n_e, *inside),
        none(*currents.shape[2:]),
        interneurons(weights.weight_ep),
        interneurons(weights.weight_es),
        interneurons(weights.weight_sv),
    )


def onto(source: Tensor, weight: Tensor | None, connection: Connection | None = None) -> Tensor:
    """What `weight` makes of a step's `source` `[B, n, ...]`; 0 where there is no such pathway."""
    if weight is None:
        return source.new_zeros(())
    if connection is not None:
        return connection.feedforward(source[None], weight)[0]
    return torch.einsum("bn...,mn->bm...", source, weight) if source.ndim > 2 else source @ weight.T


def _respond(
    population: str, current: Tensor, before: Interneurons, constants: CorticalConstants, stimuli: Stimuli
) -> tuple[Tensor, Interneurons]:
    """Output of a kind of interneuron for its input current at one step, and its state."""
    beta, stimulus = constants.decay[population], stimuli.get(population, Stimulus())
    current = (current + stimulus.current).expand_as(before.u)
    if constants.thresholds is not None:
        quantum = constants.quanta[population]
        scale = (1 - beta) / (constants.thresholds[population] * quantum)
        lif = LIFConstants(1 / (1 - beta), surrogate=constants.lif.surrogate, alpha=constants.lif.alpha)
        spikes, u = lif_step(scale * current, before.u, lif)
        s = quantum * spikes
    else:
        u = beta * before.u + (1 - beta) * current
        s = u.clamp_min(0)  # its derivative at 0 is 1, as that of the paper's I neuron
    s = stimulus.factor * s
    return s, Interneurons(u, constants.inhibitory * before.trace + (1 - constants.inhibitory) * s)


class CorticalStep(NamedTuple):
    """What happens in one step: each `[B, n, ...]`, None without such neurons.

    i_sub = i_sub_pv + i_sub_sst,  i_div = sigma + i_div_pv,  i_e = g_E (i_ee + i_rec - i_sub) / i_div + b
    """

    s_e: Tensor
    i_div_pv: Tensor
    i_div: Tensor
    i_e: Tensor
    i_ee: Tensor
    i_rec: Tensor | None
    i_sub_pv: Tensor
    i_sub_sst: Tensor | None
    i_sub: Tensor
    top_down: Tensor | None
    s_pv: Tensor
    s_sst: Tensor | None
    s_vip: Tensor | None


class Drive(NamedTuple):
    """What drives the E cells in one step, each `[B, n_E, ...]`, and the VIP cells from above; and what interneurons do
    in it: their output, None without such neurons, and their state."""

    i_ee: Tensor
    i_rec: Tensor | None
    i_sub_pv: Tensor
    i_sub_sst: Tensor | None
    i_sub: Tensor
    top_down: Tensor | None
    s_pv: Tensor
    s_sst: Tensor | None
    s_vip: Tensor | None
    pv: Interneurons
    sst: Interneurons
    vip: Interneurons

    @property
    def balanced(self) -> Tensor:
        """`N[t]`."""
        return (self.i_ee if self.i_rec is None else self.i_ee + self.i_rec) - self.i_sub


def drive(
    feedforward: Tensor,
    state: CorticalState,
    weights: CorticalWeights,
    constants: CorticalConstants,
    top_down: Tensor | None = None,
    stimuli: Stimuli | None = None,
) -> Drive:
    """The interneurons of one step, and the currents of its E cells but for the division; arguments as in
    `cortical_step`."""
    w, c, stimuli = weights, constants, stimuli or {}
    n_e = len(w.weight_ee)
    i_ee, i_pe = feedforward[:, :n_e], feedforward[:, n_e:]
    e = state.history[:, 0] if state.history.shape[1] else state.v  # the latter is not used

    i_pv = i_pe + onto(e, w.recurrent_pe, c.recurrent)
    i_pv = i_pv - onto(state.pv.trace, w.weight_pp) - onto(state.sst.trace, w.weight_ps)
    s_pv, pv = _respond("PV", i_pv, state.pv, c, stimuli)
    s_sst, sst, s_vip, vip = None, state.sst, None, state.vip
    if w.recurrent_se is not None:
        i_sst = onto(e, w.recurrent_se, c.surround) - onto(state.vip.trace, w.weight_sv)
        s_sst, sst = _respond("SST", i_sst, state.sst, c, stimuli)
    if w.recurrent_ve is not None:
        i_vip = onto(e, w.recurrent_ve, c.recurrent) - onto(state.sst.trace, w.weight_vs)
        top_down = (i_vip.new_zeros(()) if top_down is None else top_down).expand_as(state.vip.u)
        s_vip, vip = _respond("VIP", i_vip + top_down, state.vip, c, stimuli)

    i_rec = None if w.recurrent_ee is None else c.recurrent.feedforward(e[None], w.recurrent_ee)[0]
    i_sub_pv = onto(pv.trace, onto_e(w))
    i_sub_sst = None if w.weight_es is None else onto(state.sst.trace, w.weight_es)
    i_sub = i_sub_pv if i_sub_sst is None else i_sub_pv + i_sub_sst
    return Drive(i_ee, i_rec, i_sub_pv, i_sub_sst, i_sub, top_down, s_pv, s_sst, s_vip, pv, sst, vip)


def onto_e(weights: CorticalWeights) -> Tensor:
    """`W_EP`, whose gradient E-I Prop scales by `1/d`."""
    return scale_gradient(weights.weight_ep, 1 / fan_in(weights.weight_ee))


def after(
    state: CorticalState, feedforward: Tensor, drive: Drive, s_e: Tensor, v: Tensor, constants: CorticalConstants
) -> CorticalState:
    """The state after a step in which E cells gave `s_e` and were left at `v`."""
    history = state.history
    if history.shape[1]:
        passed_on = constants.excitatory * history[:, -1] + (1 - constants.excitatory) * s_e
        history = torch.cat([history[:, 1:], passed_on[:, None]], 1)
    return CorticalState(v, history, feedforward, drive.pv, drive.sst, drive.vip)


def cortical_step(
    feedforward: Tensor,
    state: CorticalState,
    weights: CorticalWeights,
    constants: CorticalConstants,
    top_down: Tensor | None = None,
    stimuli: Stimuli | None = None,
) -> tuple[CorticalStep, CorticalState]:
    """One time step of the equations above.

    Args:
        feedforward: `W_EE x[t]` and below it `W_PE x[t]`, `[B, n_E + n_PV, ...]`, as their synapses pass them on.
        state: after the step before.
        top_down: current onto the VIP neurons, which broadcasts to `[B, n_VIP, ...]`.
        stimuli: what is done to a population at this step, by its name.
    """
    w = weights
    driven = drive(feedforward, state, w, constants, top_down, stimuli)
    trace = driven.pv.trace
    i_div_pv = onto(per_neuron(w.gain_p, trace[None]) * trace, onto_e(w))
    i_div = i_div_pv if w.sigma is None else i_div_pv + per_neuron(w.sigma, i_div_pv[None])
    stimulus = (stimuli or {}).get("E", Stimulus())
    i_e = integrate(driven.balanced[None], i_div[None], w.gain_e, w.bias)[0] + stimulus.current
    s_e, v = lif_step(i_e, state.v, constants.lif)
    s_e = stimulus.factor * s_e
    now = CorticalStep(s_e, i_div_pv, i_div, i_e, *driven[:9])
    return now, after(state, feedforward, driven, s_e, v, constants)


def cortical_circuit(
    currents: Tensor,
    weights: CorticalWeights,
    constants: CorticalConstants,
    state: CorticalState | None = None,
    time_steps: int | None = None,
    top_down: Tensor | None = None,
    stimuli: Stimuli | None = None,
    see: Callable[[CorticalStep], None] | None = None,
) -> tuple[Tensor, CorticalState]:
    """The readable reference: the scan of `cortical_step` over T.

    Args:
        currents: `W_EE x` and below it `W_PE x`, `[T, B, n_E + n_PV, ...]`; or `[1, B, ...]` with `time_steps=T`.
        weights, constants: of the circuit.
        state: before the first step; None is 0.
        time_steps: T, where `currents` holds a single step.
        top_down: current onto the VIP neurons, which broadcasts to `[T, B, n_VIP, ...]`.
        stimuli: what is done to populations, by name.
        see: is given each step.
    Returns: spikes `[T, B, n_E, ...]` and the state after the last step.
    """
    state = start_state(currents, weights, constants) if state is None else state
    steps = len(currents) if time_steps is None else time_steps
    currents = leaky(currents.expand(steps, *currents.shape[1:]), constants.excitatory, state.feedforward)
    spikes = []
    for t, feedforward in enumerate(currents):
        given = None if top_down is None else top_down[min(t, len(top_down) - 1)]
        acting = {name: stimulus.at(t, constants.dt) for name, stimulus in (stimuli or {}).items()}
        now, state = cortical_step(feedforward, state, weights, constants, given, acting)
        spikes.append(now.s_e)
        if see is not None:
            see(now)
    return torch.stack(spikes), state
