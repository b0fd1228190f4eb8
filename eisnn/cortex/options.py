"""What a cortical circuit consists of, with its time constants in milliseconds."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, inf
from numbers import Real
from typing import Any

from eisnn.functional import LIFConstants
from eisnn.functional.checks import is_int
from eisnn.nn import LIF

SHARES = ("recurrence", "sst", "vip", "sst_pv", "semisaturation")
SHORTEST = 0.1  # of a step: below it a time constant is none, and should be said to be 0


@dataclass(frozen=True)
class CorticalOptions:
    """Populations, pathways and time constants of a cortical circuit; `LIMIT` is the paper's circuit.

    Shares are of mean currents at the operating point that E-I Init finds; training is free to leave them.

    Args:
        dt: milliseconds in a time step, > 0. The membrane of the E cells is that of the layer's `neuron`, in steps;
            `lif` makes one of milliseconds.
        tau_pv, tau_sst, tau_vip: time constants of interneurons, ms; 0 has no memory.
        tau_ampa, tau_gaba: of the synapses of E cells and of interneurons, ms; 0 has no memory.
        delay: from a spike of an E cell to what it evokes in this layer, ms, a multiple of `dt`; None is one step.
        recurrence: rho, which share of the excitation of E cells comes from E cells of this layer, in [0, 1). What they
            excite is inhibited as much: by PV cells, and by SST cells with `sst`.
        feedback_inhibition: which share of the inhibition of E cells E cells of this layer drive, in [0, 1); None is
            `recurrence`. A larger share makes a rhythm of E and PV cells. Needs `recurrence`.
        sst: which share of that inhibition comes from SST cells, in [0, 1); 0 has none. Needs `recurrence`.
        vip: which share of the excitation of SST cells VIP cells cancel, in [0, 1); 0 has none. Needs `sst`.
        sst_pv: which share of the excitation of PV cells SST cells cancel, in [0, 1). Needs `sst`.
        pv_pv: how many times its own output a PV cell is inhibited by PV cells, >= 0.
        spiking: interneurons are LIF neurons; otherwise they are graded.
        interneuron_rate: of spiking interneurons at the operating point, Hz; at most half of the steps.
        semisaturation: share of the divisive current that is a trainable constant, in [0, 1).
        dale: Dale's law. False is the circuit's unconstrained twin: all synapses may have any sign but those of PV
            cells onto E cells, `W_EP`, as what divides must be positive. It starts as the circuit does.
        window: of steps, >= 0. While a layer learns, it keeps its state at the end of each window only, and runs the
            window again in the backward pass: less memory, more time, the same gradients. 0 keeps every step.
        recurrent_size, surround_size: kernels of `R_EE`, `R_PE`, `R_VE`, and of `R_SE`, of convolutional layers; odd.
    Raises: ValueError or TypeError that names the option, what was given and what would be right.
    """

    dt: float = 10.0
    tau_pv: float = 5.0
    tau_sst: float = 20.0
    tau_vip: float = 15.0
    tau_ampa: float = 0.0
    tau_gaba: float = 0.0
    delay: float | None = None
    recurrence: float = 0.1
    feedback_inhibition: float | None = None
    sst: float = 0.0
    vip: float = 0.0
    sst_pv: float = 0.0
    pv_pv: float = 0.0
    spiking: bool = False
    interneuron_rate: float = 40.0
    semisaturation: float = 0.3
    dale: bool = True
    window: int = 0
    recurrent_size: int = 3
    surround_size: int = 7

    def __post_init__(self) -> None:
        for name in ("dt", "interneuron_rate"):
            self._require(name, 0 < self._number(name) < inf, "a finite number > 0")
        if self.delay is not None:
            steps = self._number("delay") / self.dt
            whole = 0.5 < steps < inf and abs(steps - round(steps)) < 1e-6
            self._require("delay", whole, f"None (one step) or a multiple of dt = {self.dt:g} ms")
        for name in ("tau_pv", "tau_sst", "tau_vip", "tau_ampa", "tau_gaba"):
            tau = self._number(name)
            self._require(
                name,
                tau == 0 or SHORTEST * self.dt <= tau < inf,
                f"0 (no memory) or at least dt / 10 = {SHORTEST * self.dt:g} ms, as a step of {self.dt:g} ms shows "
                "nothing faster",
            )
        for name in SHARES if self.feedback_inhibition is None else (*SHARES, "feedback_inhibition"):
            self._require(name, 0 <= self._number(name) < 1, "a share in [0, 1)")
        self._require("pv_pv", 0 <= self._number("pv_pv") < inf, "a finite number >= 0")
        for name in ("spiking", "dale"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"CorticalOptions: {name} must be True or False, got {getattr(self, name)!r}")
        self._require("window", is_int(self.window, 0), "an int >= 0")
        for name in ("recurrent_size", "surround_size"):
            size = getattr(self, name)
            self._require(name, is_int(size, 1) and size % 2 == 1, "an odd int >= 1")
        needs = {"feedback_inhibition": "recurrence", "sst": "recurrence", "vip": "sst", "sst_pv": "sst"}
        for name, needed in needs.items():
            if getattr(self, name) and not getattr(self, needed):
                raise ValueError(f"CorticalOptions: {name}={getattr(self, name)!r} needs {needed} > 0, which drives it")
        if self.spiking and self.interneuron_rate * self.dt > 500:
            raise ValueError(
                f"CorticalOptions: interneuron_rate must be at most half a spike a step, {500 / self.dt:g} Hz at dt "
                f"{self.dt:g} ms; got {self.interneuron_rate!r}"
            )

    def _number(self, name: str) -> float:
        value = getattr(self, name)
        self._require(name, isinstance(value, Real) and not isinstance(value, bool), "a number")
        return float(value)

    def _require(self, name: str, holds: bool, wanted: str) -> None:
        if not holds:
            raise ValueError(f"CorticalOptions: {name} must be {wanted}; got {getattr(self, name)!r}")

    def lif(self, tau_e: float = 20.0, **constants: Any) -> LIF:
        """E cells with a membrane time constant of `tau_e` ms, at least `dt`; `constants` are those of `LIF`."""
        if not tau_e >= self.dt:
            raise ValueError(f"tau_e must be at least dt = {self.dt:g} ms, got {tau_e!r}")
        return LIF(tau_e / self.dt, **constants)

    @property
    def inhibition(self) -> tuple[float, float]:
        """What drives the inhibition of E cells, the layer below and E cells of this layer, in units of what the layer
        below excites. The two sum to all that excites E cells."""
        share = self.recurrence if self.feedback_inhibition is None else self.feedback_inhibition
        return (1 - share) / (1 - self.recurrence), share / (1 - self.recurrence)

    @property
    def steps_delay(self) -> int:
        """D: the delay in steps."""
        return 1 if self.delay is None else round(self.delay / self.dt)

    def decay(self, tau: float) -> float:
        """What remains after a step of what decays with `tau` ms."""
        return exp(-self.dt / tau) if tau else 0.0

    @property
    def decays(self) -> Mapping[str, float]:
        """`beta` of each kind of interneuron."""
        return {"PV": self.decay(self.tau_pv), "SST": self.decay(self.tau_sst), "VIP": self.decay(self.tau_vip)}

    @property
    def thresholds(self) -> Mapping[str, float] | None:
        """Of spiking interneurons, in units of what a spike gives: at a constant current as large as its mean output, a
        cell fires at `interneuron_rate`."""
        if not self.spiking:
            return None
        p = self.interneuron_rate * self.dt / 1000
        return {kind: p * (1 - beta ** (1 / p)) for kind, beta in self.decays.items()}

    @property
    def feedback(self) -> bool:
        """Whether what happens at one step depends on what the layer did before it, otherwise than by smoothing."""
        return bool(self.recurrence or self.pv_pv or self.spiking)

    @property
    def linear(self) -> bool:
        """Whether PV cells pass on what they receive, which then is never below 0."""
        return self.dale and not self.feedback


LIMIT = CorticalOptions(tau_pv=0.0, recurrence=0.0, semisaturation=0.0)


def require_options(options: Any, owner: str) -> CorticalOptions:
    """`options` as they are; TypeError unless they are a `CorticalOptions`."""
    if not isinstance(options, CorticalOptions):
        raise TypeError(f"{owner}: options must be eisnn.cortex.CorticalOptions(...), got {options!r}")
    return options


def lif_constants(neuron: Any, owner: str) -> LIFConstants:
    """Of the E cells; TypeError unless `neuron` is an `LIF` itself, as recurrence needs its steps one by one."""
    if type(neuron) is not LIF:
        raise TypeError(
            f"{owner}: neuron must be a module, an eisnn.LIF whose steps the circuit takes one by one, e.g. "
            f"options.lif(tau_e=20.0); got {neuron!r}"
        )
    return neuron.constants
