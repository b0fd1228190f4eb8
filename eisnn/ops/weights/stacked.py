"""The kernel of the paper's circuit: folded weights, and below them those of the I neurons."""

import torch
from torch import Tensor

from eisnn.functional.connection import fan_in
from eisnn.ops.connection import Connection
from eisnn.ops.layout import by_position, from_rows, laid_out_like, weight_rows
from eisnn.ops.weights.matmul import matmul, subtract_product
from eisnn.ops.weights.op import Gradients, Kept, Kernel


class StackedKernel(Kernel):
    """`[W; W_IE]` of the paper's circuit, made of `weight_ee`, `weight_ie` and `weight_ei`.

    Two ways back: with `[W; W_IE]`, through the products of weights that made it; or with `[W_EE; W_IE]` and the
    gradients of the currents as they are before folding, `g_I - W_EI^T g_E` for the I neurons, which costs less
    where a layer has fewer positions than inputs, and in less than float32 loses digits.
    """

    @torch.no_grad()
    def make(self, *sources: Tensor) -> tuple[Tensor, Kept]:
        weight_ee, weight_ie, weight_ei = sources
        ee, ie, n_e = weight_rows(weight_ee), weight_rows(laid_out_like(weight_ie, weight_ee)), len(weight_ee)
        stacked = ee.new_empty(n_e + len(ie), ee.shape[1])
        _fold_rows(ee, ie, weight_ei, out=stacked[:n_e])
        stacked[n_e:] = ie
        return from_rows(stacked, weight_ee), ()

    def gradients(self, grad: Tensor, kernel: Tensor, kept: Kept, *sources: Tensor) -> Gradients:
        """`dW_EE = G_W`, `dW_IE = G_I - W_EI^T G_W`, `dW_EI = -G_W W_IE^T`, with `[G_W; G_I]` that of the kernel."""
        weight_ee, weight_ie, weight_ei = sources
        grad_ee, grad_i = weight_rows(laid_out_like(grad, weight_ee)).split([len(weight_ee), len(weight_ie)])
        grad_ie = subtract_product(grad_i, weight_ei.T, grad_ee)
        grad_ei = matmul(grad_ee, weight_rows(laid_out_like(weight_ie, weight_ee)).T).neg_()
        return from_rows(grad_ee, weight_ee), from_rows(grad_ie, weight_ee), grad_ei

    def needs_currents(self, x: Tensor, currents: Tensor, *sources: Tensor) -> bool:
        few, exact = 2 * currents[:, :, 0].numel() < 3 * fan_in(sources[0]), x.dtype.itemsize >= 4
        return few and exact and currents.shape[2] == len(sources[0]) + len(sources[1])

    def backward_by_currents(
        self, grad: Tensor, x: Tensor, currents: Tensor, connection: Connection, input_too: bool, *sources: Tensor
    ) -> Gradients:
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
