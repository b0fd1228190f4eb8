"""Random circuits and inputs for the tests, and how two results are compared."""

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

import eisnn.functional as EF
from eisnn import ops

WEIGHTS = ("weight_ee", "weight_ie", "weight_ei")
PARAMETERS = (*WEIGHTS, "gain_i", "gain_e", "bias")


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers, float64."""
    return torch.randn(shape, generator=rng(seed), dtype=torch.float64)


def assert_agree(ours: Tensor, theirs: Tensor, tolerance: float, scale: float = 0.0) -> None:
    """Assert that the largest difference is within `tolerance` of the largest entry of `theirs` (or of `scale`)."""
    assert ours.shape == theirs.shape, f"{list(ours.shape)} != {list(theirs.shape)}"
    assert torch.isfinite(theirs).all()
    size = max(float(theirs.detach().double().abs().max()), scale)
    error = float((ours.detach().double() - theirs.detach().double()).abs().max())
    assert error <= tolerance * size, f"difference {error:.2e} > {tolerance:.0e} of {size:.2e}"


def spikes(shape: tuple[int, ...], rate: float = 0.3, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return (torch.rand(shape, generator=rng(seed)) < rate).to(dtype)


def circuit(
    n_e: int, n_i: int, inputs: tuple[int, ...], seed: int = 0, dead: float = 0.0, dtype: torch.dtype = torch.float64
) -> dict[str, Tensor]:
    """Parameters as after some training: exponential weights, a part `dead` of which has been clamped to 0."""
    g = rng(seed)

    def exponential(*shape: int) -> Tensor:
        weight = torch.empty(shape, dtype=torch.float64).exponential_(generator=g)
        return weight * (torch.rand(shape, generator=g) >= dead)

    parameters = {
        "weight_ee": exponential(n_e, *inputs),
        "weight_ie": exponential(n_i, *inputs),
        "weight_ei": exponential(n_e, n_i) / n_i,
        "gain_i": 0.2 + torch.rand(n_i, generator=g, dtype=torch.float64),
        "gain_e": 0.5 + torch.rand(n_e, generator=g, dtype=torch.float64),
        "bias": torch.randn(n_e, generator=g, dtype=torch.float64),
    }
    return {k: v.to(dtype) for k, v in parameters.items()}


@dataclass(frozen=True)
class Case:
    """A circuit with an input."""

    connection: EF.Connection
    x: Tensor
    parameters: dict[str, Tensor]

    def leaves(self) -> dict[str, Tensor]:
        """Fresh leaves `x, weight_ee, ...` that require gradients."""
        return {k: v.clone().requires_grad_() for k, v in {"x": self.x, **self.parameters}.items()}


@st.composite
def cases(draw: st.DrawFn, dead: bool | None = None) -> Case:
    """Dense circuits and convolutions of any geometry, with silent patches, silent samples and dead weights."""
    seed = draw(st.integers(0, 10**6))
    t, b, c = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    n_e = draw(st.integers(1, 9))
    n_i = max(1, n_e // draw(st.sampled_from([1, 2, 4])))
    part = draw(st.sampled_from([0.0, 0.3, 0.7])) if dead is None else 0.5 * dead
    rate = draw(st.sampled_from([0.1, 0.4, 1.0]))
    real = draw(st.booleans())
    if draw(st.booleans()):
        connection: EF.Connection = ops.Dense()
        inputs: tuple[int, ...] = (draw(st.integers(4, 12)),)
        shape: tuple[int, ...] = (t, b, *inputs)
    else:
        pairs = st.tuples(st.integers(1, 2), st.integers(1, 2))
        kernel = draw(st.sampled_from([(1, 1), (3, 3), (1, 3), (3, 2), (2, 1)]))
        connection = ops.Conv(draw(pairs), draw(st.tuples(st.integers(0, 2), st.integers(0, 1))), draw(pairs))
        inputs = (c, *kernel)
        shape = (t, b, c, draw(st.integers(5, 8)), draw(st.integers(5, 8)))
    x = spikes(shape, rate, seed)
    if real:  # averages and sums of spikes, pixels
        x = x * 2 * torch.rand(shape, generator=rng(seed + 1), dtype=torch.float64)
    if draw(st.booleans()):
        x[0, 0] = 0  # a silent sample
    return Case(connection, x, circuit(n_e, n_i, inputs, seed, part))


def gradients(out: Tensor, leaves: dict[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    """Gradients of `<R, out>` for a random R by name of the leaf."""
    upstream = torch.randn(out.shape, generator=rng(seed), dtype=torch.float64).to(out.dtype)
    return dict(zip(leaves, torch.autograd.grad(out, list(leaves.values()), upstream), strict=True))
