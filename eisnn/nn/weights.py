"""What the parameters of a circuit stand for: its weights as they are (the paper), or shares of totals in
exact balance.

A parametrization belongs to one `EILayer`, holds what it needs besides the layer's parameters, and alone knows how
these make the currents.
"""

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from eisnn import functional as EF
from eisnn import ops
from eisnn.nn.options import CircuitOptions

# Fewer input channels leave too little if each position of the receptive field balances by itself: of colour images
# the luminance would be lost.
LEAST_CHANNELS = 8


class Raw(NamedTuple):
    """The parameters of a circuit that make its input currents."""

    weight_ee: Tensor
    weight_ie: Tensor
    weight_ei: Tensor
    gain_i: Tensor


class PaperWeights(nn.Module):
    """The parameters are the weights, eqs. (9)-(13)."""

    def __init__(self) -> None:
        super().__init__()
        self.stacked: ops.Kernel = ops.StackedKernel()

    def start_(self, raw: Raw, scale: float, inhibitory_gain: float, mean: float) -> None:
        """Start `g_I`, and what is conserved, once the weights are filled (E-I Init).

        Args:
            raw: of the layer; `gain_i` is set.
            scale: mean of the entries of `weight_ee` and `weight_ie`.
            inhibitory_gain: `g_I`, eq. (54).
            mean: of the input, so that `E[I_div] = g_I d scale mean`.
        """
        raw.gain_i.fill_(inhibitory_gain)

    def scale_division_(self, raw: Raw, factor: float) -> None:
        """Multiply all that divides, so that `I_E` shrinks by `factor`."""
        raw.gain_i.mul_(factor)

    @property
    def start_mean(self) -> float | None:
        """The `mean` of `start_`; None without semisaturation, as currents then do not depend on the input's scale."""
        return None

    def sources(self, raw: Raw) -> tuple[tuple[Tensor, ...], Tensor]:
        """What `stacked` is made of, and `M` `[n_E, m]`, which makes the divisive current of the last m currents."""
        weight_ei = EF.scale_gradient(raw.weight_ei, 1 / EF.fan_in(raw.weight_ee))
        return (raw.weight_ee, raw.weight_ie, weight_ei), weight_ei * raw.gain_i

    def synapses(self, raw: Raw) -> EF.Synapses:
        """The weights with which the circuit acts."""
        (ee, ie, ei), divisive = self.sources(raw)
        return EF.Synapses(ee, ie, ei, divisive)


class ConservedWeights(PaperWeights):
    """Exact balance (M9): the parameters are shares of each neuron's totals. `gain_i` and `sigma` are factors
    of their initial values."""

    dale_parameters: ClassVar[tuple[str, ...]] = ("sigma",)
    lower_bounds: ClassVar[dict[str, float]] = {"sigma": 0.03}
    sigma: nn.Parameter | None
    total: Tensor
    row_norm: Tensor
    gain_unit: Tensor
    sigma_unit: Tensor

    def __init__(
        self,
        n_e: int,
        inputs: tuple[int, ...],
        options: CircuitOptions,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.pooled, self.share, self.tightness = options.pooled, options.semisaturation, options.tightness
        self.tapwise = options.tapwise and len(inputs) == 3 and inputs[0] >= LEAST_CHANNELS
        self.stacked = ops.ConservedKernel(options.pooled, bool(options.semisaturation), self.tapwise)
        sigma = torch.ones(n_e, device=device, dtype=dtype) if options.semisaturation else None
        self.sigma = None if sigma is None else nn.Parameter(sigma)
        for name in ("total", "row_norm", "gain_unit", "sigma_unit"):  # set by E-I Init
            self.register_buffer(name, torch.zeros((), device=device, dtype=dtype))

    def start_(self, raw: Raw, scale: float, inhibitory_gain: float, mean: float) -> None:
        total = EF.fan_in(raw.weight_ee) * scale
        for weight in (raw.weight_ee, raw.weight_ie):
            weight += (self.tightness - 1) * scale
        raw.gain_i.fill_(1)
        self.total.fill_(self.tightness * total)
        self.gain_unit.fill_(inhibitory_gain * (1 - self.share) / self.tightness)
        self.sigma_unit.fill_(self.share * inhibitory_gain * total * mean)
        if self.sigma is not None:
            self.sigma.fill_(1)
        folded = ops.fold(*EF.conserved_weights(*raw[:3], self.total, tapwise=self.tapwise))
        self.row_norm.copy_(folded.flatten(1).square().sum(1).mean().sqrt())

    def scale_division_(self, raw: Raw, factor: float) -> None:
        self.gain_unit *= factor
        self.sigma_unit *= factor

    @property
    def start_mean(self) -> float | None:
        if self.sigma is None:
            return None
        return float(self.sigma_unit / self.gain_unit / self.total) * (1 - self.share) / self.share

    def sources(self, raw: Raw) -> tuple[tuple[Tensor, ...], Tensor]:
        gain = raw.gain_i * self.gain_unit
        weight = EF.divisive_weight(raw.weight_ei, gain, self._sigma(), pooled=self.pooled)
        return (*raw[:3], gain, self.total, self.row_norm), weight

    def synapses(self, raw: Raw) -> EF.Synapses:
        gain = raw.gain_i * self.gain_unit
        return EF.conserved_synapses(
            *raw[:3], gain, self._sigma(), self.total, self.row_norm, pooled=self.pooled, tapwise=self.tapwise
        )

    def _sigma(self) -> Tensor | None:
        return None if self.sigma is None else self.sigma * self.sigma_unit
