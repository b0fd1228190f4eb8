"""Cortical circuits as layers: parameters and shapes; the mathematics is in `eisnn.functional.cortex`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from eisnn import functional as EF
from eisnn import ops
from eisnn.cortex.options import CorticalOptions, lif_constants, require_options
from eisnn.functional import cortex as FC
from eisnn.functional.checks import check_int, check_steps
from eisnn.nn.circuit import DataDrivenLayer
from eisnn.nn.layer import Pathway, Size, check_sizes, conv_geometry, copy_neuron
from eisnn.nn.neurons import LIF, plain_lif

DEFAULT = CorticalOptions()
FORWARD = ("weight_ee", "weight_pe")  # from the layer below
DIVIDING = ("weight_ep", "gain_p", "gain_e", "sigma")  # of which the divisor, and the sign of `I_E`, are made


class CorticalLayer(DataDrivenLayer):
    """A circuit of E cells and interneurons with time constants; see `eisnn.functional.cortex` for its equations.

    Called as every layer, with `top_down` besides: current onto its VIP cells, which broadcasts to
    `[T, B, n_VIP, ...]`. Its state is an `eisnn.functional.cortex.CorticalState`.

    Args:
        n_e: number of E cells (channels); `n_PV = max(1, n_e // ei_ratio)`, half as many SST cells and as many VIP.
        inputs: shape of one cell's receptive field in the layer below, `(in_features,)` or `(C_in, kh, kw)`.
        forward: how the layer below projects, `Dense` or `Conv`.
        ei_ratio: E cells for each PV cell.
        neuron: an `LIF`, copied: the E cells, with a time constant in steps (see `CorticalOptions.lif`); None is one of
            20 ms.
        options: populations, pathways, time constants.
    Raises: ValueError or TypeError that names the argument.
    """

    non_negative = True
    dale_parameters: ClassVar[tuple[str, ...]] = tuple(name for name in FC.CorticalWeights._fields if name != "bias")
    lateral_parameters: ClassVar[tuple[str, ...]] = tuple(
        name for name in dale_parameters if name.startswith(("weight_", "recurrent_")) and name not in FORWARD
    )
    lower_bounds: ClassVar[Mapping[str, float]] = {"sigma": 0.03}
    neuron: LIF
    weight_ee: Tensor
    weight_pe: Tensor
    weight_ep: Tensor
    weight_ps: Tensor | None
    gain_p: Tensor
    gain_e: Tensor
    bias: Tensor
    sigma: Tensor | None
    sigma_unit: Tensor

    def __init__(
        self,
        n_e: int,
        inputs: tuple[int, ...],
        forward: ops.Connection,
        ei_ratio: int,
        neuron: nn.Module | None,
        options: CorticalOptions = DEFAULT,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        check_sizes(name, "channels" if forward.spatial else "features", inputs[0], n_e)
        check_int(name, "ei_ratio", ei_ratio)
        require_options(options, name)
        neuron = options.lif() if neuron is None else neuron
        lif_constants(neuron, name)
        self.options, self.neuron = options, copy_neuron(neuron)  # type: ignore[assignment]
        if not options.dale:
            self.dale_parameters = DIVIDING  # type: ignore[misc]
        n_pv = max(1, n_e // ei_ratio)
        n_sst = n_vip = max(1, n_pv // 2)
        self.sizes = {"E": n_e, "PV": n_pv, "SST": n_sst, "VIP": n_vip}
        self.measured = ("the scale of the division",)
        self.stimuli: dict[str, FC.Stimulus] = {}  # see eisnn.cortex.stimulate
        self._call: tuple[Any, Tensor | None] = (None, None)

        around, surround = ((size,) * forward.spatial for size in (options.recurrent_size, options.surround_size))
        recurrent, sst, vip = (bool(share) for share in (options.recurrence, options.sst, options.vip))
        shapes = {
            "weight_ee": (n_e, *inputs),
            "weight_pe": (n_pv, *inputs),
            "weight_ep": (n_e, n_pv),
            "gain_p": (n_pv,),
            "gain_e": (n_e,),
            "bias": (n_e,),
            "sigma": (n_e,) if options.semisaturation else None,
            "recurrent_ee": (n_e, n_e, *around) if recurrent else None,
            "recurrent_pe": (n_pv, n_e, *around) if recurrent else None,
            "recurrent_se": (n_sst, n_e, *surround) if sst else None,
            "recurrent_ve": (n_vip, n_e, *around) if vip else None,
            "weight_pp": (n_pv, n_pv) if options.pv_pv else None,
            "weight_ps": (n_pv, n_sst) if options.sst_pv else None,
            "weight_es": (n_e, n_sst) if sst else None,
            "weight_sv": (n_sst, n_vip) if vip else None,
            "weight_vs": (n_vip, n_sst) if vip else None,
        }
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        for weight, shape in shapes.items():
            made = None if shape is None else nn.Parameter(torch.zeros(shape, **factory))
            self.register_parameter(weight, made)
        for buffer in ("sigma_unit", *(f"quantum_{kind}" for kind in FC.INTERNEURONS)):  # set by E-I Init
            self.register_buffer(buffer, torch.ones((), **factory))
        self.connections = {"forward": forward, "recurrent": _around(around), "surround": _around(surround)}

    @property
    def fan_in(self) -> int:
        """`d`: inputs of one cell from the layer below."""
        return EF.fan_in(self.weight_ee)

    @property
    def receives(self) -> tuple[int, int]:
        return 3 + self.connections["forward"].spatial, self.weight_ee.shape[1]

    @property
    def feeds_back(self) -> bool:
        return self.options.feedback

    def populations(self) -> dict[str, int]:
        has = {"E": True, "PV": True, "SST": self.options.sst, "VIP": self.options.vip}
        return {name: n for name, n in self.sizes.items() if has[name]}

    def _circuit_state(self) -> list[str]:
        return super()._circuit_state() + list(self._buffers)

    def weights(self) -> FC.CorticalWeights:
        """The weights with which the circuit acts."""
        weights = FC.CorticalWeights(**{name: getattr(self, name) for name in FC.CorticalWeights._fields})
        return weights if self.sigma is None else weights._replace(sigma=self.sigma * self.sigma_unit)

    @property
    def constants(self) -> FC.CorticalConstants:
        """What the circuit does in time and space."""
        o = self.options
        return FC.CorticalConstants(
            lif=self.neuron.constants,
            decay=o.decays,
            excitatory=o.decay(o.tau_ampa),
            inhibitory=o.decay(o.tau_gaba),
            dt=o.dt,
            delay=o.steps_delay,
            thresholds=o.thresholds,
            quanta={kind: getattr(self, f"quantum_{kind}") for kind in FC.INTERNEURONS},
            **self.connections,
        )

    def forward(
        self,
        x: Tensor,
        time_steps: int | None = None,
        state: Any = None,
        return_state: bool = False,
        top_down: Tensor | None = None,
    ) -> Any:
        """As `SpikingLayer.forward`, with `top_down`. ValueError if it is given to a layer without VIP cells, or does
        not broadcast to `[T, B, n_VIP, ...]`."""
        self.check_input(x, time_steps)
        out, state = self.respond(x, time_steps, state, return_state, top_down)
        return (out, state) if return_state else out

    def respond(
        self, x: Tensor, time_steps: int | None, state: Any, return_state: bool, top_down: Tensor | None = None
    ) -> tuple[Tensor, FC.CorticalState]:
        if not plain_lif(self.neuron):
            raise TypeError(
                f"{type(self).__name__}: its circuit computes its E cells with the constants of an eisnn.LIF and never "
                f"calls it, so a subclass, another module or a hook on it would do nothing; got {self.neuron!r}. Hook "
                "the layer instead"
            )
        steps = check_steps(type(self).__name__, x.shape, time_steps)
        window, learns = self.options.window, torch.is_grad_enabled() and not (self.stimuli or self._forward_hooks)
        fits = top_down is None or (_is_array(top_down) and len(top_down) in (1, steps))  # else it is refused below
        if not (learns and fits and 0 < window < steps):
            return self._respond(x, steps, state, top_down)
        spikes = []
        for start in range(0, steps, window):
            now = slice(start, min(start + window, steps))
            part, given = (each if each is None or len(each) == 1 else each[now] for each in (x, top_down))
            out, state = checkpoint(
                self._respond, part, now.stop - start, state, given, use_reentrant=False, preserve_rng_state=False
            )
            spikes.append(out)
        return torch.cat(spikes), state

    def _respond(self, x: Tensor, steps: int, state: Any, top_down: Tensor | None) -> tuple[Tensor, FC.CorticalState]:
        weights, constants = self.weights(), self.constants
        currents = self.feedforward(x, weights)
        start = FC.start_state(currents, weights, constants)
        state = start if state is None else _as_state(state, start)
        self._check_given(steps, start, top_down)
        # What `measure` runs again; kept only while something watches this layer.
        self._call = (state, top_down) if self._forward_hooks else (None, None)
        if self.stimuli:
            return FC.cortical_circuit(currents, weights, constants, state, steps, top_down, self.stimuli)
        if not self.options.linear or ops.scans(currents, weights, constants):
            return ops.cortical_circuit(currents, weights, constants, state, steps, top_down)
        return _without_feedback(currents, weights, constants, state, steps)

    @torch.no_grad()
    def scale_division_(self, factor: float) -> None:
        """Multiply all that divides, so that `I_E` shrinks by `factor`."""
        self.gain_p.mul_(factor)
        self.sigma_unit.mul_(factor)

    def feedforward(self, x: Tensor, weights: FC.CorticalWeights) -> Tensor:
        """`W_EE x` and below it `W_PE x`, `[T or 1, B, n_E + n_PV, ...]`."""
        return self.connections["forward"].feedforward(x, torch.cat([weights.weight_ee, weights.weight_pe]))

    def _check_given(self, steps: int, start: FC.CorticalState, top_down: Any) -> None:
        """ValueError unless `top_down` and the stimuli broadcast to this many steps of a state like `start`."""
        name = type(self).__name__
        if top_down is not None and not self.options.vip:
            raise ValueError(f"{name}: top_down is current onto VIP cells, of which it has none; give options vip > 0")
        if isinstance(top_down, Tensor) and top_down.device.type == "cpu" and not bool(top_down.isfinite().all()):
            raise ValueError(f"{name}: top_down must be finite, got NaN or infinite values")
        cells = {"E": start.v, "PV": start.pv.u, "SST": start.sst.u, "VIP": start.vip.u}
        given = {"top_down": ("VIP", top_down)} if top_down is not None else {}
        for kind, stimulus in self.stimuli.items():
            said = f"of a stimulus of {kind}"
            parts = {"factor": stimulus.factor, "current": stimulus.current}
            given |= {f"the {part} {said}": (kind, value) for part, value in parts.items() if _is_array(value)}
            if stimulus.neurons is not None:
                given[f"the mask {said}"] = (kind, stimulus.neurons[None, None])
                positions, there = stimulus.neurons.shape[1:], start.v.shape[2:]
                if set(positions) - {1} and positions != there:  # otherwise one would stand for a row or column
                    raise ValueError(f"{name}: the mask {said} has positions {list(positions)}, the maps {list(there)}")
            if stimulus.course is not None and len(stimulus.course) != steps:
                raise ValueError(
                    f"{name}: the course {said} must have a value for each of the {steps} steps, got "
                    f"{len(stimulus.course)}"
                )
            if stimulus.onset >= steps * self.options.dt:
                raise ValueError(
                    f"{name}: the onset {said} must be within the sequence of {steps * self.options.dt:g} ms, got "
                    f"{stimulus.onset:g} ms"
                )
        for what, (kind, value) in given.items():
            shape = (steps, *cells[kind].shape)
            fits = isinstance(value, Tensor) and value.ndim == len(shape)
            if not fits or any(have not in (1, n) for have, n in zip(value.shape, shape, strict=True)):
                has = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise ValueError(f"{name}: {what} must be a tensor that broadcasts to {list(shape)}, got {has}")

    @property
    def watched(self) -> nn.Module:
        return self

    def potential(self, state: Any) -> Tensor:
        return state[0]

    def quantities(self) -> tuple[str, ...]:
        """Currents of the E cells by source: `I_EE` feedforward, `I_rec` from E of this layer, `I_sub` in two parts,
        `I_sub_PV` and `I_sub_SST`, and `I_div`, of which `I_div_PV` is what is not semisaturation. The output of each
        kind of interneuron, and the current `top_down` onto VIP cells."""
        has = self.populations()
        return (
            "I_EE",
            *(["I_rec"] if self.options.recurrence else []),
            "I_sub_PV",
            *(["I_sub_SST"] if "SST" in has else []),
            "I_sub",
            "I_div_PV",
            "I_div",
            "I_E",
            *(f"s_{kind}" for kind in has if kind != "E"),
            *(["top_down"] if "VIP" in has else []),
        )

    @torch.no_grad()
    def measure(self, x: Tensor, out: Tensor) -> dict[str, Tensor]:
        """Of the last call, run again step by step."""
        seen: list[FC.CorticalStep] = []
        weights = self.weights()
        with torch.autocast(x.device.type, enabled=False):
            currents = self.feedforward(x.to(weights.weight_ee.dtype), weights)
            state, top_down = self._call
            FC.cortical_circuit(currents, weights, self.constants, state, len(out), top_down, self.stimuli, seen.append)
        fields = {name: name.lower() for name in self.quantities()}
        return {name: torch.stack([getattr(step, field) for step in seen]) for name, field in fields.items()}

    def pathways(self) -> list[Pathway]:
        w, c = self.weights(), self.connections
        lateral = {"PV->E, subtractive": w.weight_ep, "PV->E, divisive": w.weight_ep, "PV->PV": w.weight_pp}
        lateral |= {"SST->PV": w.weight_ps, "SST->E": w.weight_es, "VIP->SST": w.weight_sv, "SST->VIP": w.weight_vs}
        # As lateral ones: sources and map are the layer's own. Kernels beyond the border of the map are counted too.
        around = {"E->E, recurrent": w.recurrent_ee, "E->PV, recurrent": w.recurrent_pe}
        around |= {"E->SST": w.recurrent_se, "E->VIP": w.recurrent_ve}
        return [
            Pathway("E->E", w.weight_ee, c["forward"]),
            Pathway("E->PV", w.weight_pe, c["forward"]),
            *(Pathway(name, weight, None) for name, weight in (around | lateral).items() if weight is not None),
        ]

    def extra_repr(self) -> str:
        sizes = ", ".join(f"n_{name}={n}" for name, n in self.populations().items())
        state = "" if self.initialized else ", not initialised"
        return f"inputs={tuple(self.weight_ee.shape[1:])}, {sizes}, {self.options}{state}"


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0


def _around(size: tuple[int, ...]) -> ops.Connection:
    """How E cells project within the layer: to the same position and those around it."""
    return replace(ops.Conv(), padding=tuple(n // 2 for n in size)) if size else ops.Dense()  # type: ignore[arg-type]


def _as_state(state: Any, like: FC.CorticalState) -> FC.CorticalState:
    """`state` as it was returned; ValueError unless its shapes are those of `like`."""

    def shapes(part: Any) -> Any:
        if isinstance(part, tuple | list):
            return [shapes(each) for each in part]
        return list(part.shape) if isinstance(part, Tensor) else type(part).__name__

    if shapes(state) != shapes(like):
        raise ValueError(
            f"the state of a cortical layer is a CorticalState (v, history, feedforward, pv, sst, vip), here of shape "
            f"{str(shapes(like))[1:-1]}; got {shapes(state)}; pass what was returned for a batch of this size"
        )
    return FC.CorticalState(*state[:3], *(FC.Interneurons(*part) for part in state[3:]))


def _without_feedback(
    currents: Tensor, w: FC.CorticalWeights, c: FC.CorticalConstants, state: FC.CorticalState, steps: int
) -> tuple[Tensor, FC.CorticalState]:
    """The same circuit where nothing feeds back and PV cells are graded: no loop over T, and the paper's population
    operation. Currents of PV cells are >= 0, so that they are linear."""
    n_e = len(w.weight_ee)
    if c.excitatory or c.inhibitory or c.decay["PV"]:
        currents = currents.expand(steps, *currents.shape[1:])
    currents = FC.leaky(currents, c.excitatory, state.feedforward)
    u = FC.leaky(currents[:, :, n_e:], c.decay["PV"], state.pv.u)
    trace = FC.leaky(u, c.inhibitory, state.pv.trace)
    weight_ep = FC.onto_e(w)
    divisive = weight_ep * w.gain_p
    stacked = [currents[:, :, :n_e] - EF.lateral(trace, weight_ep), trace]
    if w.sigma is not None:
        stacked.append(torch.ones_like(trace[:, :, :1]))
        divisive = torch.cat([divisive, w.sigma[:, None]], 1)
    spikes, v = ops.population(
        torch.cat(stacked, 2), divisive, w.gain_e, w.bias, c.lif, state.v, steps, tonic=w.sigma is not None
    )
    pv = FC.Interneurons(u[-1], trace[-1])
    return spikes, state._replace(v=v, feedforward=currents[-1], pv=pv)


class CorticalLinear(CorticalLayer):
    """Cortical circuit with all-to-all projections; `[T, B, in_features]` -> spikes `[T, B, out_features]`.

    Arguments as in `CorticalLayer`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        ei_ratio: int = 4,
        neuron: nn.Module | None = None,
        options: CorticalOptions = DEFAULT,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(out_features, (in_features,), ops.Dense(), ei_ratio, neuron, options, device, dtype)


class CorticalConv2d(CorticalLayer):
    """Cortical circuit whose projections are convolutions; `[T, B, C_in, H, W]` -> spikes `[T, B, C_out, H', W']`.

    Args:
        in_channels, out_channels: of the E population below, and `n_E`.
        kernel_size, stride, padding, dilation: of the projection from below, as in `torch.nn.Conv2d`.
    The others as in `CorticalLayer`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        dilation: Size = 1,
        ei_ratio: int = 4,
        neuron: nn.Module | None = None,
        options: CorticalOptions = DEFAULT,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        kernel, *geometry = conv_geometry(type(self).__name__, kernel_size, stride, padding, dilation)
        super().__init__(
            out_channels, (in_channels, *kernel), ops.Conv(*geometry), ei_ratio, neuron, options, device, dtype
        )
