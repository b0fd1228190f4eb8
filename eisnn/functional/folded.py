"""The circuit folded to the same function at less cost: one convolution computes all currents.

Weights and inputs are non-negative, so the I neurons are linear: `I_EE - I_sub = W x` with `W = W_EE - W_EI W_IE`, and
`I_div = M W_IE x`. Names as in `eisnn.functional.circuit`; method, section 5.
"""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from eisnn.functional.circuit import integrate, scale_gradient
from eisnn.functional.connection import Connection, by_position, fan_in, lateral
from eisnn.functional.kernels.matmul import matmul, products_for, subtract_product


class FoldedCurrents(NamedTuple):
    """The currents that matter: `balanced` = `I_EE - I_sub` (any sign) and `i_div` >= 0, each `[T, B, n_E, ...]`."""

    balanced: Tensor
    i_div: Tensor


class StackedCurrents(NamedTuple):
    """What one convolution gives: `currents` `[T, B, n_E + m, ...]`, the balanced current and below it those of m I
    neurons; and `weight` `[n_E, m]`, `M`, which makes `I_div` of the latter."""

    currents: Tensor
    weight: Tensor


class Kernel(ABC):
    """How the weights of a circuit (`sources`) make the kernel that computes its currents, and the way back."""

    tonic = False  # whether the last I neuron is active at 1 everywhere

    @abstractmethod
    def make(self, *sources: Tensor) -> tuple[Tensor, Any]:
        """The kernel `[n_E + m, ...]`, and whatever `gradients` needs besides; neither has a gradient."""

    @abstractmethod
    def gradients(self, grad: Tensor, made: Any, *sources: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the sources for that of the kernel; `made` is what `make` returned besides it."""

    def needs_currents(self, x: Tensor, currents: Tensor, *sources: Tensor) -> bool:
        """Whether `backward` wants to see the currents."""
        return False

    def backward(
        self,
        grad: Tensor,
        x: Tensor,
        currents: Tensor | None,
        connection: Connection,
        input_too: bool,
        *sources: Tensor,
    ) -> tuple[Tensor | None, ...]:
        """Gradients of `x` (if `input_too`) and of the sources for that of the currents; by the kernel, made again."""
        kernel, made = self.make(*sources)
        grad_x, grad_kernel = connection.feedforward_backward(grad, x, aligned(kernel.to(x.dtype)), input_too)
        return grad_x, *self.gradients(grad_kernel[: len(kernel)].to(kernel.dtype), made, *sources)


def aligned(kernel: Tensor) -> Tensor:
    """With rows of zeros below, up to `padded`: the matrix units of a GPU want their channels so."""
    if (missing := padded(len(kernel), kernel) - len(kernel)) == 0:
        return kernel
    rows = torch.zeros_like(kernel[:1]).expand(missing, *kernel.shape[1:])
    return torch.cat([kernel, laid_out_like(rows, kernel)])


def padded(n: int, maps: Tensor) -> int:
    """How many currents `project` gives for a kernel of n rows, where `maps` are."""
    return -(-n // 8) * 8 if maps.is_cuda else n


def project(x: Tensor, kernel: Kernel, sources: tuple[Tensor, ...], connection: Connection) -> Tensor:
    """All currents of a circuit `[T, B, n_E + m, ...]` from `x` `[T, B, ...]`, by one convolution; on CUDA there may
    be zeros below them (`aligned`).

    The kernel is not kept for the backward pass, but made again. Under autocast it is made in full precision.
    """
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    return _Projection.apply(x, kernel, connection, *sources)


class _Projection(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Kernel, connection: Connection, *sources: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False), products_for(x):
            made, _ = kernel.make(*sources)
            currents = connection.feedforward(x, aligned(made.to(x.dtype)))
        if kernel.tonic:
            currents.select(2, len(made) - 1).fill_(1)
        ctx.kernel, ctx.connection = kernel, connection
        ctx.save_for_backward(x, currents if kernel.needs_currents(x, currents, *sources) else None, *sources)
        return currents

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, currents, *sources = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False), products_for(x):
            grad_x, *found = ctx.kernel.backward(
                grads[0], x, currents, ctx.connection, ctx.needs_input_grad[0], *sources
            )
        return grad_x, None, None, *found


class StackedKernel(Kernel):
    """`[W; W_IE]` of the paper's circuit, made of `weight_ee`, `weight_ie` and `weight_ei`.

    Two ways back: with `[W; W_IE]` made again, through the products of weights that made it; or with `[W_EE; W_IE]` and
    the gradients of the currents as they are before folding, `g_I - W_EI^T g_E` for the I neurons, which costs less
    where a layer has fewer positions than inputs, and in less than float32 loses digits.
    """

    @torch.no_grad()
    def make(self, *sources: Tensor) -> tuple[Tensor, None]:
        weight_ee, weight_ie, weight_ei = sources
        ee, ie, n_e = weight_rows(weight_ee), weight_rows(laid_out_like(weight_ie, weight_ee)), len(weight_ee)
        stacked = ee.new_empty(n_e + len(ie), ee.shape[1])
        _fold_rows(ee, ie, weight_ei, out=stacked[:n_e])
        stacked[n_e:] = ie
        return from_rows(stacked, weight_ee), None

    def gradients(self, grad: Tensor, made: None, *sources: Tensor) -> tuple[Tensor | None, ...]:
        """`dW_EE = G_W`, `dW_IE = G_I - W_EI^T G_W`, `dW_EI = -G_W W_IE^T`, with `[G_W; G_I]` that of the kernel."""
        weight_ee, weight_ie, weight_ei = sources
        grad_ee, grad_i = weight_rows(laid_out_like(grad, weight_ee)).split([len(weight_ee), len(weight_ie)])
        grad_ie = subtract_product(grad_i, weight_ei.T, grad_ee)
        grad_ei = matmul(grad_ee, weight_rows(laid_out_like(weight_ie, weight_ee)).T).neg_()
        return from_rows(grad_ee, weight_ee), from_rows(grad_ie, weight_ee), grad_ei

    def needs_currents(self, x: Tensor, currents: Tensor, *sources: Tensor) -> bool:
        few, exact = 2 * currents[:, :, 0].numel() < 3 * fan_in(sources[0]), x.dtype.itemsize >= 4
        return few and exact and currents.shape[2] == len(sources[0]) + len(sources[1])

    def backward(
        self,
        grad: Tensor,
        x: Tensor,
        currents: Tensor | None,
        connection: Connection,
        input_too: bool,
        *sources: Tensor,
    ) -> tuple[Tensor | None, ...]:
        if currents is None:
            return super().backward(grad, x, currents, connection, input_too, *sources)
        weight_ee, weight_ie, weight_ei = sources
        sizes = [len(weight_ee), len(weight_ie)]
        grad_e, grad_i = grad.split(sizes, dim=2)
        rows_e, rows_i, i_ie = (by_position(maps) for maps in (grad_e, grad_i, currents.split(sizes, dim=2)[1]))
        grad_ei = matmul(rows_e.T, i_ie).neg_()
        rows_i = subtract_product(rows_i, rows_e, weight_ei)
        grad_i = rows_i.view(grad_i.movedim(2, -1).shape).movedim(-1, 2)
        grad_x, grad_ee = connection.feedforward_backward(grad_e, x, weight_ee, input_too)
        through_i, grad_ie = connection.feedforward_backward(grad_i, x, laid_out_like(weight_ie, weight_ee), input_too)
        if grad_x is not None and through_i is not None:
            grad_x = grad_x + through_i
        return grad_x, grad_ee, grad_ie, grad_ei


def stacked_currents(
    x: Tensor, weight_ee: Tensor, weight_ie: Tensor, weight_ei: Tensor, gain_i: Tensor, connection: Connection
) -> StackedCurrents:
    """Eqs. (9)-(12) by one convolution with the stacked kernel `[W; W_IE]`."""
    weight_ei = scale_gradient(weight_ei, 1 / fan_in(weight_ee))
    sources = weight_ee, weight_ie, weight_ei
    return StackedCurrents(project(x, StackedKernel(), sources, connection), weight_ei * gain_i)


def split_currents(currents: Tensor, weight: Tensor) -> FoldedCurrents:
    """The balanced current, and eq. (13): `I_div = M I_IE`."""
    n_e, n_i = weight.shape
    if currents.shape[2] not in (n_e + n_i, padded(n_e + n_i, currents)):
        raise ValueError(
            f"split_currents takes currents [T, B, n_E + n_I, ...] and weight [n_E, n_I], got shapes "
            f"{list(currents.shape)} and {list(weight.shape)}"
        )
    return FoldedCurrents(currents[:, :, :n_e], lateral(currents[:, :, n_e : n_e + n_i], weight))


def folded_currents(
    x: Tensor, weight_ee: Tensor, weight_ie: Tensor, weight_ei: Tensor, gain_i: Tensor, connection: Connection
) -> FoldedCurrents:
    """Eqs. (9)-(13) folded: one convolution with `[W; W_IE]` and one lateral projection `M = W_EI diag(g_I)`."""
    currents, weight = stacked_currents(x, weight_ee, weight_ie, weight_ei, gain_i, connection)
    return split_currents(currents, weight)


def ei_circuit_folded(
    x: Tensor,
    weight_ee: Tensor,
    weight_ie: Tensor,
    weight_ei: Tensor,
    gain_i: Tensor,
    gain_e: Tensor,
    bias: Tensor,
    connection: Connection,
) -> Tensor:
    """The same function as `ei_circuit` by the folded currents."""
    return integrate(*folded_currents(x, weight_ee, weight_ie, weight_ei, gain_i, connection), gain_e, bias)


def fold(weight_ee: Tensor, weight_ie: Tensor, weight_ei: Tensor) -> Tensor:
    """The signed kernel `W = W_EE - W_EI W_IE` of the balanced current, shaped like `weight_ee`.

    The difference is taken between weights, in at least float32, also under autocast: between the currents, two large
    and nearly equal numbers, it loses digits.
    """
    with torch.autocast(weight_ee.device.type, enabled=False):
        ee, ie = weight_rows(weight_ee), weight_rows(laid_out_like(weight_ie, weight_ee))
        return from_rows(_fold_rows(ee, ie, weight_ei).to(weight_ee.dtype), weight_ee)


def _fold_rows(ee: Tensor, ie: Tensor, weight_ei: Tensor, out: Tensor | None = None) -> Tensor:
    """Rows of `W`, in at least float32 unless `out`, where they go, has less."""
    wide = torch.promote_types(ee.dtype, torch.float32)
    if out is not None and out.dtype != wide:
        return out.copy_(_fold_rows(ee, ie, weight_ei))
    return subtract_product(ee.to(wide), weight_ei.to(wide), ie.to(wide), out=out)


def weight_rows(weight: Tensor) -> Tensor:
    """Weights of each neuron in one row, in the order in which they lie in memory."""
    return weight.movedim(1, -1).flatten(1) if channels_last(weight) else weight.flatten(1)


def from_rows(rows: Tensor, like: Tensor) -> Tensor:
    """The inverse of `weight_rows`: rows of any number of neurons, shaped otherwise like `like`."""
    if channels_last(like):
        return rows.view(-1, *like.movedim(1, -1).shape[1:]).movedim(-1, 1)
    return rows.view(-1, *like.shape[1:])


def laid_out_like(weight: Tensor, other: Tensor) -> Tensor:
    """`weight` in the memory format of `other`; copied only if need be."""
    return weight.contiguous(memory_format=torch.channels_last if channels_last(other) else torch.contiguous_format)


def channels_last(weight: Tensor) -> bool:
    return weight.ndim == 4 and weight.stride(1) == 1 and weight.shape[1] > 1


def ei_readout_folded(
    x: Tensor, weight_ee: Tensor, weight_ie: Tensor, weight_ei: Tensor, connection: Connection
) -> Tensor:
    """The same function as `ei_readout` with the folded kernel."""
    weight_ei = scale_gradient(weight_ei, 1 / fan_in(weight_ee))
    return connection.feedforward(x, fold(weight_ee, weight_ie, weight_ei))
