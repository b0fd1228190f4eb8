"""The E-I circuit as layers: parameters and shapes; the mathematics is in `eisnn.functional`."""

from math import inf
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from eisnn import functional as EF
from eisnn.functional.checks import check_int
from eisnn.nn.dale import loading_violation
from eisnn.nn.layer import (
    Size,
    check_sequence,
    check_sizes,
    check_stateless,
    conv_geometry,
    copy_neuron,
    layer_output,
    run_neuron,
)
from eisnn.nn.lif import LIF
from eisnn.nn.options import PAPER, CircuitOptions, check_options
from eisnn.nn.parametrization import ConservedWeights, PaperWeights, Raw
from eisnn.nn.plif import PLIF


class EICircuit(nn.Module):
    """Base of the E-I layers: the weights of one circuit, Dale's law, and whether it has been initialised.

    Args:
        n_e: number of E neurons (channels).
        inputs: shape of one neuron's receptive field, `(in_features,)` or `(C_in, kh, kw)`.
        connection: how the population projects, `Dense` or `Conv`.
        ei_ratio: E neurons for each I neuron; `n_I = max(1, n_E // ei_ratio)`.
    """

    dale_parameters: ClassVar[tuple[str, ...]] = ("weight_ee", "weight_ie", "weight_ei")

    def __init__(
        self,
        n_e: int,
        inputs: tuple[int, ...],
        connection: EF.Connection,
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
        # A plain attribute, saved by hand below: reading a buffer in forward would synchronise with the device.
        self.initialized = False

    @property
    def fan_in(self) -> int:
        """`d`: inputs of one neuron."""
        return EF.fan_in(self.weight_ee)

    def _check_input(self, x: Tensor, time_steps: int | None) -> None:
        name = type(self).__name__
        check_sequence(x, 3 + self.connection.spatial, self.weight_ee.shape[1], time_steps, name)
        if not self.initialized:
            raise RuntimeError(
                f"this {name} was never initialised: call eisnn.ei_init_(model, first_batch) once, or load a checkpoint"
            )

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

    def extra_repr(self) -> str:
        inputs = ", ".join(str(n) for n in self.weight_ee.shape[1:])
        state = "" if self.initialized else ", not initialised"
        return f"inputs=({inputs}), n_E={self.n_e}, n_I={self.n_i}{state}"


def uninitialized(model: nn.Module) -> list[str]:
    """Names of the circuits in `model` that were never initialised; a circuit by itself goes by its class."""
    circuits = {name: m for name, m in model.named_modules() if isinstance(m, EICircuit)}
    return [name or type(circuit).__name__ for name, circuit in circuits.items() if not circuit.initialized]


class EILayer(EICircuit):
    """A hidden circuit: both kinds of inhibition, gains and a neuron, eqs. (9)-(15)."""

    dale_parameters: ClassVar[tuple[str, ...]] = (*EICircuit.dale_parameters, "gain_i", "gain_e")

    def __init__(
        self,
        n_e: int,
        inputs: tuple[int, ...],
        connection: EF.Connection,
        ei_ratio: int,
        neuron: nn.Module | None,
        options: CircuitOptions = PAPER,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(n_e, inputs, connection, ei_ratio, device, dtype)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.options = check_options(options)
        self.gain_i = nn.Parameter(torch.zeros(self.n_i, **factory))
        self.gain_e = nn.Parameter(torch.ones(n_e, **factory))
        self.bias = nn.Parameter(torch.zeros(n_e, **factory))
        self.weights = ConservedWeights(n_e, inputs, options, **factory) if options.conserved else PaperWeights()
        self.neuron = copy_neuron(neuron)
        if options.even_gradients:
            _ = self.surrogate  # ValueError if there is none

    @property
    def _raw(self) -> Raw:
        return Raw(self.weight_ee, self.weight_ie, self.weight_ei, self.gain_i)

    def _circuit_state(self) -> list[str]:
        return super()._circuit_state() + [f"weights.{name}" for name in self.weights.state_dict()]

    @property
    def surrogate(self) -> LIF | PLIF:
        """The neuron whose surrogate has a width, which `options.even_gradients` sets, saves and loads."""
        neuron = self.neuron
        if not isinstance(neuron, LIF | PLIF) or neuron.constants.surrogate == "leaky_relu":
            raise ValueError(
                f"even_gradients sets the width of the surrogate of LIF neurons; got neuron {neuron}, which has none: "
                "give eisnn.LIF() with another surrogate than leaky_relu, or even_gradients=False"
            )
        return neuron

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
        """Start gains and bias, once the weights are filled (E-I Init); arguments as `PaperWeights.start_`."""
        self.gain_e.fill_(1)
        self.bias.fill_(0)
        self.weights.start_(self._raw, scale, inhibitory_gain, mean)

    @torch.no_grad()
    def scale_division_(self, factor: float) -> None:
        """Multiply all that divides, so that `I_E` shrinks by `factor`."""
        self.weights.scale_division_(self._raw, factor)

    def synapses(self) -> EF.Synapses:
        """The weights with which the circuit acts: to look at and to change, not to run."""
        return self.weights.synapses(self._raw)

    def stacked(self) -> tuple[Tensor, Tensor]:
        """What one convolution computes all currents with, `[n_E + m, ...]`, and `M` `[n_E, m]`; no gradient."""
        sources, weight = self.weights.sources(self._raw)
        return self.weights.stacked.make(*sources)[0], weight.detach()

    def currents(self, x: Tensor) -> EF.StackedCurrents:
        """All currents of `x` `[T, B, ...]`, and `M`; see `eisnn.functional.population`."""
        sources, weight = self.weights.sources(self._raw)
        return EF.StackedCurrents(EF.project(x, self.weights.stacked, sources, self.connection), weight)

    def integrated(self, x: Tensor) -> Tensor:
        """`I_E` `[T, B, n_E, ...]` of `x` `[T, B, ...]`, eq. (14)."""
        return EF.integrate(*EF.split_currents(*self.currents(x)), self.gain_e, self.bias)

    def forward(self, x: Tensor, time_steps: int | None = None, state: Any = None, return_state: bool = False) -> Any:
        """Run the circuit over a sequence.

        Args:
            x: `[T, B, ...]` >= 0; or `[1, B, ...]` with `time_steps=T` for an input that is the same at each step.
                Its values are not checked here, which would cost time: NaN counts as no spike and negative values
                give spikes that mean nothing. Models and E-I Init check theirs; check others upstream.
            time_steps: T >= 1; an error if `x` has another number of steps (it catches `[B, T, ...]`).
            state: the neuron's state before the first step, as returned; None starts at 0. That of `LIF` is a tensor
                `[B, n_E, ...]`, the shape of one step of the output.
            return_state: also return the state after the last step.
        Returns: spikes `[T, B, n_E, ...]` in {0, 1} (the current `I_E` with `neuron=None`), or (spikes, state).
        Raises: RuntimeError before E-I Init; ValueError for a wrong shape of `x` or of the state; TypeError for a dtype
            that is not floating-point, and for a state asked of a neuron that keeps none.
        """
        self._check_input(x, time_steps)
        if isinstance(self.neuron, LIF):
            out, state = EF.population(
                *self.currents(x), self.gain_e, self.bias, self.neuron.constants, state, time_steps,
                tonic=self.weights.stacked.tonic,
            )  # fmt: skip
        else:
            out, state = run_neuron(self.neuron, self.integrated(x), time_steps, state, return_state)
        return layer_output(out, state, return_state)


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
            out_channels, (in_channels, *kernel), EF.Conv(*geometry), ei_ratio, neuron, options, device, dtype
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
        super().__init__(out_features, (in_features,), EF.Dense(), ei_ratio, neuron, options, device, dtype)


class EIReadout(EICircuit):
    """Last layer: `W_EE x - W_EI W_IE x`, subtractive inhibition only; `[T, B, in_features]` -> logits
    `[T, B, out_features]` at each step. No division, no gains, no bias, no neuron and no state.

    With `options.conserved` its rows are balanced at the start and the gradients of `W_EE` and `W_IE` centred; the sums
    themselves are free, as the logits have no neuron that would fix their scale.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        ei_ratio: int = 4,
        options: CircuitOptions = PAPER,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(out_features, (in_features,), EF.Dense(), ei_ratio, device, dtype)
        self.options = check_options(options)

    @torch.no_grad()
    def balance_(self) -> None:
        """Scale the rows of `W_EE` so that each neuron's excitation and inhibition have the same sum."""
        inhibition = (self.weight_ei @ self.weight_ie).sum(1)
        self.weight_ee.copy_(EF.conserve(self.weight_ee, inhibition[:, None]))

    def forward(self, x: Tensor, time_steps: int | None = None, state: None = None, return_state: bool = False) -> Any:
        """Logits `[T, B, out_features]` of `x` `[T, B, in_features]` (a static `[1, B, ...]` gives `[1, B, ...]`)."""
        self._check_input(x, time_steps)
        check_stateless(state, type(self).__name__)
        ee: Tensor = self.weight_ee
        ie: Tensor = self.weight_ie
        if self.options.conserved:
            ee, ie = EF.center_gradient(ee), EF.center_gradient(ie)
        logits = EF.ei_readout_folded(x, ee, ie, self.weight_ei, self.connection)
        return layer_output(logits, None, return_state)
