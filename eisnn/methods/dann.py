"""DANN, the E-I network of Cornford et al. (2021): ReLU units with subtractive and divisive inhibition.

    h_I   = W_IE x
    z     = g_E (W_EE x - W_EI h_I) / (gamma + eps) + b_E,    gamma = W_EI (exp(alpha) * h_I)
    h_E   = ReLU(z)

x >= 0 is `[T, B, ...]`, d the fan-in; `W_EE, W_IE, W_EI, g_E >= 0`, `alpha` and `b_E` are free. The convolutional form
is that of the authors' release: the feedforward projections are convolutions of the same geometry, `W_EI` is 1x1, and
`alpha`, `g_E` and `b_E` belong to channels. There is no leak, no spike and no state: a static input stays one step.

Initialisation needs no data: it happens in the constructor. For inputs that are rectified standard normal variables,

    W_EE, W_IE ~ Exponential(scale sqrt(2 pi / (d (2 pi - 1)))),  W_EI = 1/n_I,  exp(alpha) = sqrt((2 pi - 1) / d)

make subtraction remove the mean of the layer's excitation, and division its scale, `E[gamma] = std(W_EE x) = 1`. That
deviation is over units and inputs; layer normalization takes the one over units for each input, so the layer starts as
`sqrt(pi / (2 pi - 1)) = 0.77` times it. (E-I Init is the same with measured moments, and keeps the scale of the input.)

Corrected updates: the gradients of `W_IE`, `W_EI` and `alpha` are multiplied by `1/sqrt(n_E)`, `1/d` and
`1/(d sqrt(n_E))`, the approximate ratios of the Fisher information of inhibitory and excitatory parameters.

Source: Learning to live with Dale's principle: ANNs with separate excitatory and inhibitory units, ICLR 2021.
"""

from functools import partial
from math import log, pi, sqrt
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from eisnn import functional as EF
from eisnn import ops
from eisnn.functional.checks import check_int
from eisnn.nn.dale import loading_violation
from eisnn.nn.inference import FoldedCircuit
from eisnn.nn.layer import Pathway, Size, SpikingLayer, check_sizes, conv_geometry, copy_neuron
from eisnn.nn.neurons import check_stateless, run_neuron
from eisnn.nn.registry import Layers, register

EPSILON = 1e-8  # of the authors' release


def dann_response(currents: Tensor, weight: Tensor, gain_e: Tensor, bias: Tensor) -> Tensor:
    """`z` `[T, B, n_E, ...]` of the currents `[T, B, n_E + n_I, ...]` that one convolution with the stacked kernel
    `[W_EE - W_EI W_IE; W_IE]` gives (I units are linear, as weights and inputs are >= 0), and the lateral weight
    `W_EI diag(exp(alpha))` `[n_E, n_I]`."""
    wide = torch.promote_types(currents.dtype, torch.float32)
    balanced, h_i = currents.split(list(weight.shape), dim=2)
    q = balanced.to(wide) / (EF.lateral(h_i, weight).to(wide) + EPSILON)
    return (EF.per_neuron(gain_e, q) * q + EF.per_neuron(bias, q)).to(currents.dtype)


class DANNLayer(SpikingLayer):
    """Base of the DANN layers: the weights of one layer, filled, and its forward pass.

    Args:
        n_e: number of E units (channels).
        inputs: shape of one unit's receptive field.
        connection: how the layer projects.
        n_i: number of I units.
        neuron: the unit; `ReLU()` in the paper, None returns `z`.
    """

    non_negative = True
    dale_parameters: ClassVar[tuple[str, ...]] = ("weight_ee", "weight_ie", "weight_ei", "gain_e")
    lateral_parameters: ClassVar[tuple[str, ...]] = ("weight_ei",)

    def __init__(
        self, n_e: int, inputs: tuple[int, ...], connection: ops.Connection, n_i: int, neuron: nn.Module | None
    ) -> None:
        super().__init__()
        check_sizes(type(self).__name__, "channels" if connection.spatial else "features", inputs[0], n_e)
        self.n_e, self.n_i, self.connection = n_e, n_i, connection
        self.weight_ee = nn.Parameter(torch.empty(n_e, *inputs))
        self.weight_ie = nn.Parameter(torch.empty(n_i, *inputs))
        self.weight_ei = nn.Parameter(torch.empty(n_e, n_i))
        self.alpha = nn.Parameter(torch.empty(n_i))
        self.gain_e = nn.Parameter(torch.ones(n_e))
        self.bias = nn.Parameter(torch.zeros(n_e))
        self.neuron = copy_neuron(neuron)
        self.reset_parameters()

    @property
    def fan_in(self) -> int:
        """`d`: inputs of one unit."""
        return EF.fan_in(self.weight_ee)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the weights again. A single I unit gets the mean of the E units' weights, which centres exactly."""
        d = self.fan_in
        rate = 1 / sqrt(2 * pi / (d * (2 * pi - 1)))
        for weight in (self.weight_ee, self.weight_ie):
            weight.exponential_(rate, generator=generator)
        if self.n_i == 1:
            self.weight_ie.copy_(self.weight_ee.mean(0, keepdim=True))
        self.weight_ei.fill_(1 / self.n_i)
        self.alpha.fill_(log(sqrt((2 * pi - 1) / d)))
        self.gain_e.fill_(1)
        self.bias.zero_()

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, metadata: Any, strict: bool, missing: Any, unexpected: Any, errors: Any
    ) -> None:
        if (problem := loading_violation(self, state_dict, prefix)) is not None:
            errors.append(problem)
        else:
            super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, unexpected, errors)

    def stacked(self) -> tuple[Tensor, Tensor]:
        """The stacked kernel and the lateral weight of `dann_response`, with corrected gradients."""
        d, root = self.fan_in, sqrt(self.n_e)
        ie = EF.scale_gradient(self.weight_ie, 1 / root)
        ei = EF.scale_gradient(self.weight_ei, 1 / d)
        alpha = EF.scale_gradient(self.alpha, 1 / (d * root))
        return torch.cat([ops.fold(self.weight_ee, ie, ei), ie]), ei * alpha.exp()

    @property
    def receives(self) -> tuple[int, int]:
        return 3 + self.connection.spatial, self.weight_ee.shape[1]

    def respond(self, x: Tensor, time_steps: int | None, state: Any, return_state: bool) -> tuple[Tensor, Any]:
        """A static input stays `[1, B, ...]`: all steps are equal, unless the neuron has a state."""
        kernel, weight = self.stacked()
        z = dann_response(self.connection.feedforward(x, kernel), weight, self.gain_e, self.bias)
        return run_unit(self.neuron, z, time_steps, state, return_state)

    def populations(self) -> dict[str, int]:
        return {"E": self.n_e, "I": self.n_i}

    @torch.no_grad()
    def folded(self) -> SpikingLayer:
        return FoldedDANN(self)

    def pathways(self) -> list[Pathway]:
        ei = self.weight_ei.detach()
        return [
            Pathway("E->E", self.weight_ee, self.connection),
            Pathway("E->I", self.weight_ie, self.connection),
            Pathway("I->E, subtractive", ei, None),
            Pathway("I->E, divisive", ei * self.alpha.detach().exp(), None),
        ]

    def extra_repr(self) -> str:
        inputs = ", ".join(str(n) for n in self.weight_ee.shape[1:])
        return f"inputs=({inputs}), n_E={self.n_e}, n_I={self.n_i}"


def run_unit(
    neuron: nn.Module | None, z: Tensor, time_steps: int | None, state: Any, return_state: bool
) -> tuple[Tensor, Any]:
    """`run_neuron`, but for units without dynamics a static input stays one step."""
    if neuron is None:
        check_stateless(state, "a layer with neuron=None")
        return z, None
    return run_neuron(neuron, z, None if isinstance(neuron, nn.ReLU) else time_steps, state, return_state)


class FoldedDANN(FoldedCircuit):
    """A `DANNLayer` for inference: its stacked kernel and lateral weight, made once."""

    weight: Tensor
    gain_e: Tensor
    bias: Tensor

    def __init__(self, layer: DANNLayer) -> None:
        kernel, weight = layer.stacked()
        super().__init__(layer.connection, kernel, weight=weight, gain_e=layer.gain_e, bias=layer.bias)
        self.neuron, self.hidden = layer.neuron, layer.hidden  # type: ignore[misc]

    def respond(self, x: Tensor, time_steps: int | None, state: Any, return_state: bool) -> tuple[Tensor, Any]:
        z = dann_response(self.project(x), self.weight, self.gain_e, self.bias)
        return run_unit(self.neuron, z, time_steps, state, return_state)

    def pathways(self) -> list[Pathway]:
        return [*super().pathways(), Pathway("I->E, divisive", self.weight, None)]


class DANNConv2d(DANNLayer):
    """Convolutional DANN layer; `[T, B, C_in, H, W]` -> `[T, B, C_out, H', W']`.

    Args: as `EIConv2d`. `n_I = max(1, n_E // ei_ratio)`; the default 4 is the ratio of the circuits it is compared
        with (Cornford et al. have 64 and 10 channels, 128 and 20, ..., a ratio of 6.4).
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
        neuron: nn.Module | None = nn.ReLU(),  # noqa: B008 - copied, never shared
    ) -> None:
        name = type(self).__name__
        check_sizes(name, "channels", in_channels, out_channels)
        check_int(name, "ei_ratio", ei_ratio)
        kernel, *geometry = conv_geometry(name, kernel_size, stride, padding, dilation)
        n_i = max(1, out_channels // ei_ratio)
        super().__init__(out_channels, (in_channels, *kernel), ops.Conv(*geometry), n_i, neuron)


class DANNLinear(DANNLayer):
    """All-to-all DANN layer; `[T, B, in_features]` -> `[T, B, out_features]`. `ei_ratio` as in `DANNConv2d`."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        ei_ratio: int = 4,
        neuron: nn.Module | None = nn.ReLU(),  # noqa: B008 - copied, never shared
    ) -> None:
        name = type(self).__name__
        check_sizes(name, "features", in_features, out_features)
        check_int(name, "ei_ratio", ei_ratio)
        super().__init__(out_features, (in_features,), ops.Dense(), max(1, out_features // ei_ratio), neuron)


class DANNReadout(DANNLayer):
    """Last layer: `z` as logits, with a single I unit."""

    hidden = False

    def __init__(self, in_features: int, out_features: int) -> None:
        check_sizes(type(self).__name__, "features", in_features, out_features)
        super().__init__(out_features, (in_features,), ops.Dense(), 1, None)


@register("dann", neurons="rate")
def dann(neuron: nn.Module | None, time_steps: int | None, ei_ratio: int = 4) -> Layers:
    """Cornford et al.'s E-I network; `neuron` is its unit, a ReLU in their paper."""
    return Layers(
        partial(DANNConv2d, neuron=neuron, ei_ratio=ei_ratio),
        partial(DANNLinear, neuron=neuron, ei_ratio=ei_ratio),
        DANNReadout,
    )
