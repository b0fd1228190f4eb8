"""Attention between spikes as layers of neurons without weights: their currents are products of spikes.

    Q, K, V      queries, keys and values of a head: spikes [N, d] of N tokens (the positions of a map)
    A            Q K^T, the attention map: never negative, as a circuit wants its input
    kind         current I_E
    "fixed"      theta A V / 8                      the published scale: eight coincidences reach the threshold
    "gain"       g A V                              g measured at the start (E-I Init), then learned
    "divisive"   g A V / (sigma + A 1)              the row sums of A divide, as a softmax does: pooled inhibition

Queries may instead choose tokens by themselves (QKFormer): the current is then `Q 1`, and what is pooled its mean over
tokens.

Sources: Zhou et al., Spikformer: when spiking neural network meets transformer, ICLR 2023; Zhou et al., QKFormer,
NeurIPS 2024; Carandini and Heeger, Normalization as a canonical neural computation, 2012. The published neurons halve
their input and have half the threshold here, so that in units of eq. (1) the currents are those above.
"""

from typing import Any, ClassVar, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from eisnn import functional as EF
from eisnn.functional import LIFConstants
from eisnn.functional.checks import check_int
from eisnn.nn.circuit import DataDrivenLayer
from eisnn.nn.layer import Pathway, Product, copy_neuron
from eisnn.nn.neurons import LIF, run_neuron

AttentionKind = Literal["fixed", "gain", "divisive"]


class Drive(NamedTuple):
    """What drives the neurons of each head and token, and what divides it: `[T, B, heads, N, n]` and one that
    broadcasts to it."""

    excitation: Tensor
    pooled: Tensor | None


class Attention(DataDrivenLayer):
    """Base: neurons that are driven by products of spikes.

    Args:
        channels: of the queries, a multiple of `heads`; as many of keys and values.
        heads: groups of channels that attend by themselves.
        kind: of scale, see above. All but "fixed" have a gain, and "divisive" a semisaturation, which E-I Init measures
            from data; both are kept >= 0, as factors of their initial values.
        neuron: copied into the layer; None returns the current.
    Raises: ValueError or TypeError that names the argument.
    """

    dale_parameters: ClassVar[tuple[str, ...]] = ("gain", "sigma")
    lower_bounds: ClassVar[dict[str, float]] = {"sigma": 0.03}
    parts: ClassVar[int]  # of the input: queries, keys, ...
    coincidences: ClassVar[float]  # of kind "fixed": how many reach the threshold
    start_rate: ClassVar[float | None] = None  # spikes a step that E-I Init aims at; None is that of the input
    gain: nn.Parameter | None
    sigma: nn.Parameter | None
    gain_unit: Tensor
    sigma_unit: Tensor

    def __init__(
        self,
        channels: int,
        heads: int = 1,
        kind: AttentionKind = "fixed",
        neuron: nn.Module | None = LIF(),  # noqa: B008 - copied, never shared
    ) -> None:
        super().__init__()
        name = type(self).__name__
        check_int(name, "channels", channels)
        check_int(name, "heads", heads)
        if channels % heads:
            raise ValueError(f"{name}: channels must be a multiple of heads, got {channels} and {heads}")
        if kind not in get_args(AttentionKind):
            raise ValueError(f"{name}: kind must be one of {', '.join(get_args(AttentionKind))}, got {kind!r}")
        self.channels, self.heads, self.kind, self.neuron = channels, heads, kind, copy_neuron(neuron)
        self.data_driven, self.initialized = kind != "fixed", kind == "fixed"
        self.gain = nn.Parameter(torch.ones(self.outputs)) if self.data_driven else None
        self.sigma = nn.Parameter(torch.ones(heads)) if kind == "divisive" else None
        self.measured = tuple(name for name in ("gain", "sigma") if getattr(self, name) is not None)
        for unit in self.measured:
            self.register_buffer(f"{unit}_unit", torch.ones(()))

    @property
    def outputs(self) -> int:
        """Neurons at each position."""
        return self.channels

    @property
    def receives(self) -> tuple[int, int]:
        return 5, self.parts * self.channels

    def drive(self, x: Tensor) -> Drive:
        """Of the queries (keys, values) `x` `[T, B, parts * channels, H, W]`."""
        raise AttributeError(f"{type(self).__name__} defines no drive()")

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """Its parts by head and token, each `[T, B, heads, N, d]`."""
        tokens = x.movedim(2, -1).flatten(2, 3).unflatten(-1, (self.parts, self.heads, -1))
        return tokens.permute(3, 0, 1, 4, 2, 5).unbind()

    def integrated(self, x: Tensor) -> Tensor:
        """`I_E` `[T, B, outputs, H, W]`."""
        return self._map(self._integrate(self.drive(x)), x)

    def _integrate(self, drive: Drive) -> Tensor:
        if self.gain is None:
            constants = getattr(self.neuron, "constants", None) or LIFConstants()
            return drive.excitation * (constants.theta / self.coincidences)
        current = drive.excitation * (self.gain * self.gain_unit).view(self.heads, 1, -1)
        return current if drive.pooled is None else current / (drive.pooled + self._constant())

    def _constant(self) -> Tensor:
        """The semisaturation of each head, `[heads, 1, 1]`."""
        assert self.sigma is not None
        return (self.sigma * self.sigma_unit).view(-1, 1, 1)

    def _map(self, y: Tensor, x: Tensor) -> Tensor:
        """`[T, B, heads, N, n]` as maps of the size of `x`."""
        return y.transpose(2, 3).flatten(3).unflatten(2, x.shape[-2:]).movedim(-1, 2)

    def respond(self, x: Tensor, time_steps: int | None, state: Any, return_state: bool) -> tuple[Tensor, Any]:
        return run_neuron(self.neuron, self.integrated(x), time_steps, state, return_state)

    @torch.no_grad()
    def start_(self) -> None:
        """Gain and semisaturation are factors of what E-I Init measures, and start at 1."""
        for name in self.measured:
            getattr(self, name).fill_(1)
            getattr(self, f"{name}_unit").fill_(1)

    def _circuit_state(self) -> list[str]:
        return [*super()._circuit_state(), *(f"{name}_unit" for name in self.measured)]

    @property
    def watched(self) -> nn.Module:
        return self

    def quantities(self) -> tuple[str, ...]:
        """`I_EE` (`A V`, in coincidences), what divides it, and the current."""
        return ("I_EE", "I_div", "I_E") if self.sigma is not None else ("I_EE", "I_E")

    @torch.no_grad()
    def measure(self, x: Tensor, out: Tensor) -> dict[str, Tensor]:
        drive = self.drive(x)
        values = {"I_EE": drive.excitation, "I_E": self._integrate(drive)}
        if drive.pooled is not None:
            values["I_div"] = (drive.pooled + self._constant()).expand_as(drive.excitation)
        return {name: self._map(value, x) for name, value in values.items()}

    def pathways(self) -> list[Pathway]:
        """None: it has no weights, but `products`."""
        return []

    def extra_repr(self) -> str:
        state = "" if self.initialized else ", not initialised"
        return f"channels={self.channels}, heads={self.heads}, kind={self.kind!r}{state}"


class SelfAttention(Attention):
    """Each token takes the values of the tokens whose keys its query meets, `A V`; `[T, B, 3 C, H, W]` (queries, keys,
    values) -> `[T, B, C, H, W]`. `channels` is C."""

    parts = 3
    coincidences = 8

    def drive(self, x: Tensor) -> Drive:
        q, k, v = self.split(x)
        return Drive(EF.attend(q, k, v), EF.attention_sum(q, k) if self.sigma is not None else None)

    @torch.no_grad()
    def map(self, x: Tensor) -> Tensor:
        """The attention map A of each head, `[T, B, heads, N, N]`: queries by keys, in coincidences."""
        q, k, _ = self.split(x)
        return EF.attention_map(q, k)

    def products(self, x: Tensor) -> list[Product]:
        q, k, v = self.split(x)
        size, d = q[..., 0].numel(), q.shape[-1]
        if EF.keys_first(q):
            found = [("K^T V", size * d * d, (k.sum(-1) * v.sum(-1)).sum()), ("Q (K^T V)", size * d * d, q.sum() * d)]
        else:
            tokens = q.shape[-2]
            met, of_value = (q.sum(-2) * k.sum(-2)).sum(), (EF.attention_map(q, k) != 0).to(v) @ v.sum(-1, True)
            found = [("Q K^T", size * tokens * d, met), ("A V", size * tokens * d, of_value.sum())]
        if self.sigma is not None:
            found.append(("A 1", 2 * size * d, k.sum() + q.sum()))
        return [Product(name, float(dense), float(effective)) for name, dense, effective in found]


class TokenAttention(Attention):
    """Queries choose tokens by themselves: the neurons of a head fire at tokens with many query spikes, and a gate of
    theirs lets the keys there pass; `[T, B, C, H, W]` (queries) -> gates `[T, B, heads, H, W]`. `channels` is C. The
    cost grows as the number of tokens."""

    parts = 1
    coincidences = 1
    start_rate = 0.5

    @property
    def outputs(self) -> int:
        return self.heads

    def drive(self, x: Tensor) -> Drive:
        (q,) = self.split(x)
        found = q.sum(-1, keepdim=True)
        return Drive(found, found.mean(-2, keepdim=True) if self.sigma is not None else None)

    def products(self, x: Tensor) -> list[Product]:
        return [Product("Q 1", float(x.numel()), float(x.sum()))]
