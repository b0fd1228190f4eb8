"""The E-I circuit as layers: parameters and shapes; the mathematics is in `eisnn.functional`, fast in `eisnn.ops`."""

from math import inf
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from eisnn import functional as EF
from eisnn import ops
from eisnn.functional.checks import check_int
from eisnn.nn.dale import loading_violation
from eisnn.nn.inference import FoldedLayer, FoldedReadout
from eisnn.nn.layer import Pathway, Size, SpikingLayer, check_sizes, conv_geometry, copy_neuron
from eisnn.nn.neurons import LIF, check_stateless, fusable, run_neuron
from eisnn.nn.options import PAPER, CircuitOptions, check_options
from eisnn.nn.weights import ConservedWeights, PaperWeights, Raw

CURRENTS = ("I_EE", "I_sub", "I_div", "I_E")
MEASURED = ("unit_variance", "start_rate", "even_gradients")  # options whose values E-I Init measures


class DataDrivenLayer(SpikingLayer):
    """Base of the layers that E-I Init fills: whether that has happened is saved with the weights, and weights against
    Dale's law are not loaded."""

    data_driven = True

    def __init__(self) -> None:
        super().__init__()
        # A plain attribute, saved by hand below: reading a buffer in forward would synchronise with the device.
        self.initialized = False

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "initialized"] = torch.tensor(self.initialized)

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, metadata: Any, strict: bool, missing: Any, unexpected: Any, errors: Any
    ) -> None:
        if (problem := self._problem(state_dict, prefix)) is not None:
            errors.append(problem)
            # What is inside the layer is loaded after it, and keeps its own as well.
            state_dict.update({prefix + key: kept for key, kept in self.state_dict().items()})
            return
        errors_before = len(errors)
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, unexpected, errors)
        present = all(prefix + name in state_dict for name in self._circuit_state())
        loaded = present and len(errors) == errors_before
        key = prefix + "initialized"
        if key in unexpected:
            unexpected.remove(key)
        if key in state_dict:
            # Part of the weights does not make a circuit that was never filled an initialised one.
            self.initialized = bool(state_dict[key]) and (loaded or self.initialized)
        elif strict:
            missing.append(key)

    def _problem(self, state_dict: Any, prefix: str) -> str | None:
        """Why what `state_dict` holds for this layer must not be loaded; None if it may."""
        return loading_violation(self, state_dict, prefix)

    def _circuit_state(self) -> list[str]:
        """Names of what E-I Init fills."""
        return [name for name, _ in self.named_parameters(recurse=False)]


class EICircuit(DataDrivenLayer):
    """Base of the E-I layers: the weights of one circuit, Dale's law, and whether it has been initialised.

    Args:
        n_e: number of E neurons (channels).
        inputs: shape of one neuron's receptive field, `(in_features,)` or `(C_in, kh, kw)`.
        connection: how the population projects, `Dense` or `Conv`.
        ei_ratio: E neurons for each I neuron; `n_I = max(1, n_E // ei_ratio)`.
    """

    non_negative = True
    dale_parameters: ClassVar[tuple[str, ...]] = ("weight_ee", "weight_ie", "weight_ei")
    lateral_parameters: ClassVar[tuple[str, ...]] = ("weight_ei",)

    def __init__(
        self,
        n_e: int,
        inputs: tuple[int, ...],
        connection: ops.Connection,
        ei_ratio: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        check_sizes(name, "channels" if connection.spatial else "features", inputs[0], n_e)
        check_int(name, "ei_ratio", ei_ratio)
        self.n_e, self.n_i, self.connection, self.ei_ratio = n_e, max(1, n_e // ei_ratio), connection, ei_ratio
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.weight_ee = nn.Parameter(torch.zeros(n_e, *inputs, **factory))
        self.weight_ie = nn.Parameter(torch.zeros(self.n_i, *inputs, **factory))
        self.weight_ei = nn.Parameter(torch.zeros(n_e, self.n_i, **factory))

    @property
    def fan_in(self) -> int:
        """`d`: inputs of one neuron."""
        return EF.fan_in(self.weight_ee)

    @property
    def receives(self) -> tuple[int, int]:
        return 3 + self.connection.spatial, self.weight_ee.shape[1]

    def populations(self) -> dict[str, int]:
        return {"E": self.n_e, "I": self.n_i}

    def start_(self, scale: float, inhibitory_gain: float, mean: float) -> None:
        """Start what else the circuit has, once E-I Init has filled the weights; arguments as `PaperWeights.start_`."""
        raise AttributeError(f"{type(self).__name__} defines no start_()")

    def extra_repr(self) -> str:
        inputs = ", ".join(str(n) for n in self.weight_ee.shape[1:])
        state = "" if self.initialized else ", not initialised"
        return f"inputs=({inputs}), n_E={self.n_e}, n_I={self.n_i}{state}"


class EILayer(EICircuit):
    """A hidden circuit: both kinds of inhibition, gains and a neuron, eqs. (9)-(15); `division` is how it divides."""

    dale_parameters: ClassVar[tuple[str, ...]] = (*EICircuit.dale_parameters, "gain_i", "gain_e")

    def __init__(
        self,
        n_e: int,
        inputs: tuple[int, ...],
        connection: ops.Connection,
        ei_ratio: int,
        neuron: nn.Module | None,
        options: CircuitOptions = PAPER,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(n_e, inputs, connection, ei_ratio, device, dtype)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.options = check_options(options)
        self.division = options.division
        self.gain_i = nn.Parameter(torch.zeros(self.n_i, **factory))
        self.gain_e = nn.Parameter(torch.ones(n_e, **factory))
        self.bias = nn.Parameter(torch.zeros(n_e, **factory))
        self.weights = ConservedWeights(n_e, inputs, options, **factory) if options.conserved else PaperWeights()
        self.neuron = copy_neuron(neuron)
        self.measured = tuple(name for name in MEASURED if getattr(options, name))
        if options.even_gradients:
            _ = self.surrogate  # ValueError if there is none
        if options.start_rate and neuron is None:
            raise ValueError("start_rate is of spikes, and with neuron=None the layer fires none")

    @property
    def _raw(self) -> Raw:
        return Raw(self.weight_ee, self.weight_ie, self.weight_ei, self.gain_i)

    def _circuit_state(self) -> list[str]:
        return super()._circuit_state() + [f"weights.{name}" for name in self.weights.state_dict()]

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.options.even_gradients:
            destination[prefix + "surrogate_width"] = torch.tensor(self.surrogate.constants.width, dtype=torch.float64)

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, metadata: Any, strict: bool, missing: Any, unexpected: Any, errors: Any
    ) -> None:
        key, before = prefix + "surrogate_width", len(errors)
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, unexpected, errors)
        if self.options.even_gradients:
            if key in unexpected:
                unexpected.remove(key)
            if key not in state_dict:
                missing += [key] if strict else []
            elif len(errors) == before:
                self.surrogate.set_surrogate_width_(float(state_dict[key]))

    def _problem(self, state_dict: Any, prefix: str) -> str | None:
        width = state_dict.get(prefix + "surrogate_width") if self.options.even_gradients else None
        if width is not None and not (width.numel() == 1 and 0 < float(width) < inf):
            return (
                f"{prefix}surrogate_width must be one finite number > 0, got {width.tolist()}; this layer was left as "
                "it was"
            )
        return super()._problem(state_dict, prefix)

    @torch.no_grad()
    def start_(self, scale: float, inhibitory_gain: float, mean: float) -> None:
        self.gain_e.fill_(1)
        self.bias.fill_(0)
        self.weights.start_(self._raw, scale, inhibitory_gain, mean)

    @torch.no_grad()
    def scale_division_(self, factor: float) -> None:
        """Multiply all that divides, so that `I_E` shrinks by `factor`."""
        self.weights.scale_division_(self._raw, factor)

    @property
    def start_mean(self) -> float | None:
        return self.weights.start_mean

    def synapses(self) -> EF.Synapses | None:
        """The weights with which the circuit acts: to look at and to change, not to run."""
        return self.weights.synapses(self._raw)

    def stacked(self) -> tuple[Tensor, Tensor]:
        """What one convolution computes all currents with, `[n_E + m, ...]`, and `M` `[n_E, m]`; no gradient."""
        sources, weight = self.weights.sources(self._raw)
        return self.weights.stacked.make(*sources)[0], weight.detach()

    def currents(self, x: Tensor) -> ops.StackedCurrents:
        """All currents of `x` `[T, B, ...]`, and `M`; see `eisnn.ops.population`."""
        sources, weight = self.weights.sources(self._raw)
        return ops.StackedCurrents(ops.project(x, self.weights.stacked, sources, self.connection), weight)

    def integrated(self, x: Tensor) -> Tensor:
        """`I_E` `[T, B, n_E, ...]` of `x` `[T, B, ...]`, eq. (14)."""
        return EF.integrate(*ops.split_currents(*self.currents(x)), self.gain_e, self.bias, self.division)

    def respond(self, x: Tensor, time_steps: int | None, state: Any, return_state: bool) -> tuple[Tensor, Any]:
        if fusable(self.neuron) and self.division == EF.EXACT:
            constants, tonic = self.neuron.constants, self.weights.stacked.tonic
            return ops.population(*self.currents(x), self.gain_e, self.bias, constants, state, time_steps, tonic=tonic)
        return run_neuron(self.neuron, self.integrated(x), time_steps, state, return_state)

    @property
    def watched(self) -> nn.Module:
        return self

    def quantities(self) -> tuple[str, ...]:
        """The currents of eqs. (9)-(14); and `undivided`, 1 where nothing divides a current."""
        return (*CURRENTS, "undivided")

    @torch.no_grad()
    def measure(self, x: Tensor, out: Tensor) -> dict[str, Tensor]:
        """As written in eqs. (9)-(14), in the precision of the weights, whatever that of `x` and of autocast: two large
        currents are subtracted."""
        return circuit_currents(x, self.weights.synapses(self._raw), self.connection, self.gain_e, self.bias)

    def folded(self) -> SpikingLayer:
        kernel, weight = self.stacked()
        return FoldedLayer(
            self.connection,
            kernel,
            weight,
            self.gain_e,
            self.bias,
            self.neuron,
            self.weights.stacked.tonic,
            self.division,
        )

    def pathways(self) -> list[Pathway]:
        s = self.weights.synapses(self._raw)
        return [
            Pathway("E->E", s.weight_ee, self.connection),
            Pathway("E->I", s.weight_ie, self.connection),
            Pathway("I->E, subtractive", s.subtractive, None),
            Pathway("I->E, divisive", s.divisive[:1] if self.options.pooled else s.divisive, None),
        ]


@torch.no_grad()
def circuit_currents(
    x: Tensor,
    synapses: EF.Synapses,
    connection: ops.Connection,
    gain_e: Tensor,
    bias: Tensor,
    injected: tuple[Tensor, Tensor] | None = None,
) -> dict[str, Tensor]:
    """All currents of a circuit for its input `x` `[T or 1, B, ...]`, each `[T or 1, B, n_E, ...]`; `injected` `[n_E]`
    is added to `I_sub` and `I_div`."""
    with torch.autocast(x.device.type, enabled=False):
        i_ee, i_sub, i_div = EF.currents_of(x.to(synapses.weight_ee.dtype), synapses, connection)
        if injected is not None:
            i_sub, i_div = (i + EF.per_neuron(more, i) for i, more in zip((i_sub, i_div), injected, strict=True))
        balanced = i_ee - i_sub
        i_e = EF.integrate(balanced, i_div, gain_e, bias)
    return dict(zip(CURRENTS, (i_ee, i_sub, i_div, i_e), strict=True)) | {"undivided": EF.undivided(balanced, i_div)}


class EIConv2d(EILayer):
    """E-I circuit whose feedforward projections are convolutions; `[T, B, C_in, H, W]` -> `[T, B, C_out, H', W']`.

    Args:
        in_channels, out_channels: of the E population below, and `n_E`.
        kernel_size, stride, padding, dilation: as in `torch.nn.Conv2d`; an int or (vertical, horizontal).
        ei_ratio: E neurons for each I neuron; `n_I = max(1, n_E // ei_ratio)`.
        neuron: copied into the layer; None returns the current `I_E`. Any other module than `LIF` is called with the
            current `[T, B, n_E, ...]` of all steps and returns its spikes in the same shape. It holds no state between
            calls, or is reset by the user (the forward pass of E-I Init runs it too). Only where a state is passed or
            asked for is it called with `state=, return_state=True`, and returns (spikes, state).
        options: departures from the paper's circuit.
    Raises: ValueError or TypeError that names the argument.
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
        neuron: nn.Module | None = LIF(),  # noqa: B008 - copied, never shared
        options: CircuitOptions = PAPER,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        kernel, *geometry = conv_geometry(type(self).__name__, kernel_size, stride, padding, dilation)
        super().__init__(
            out_channels, (in_channels, *kernel), ops.Conv(*geometry), ei_ratio, neuron, options, device, dtype
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.connection}"


class EILinear(EILayer):
    """E-I circuit with all-to-all feedforward projections; `[T, B, in_features]` -> `[T, B, out_features]`.

    `ei_ratio`, `neuron` and `options` as in `EIConv2d`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        ei_ratio: int = 4,
        neuron: nn.Module | None = LIF(),  # noqa: B008 - copied, never shared
        options: CircuitOptions = PAPER,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(out_features, (in_features,), ops.Dense(), ei_ratio, neuron, options, device, dtype)


class EIReadout(EICircuit):
    """Last layer: `W_EE x - W_EI W_IE x`, subtractive inhibition only; `[T, B, in_features]` -> logits
    `[T, B, out_features]` at each step. No division, no gains, no bias, no neuron and no state.

    With `options.conserved` its rows are balanced at the start and the gradients of `W_EE` and `W_IE` centred; the sums
    themselves are free, as the logits have no neuron that would fix their scale.
    """

    hidden = False
    neuron = None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        ei_ratio: int = 4,
        options: CircuitOptions = PAPER,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(out_features, (in_features,), ops.Dense(), ei_ratio, device, dtype)
        self.options = check_options(options)

    @torch.no_grad()
    def start_(self, scale: float, inhibitory_gain: float, mean: float) -> None:
        """With `options.conserved` scale the rows of `W_EE` so that each neuron's excitation and inhibition have the
        same sum (E-I Init)."""
        if self.options.conserved:
            inhibition = (self.weight_ei @ self.weight_ie).sum(1)
            self.weight_ee.copy_(EF.conserve(self.weight_ee, inhibition[:, None]))

    def respond(self, x: Tensor, time_steps: int | None, state: Any, return_state: bool) -> tuple[Tensor, Any]:
        """Logits `[T, B, out_features]` (a static `[1, B, ...]` gives `[1, B, ...]`)."""
        check_stateless(state, type(self).__name__)
        ee: Tensor = self.weight_ee
        ie: Tensor = self.weight_ie
        if self.options.conserved:
            ee, ie = EF.center_gradient(ee), EF.center_gradient(ie)
        return ops.ei_readout(x, ee, ie, self.weight_ei, self.connection), None

    def folded(self) -> SpikingLayer:
        return FoldedReadout(self.connection, ops.fold(self.weight_ee, self.weight_ie, self.weight_ei))

    def pathways(self) -> list[Pathway]:
        return [
            Pathway("E->E", self.weight_ee, self.connection),
            Pathway("E->I", self.weight_ie, self.connection),
            Pathway("I->E, subtractive", self.weight_ei, None),
        ]
