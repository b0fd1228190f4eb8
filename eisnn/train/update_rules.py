"""SGD with momentum whose groups may turn the momentum into another kind of step: multiplicative, or orthogonalised."""

from collections.abc import Callable, Iterable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from eisnn.ops.layout import from_rows, laid_out_like, weight_rows

# Newton-Schulz: x <- a x + b (x x^T) x + c (x x^T)^2 x moves all singular values in (0, 1] to about 1 in few steps.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
LYING = 1.5  # times as wide as high: from there on the iteration on the gram takes fewer operations
LEAST_SIDE = 64  # smaller matrices share a batch with those of this size


def orthogonalize(matrix: Tensor) -> Tensor:
    """The matrix with its singular values moved to 0.7 .. 1.2: nearly `U V^T` of `matrix = U S V^T`.

    Computed in the dtype of `matrix`, but on CUDA in bfloat16 where that is float32, as in Muon: many times as fast.

    Args:
        matrix: `[n, d]`, or several `[k, n, d]`; a factor of one, or zero, changes nothing: zero stays zero.
    Source: the quintic Newton-Schulz iteration of Muon (Jordan et al. 2024).
    """
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.mT if tall else matrix
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    if x.is_cuda and x.dtype == torch.float32:
        x = x.bfloat16()
    by_gram = x.dtype != torch.bfloat16 and x.shape[-1] > LYING * x.shape[-2]
    x = _iterate_on_gram(x) if by_gram else _iterate(x)
    return (x.mT if tall else x).to(matrix.dtype)


def operations(shape: Sequence[int]) -> float:
    """How many operations `orthogonalize` takes for the rows of a weight of this shape, in float32 on a CPU."""
    n, d = sorted((shape[0], prod(shape[1:])))
    return min(20 * n**2 * d + 10 * n**3, 4 * n**2 * d + 34 * n**3)


def _iterate(x: Tensor) -> Tensor:
    """The iteration, product by product: 20 n²d + 10 n³ operations for `[n, d]`."""
    a, b, c = COEFFICIENTS
    multiply = torch.addmm if x.ndim == 2 else torch.baddbmm
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = multiply(x, multiply(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _iterate_on_gram(x: Tensor) -> Tensor:
    """The same from `x x^T` alone, with which all its factors commute: 4 n²d + 34 n³ operations.

    The factor of an iteration is `p(G) = a + b G + c G²`; it makes `p(G) x` of x, and so `p(G) G p(G)` of its gram.
    bfloat16 is not exact enough for it: it would lose the singular values below a tenth of the largest.
    """
    gram = x @ x.mT
    turned = factor = _factor(gram)
    for _ in range(ITERATIONS - 1):
        gram = factor @ gram @ factor
        factor = _factor(gram)
        turned = factor @ turned
    return turned @ x


def _factor(gram: Tensor) -> Tensor:
    """`p(G)`."""
    a, b, c = COEFFICIENTS
    factor = (torch.addmm if gram.ndim == 2 else torch.baddbmm)(gram, gram, gram, beta=b, alpha=c)
    factor.diagonal(dim1=-2, dim2=-1).add_(a)
    return factor


def _additive(weights: list[Tensor], momenta: list[Tensor], lr: float | Tensor) -> None:
    if isinstance(lr, Tensor):
        torch._foreach_sub_(weights, torch._foreach_mul(momenta, lr))
    else:
        torch._foreach_add_(weights, momenta, alpha=-lr)


def _exponentiated(weights: list[Tensor], momenta: list[Tensor], lr: float | Tensor) -> None:
    for w, momentum in zip(weights, momenta, strict=True):
        w.mul_((-lr * w.sign() * momentum).exp_())


def _orthogonal(weights: list[Tensor], momenta: list[Tensor], lr: float | Tensor) -> None:
    rows = [weight_rows(laid_out_like(m, w)) for m, w in zip(momenta, weights, strict=True)]
    for together in _batches(rows):
        steps = _orthogonalize_all([rows[k] for k in together])
        for k, step in zip(together, steps, strict=True):
            n, d = rows[k].shape
            step, scale = from_rows(step, weights[k]), max(1.0, n / d) ** 0.5
            if isinstance(lr, Tensor):
                weights[k].addcmul_(step, lr, value=-scale)
            else:
                weights[k].sub_(step, alpha=lr * scale)


def _batches(matrices: list[Tensor]) -> Iterable[list[int]]:
    """Indices of matrices that are orthogonalised together: on a GPU one product of many matrices takes little longer
    than one of one. On a CPU each is alone."""
    if not matrices[0].is_cuda:
        return ([k] for k in range(len(matrices)))
    alike: dict[int, list[int]] = {}
    for k, matrix in enumerate(matrices):
        alike.setdefault(max(LEAST_SIDE, 1 << (min(matrix.shape) - 1).bit_length()), []).append(k)
    return alike.values()


def _orthogonalize_all(matrices: list[Tensor]) -> list[Tensor]:
    """`orthogonalize` of each: of several at once by one batch, lying down, with zeros around the smaller ones, which
    change no singular value."""
    if len(matrices) == 1:
        return [orthogonalize(matrices[0])]
    lying = [m if m.shape[0] <= m.shape[1] else m.T for m in matrices]
    batch = lying[0].new_zeros(len(lying), *(max(m.shape[side] for m in lying) for side in (0, 1)))
    for room, m in zip(batch, lying, strict=True):
        room[: m.shape[0], : m.shape[1]] = m
    found = [x[: m.shape[0], : m.shape[1]] for x, m in zip(orthogonalize(batch), lying, strict=True)]
    return [x if m.shape[0] <= m.shape[1] else x.T for x, m in zip(found, matrices, strict=True)]


RULES: dict[str, Callable[[list[Tensor], list[Tensor], float | Tensor], None]] = {
    "additive": _additive,
    "exponentiated": _exponentiated,
    "orthogonal": _orthogonal,
}


class RuledSGD(torch.optim.Optimizer):
    """`m <- momentum m + dL/dw + weight_decay w`, and then the step of the group's `rule`.

        additive       w <- w - lr m                            SGD
        exponentiated  w <- w exp(-lr sign(w) m)                exponentiated gradient: a step in log |w|; signs stay
        orthogonal     w <- w - lr sqrt(max(1, n/d)) O(m)       Muon without Nesterov; `w` as a matrix `[n, d]`

    Args:
        params: groups with a key "rule", one of the three; "orthogonal" takes parameters of two or more axes.
        lr: learning rate; for "exponentiated" the relative change at a momentum of 1. A tensor `[]` may change between
            replays of a step that is recorded as a CUDA graph.
        momentum: in [0, 1).
        weight_decay: coupled, as SGD's: a part of the momentum, and so turned with it by the rule.
        decoupled: `w <- (1 - lr weight_decay) w` before the step instead, as AdamW and Muon have it.
    Raises: ValueError for an unknown rule.
    Sources: Kivinen and Warmuth 1997, Cornford et al. 2024 (exponentiated gradient); Jordan et al. 2024 (Muon).
    """

    def __init__(
        self, params: Any, lr: float | Tensor, momentum: float = 0.0, weight_decay: float = 0.0, decoupled: bool = False
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "decoupled": decoupled}
        super().__init__(params, {**defaults, "rule": "additive"})
        for group in self.param_groups:
            if group["rule"] not in RULES:
                raise ValueError(f"unknown update rule {group['rule']!r}; known: {', '.join(RULES)}")

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step; with `closure` (which computes the gradients) the loss that it returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [w for w in group["params"] if w.grad is not None]
            if not weights:
                continue
            decay = group["weight_decay"]
            gradients = [w.grad for w in weights]
            if not group["decoupled"]:
                gradients = list(torch._foreach_add(gradients, weights, alpha=decay))
            elif decay:
                torch._foreach_mul_(weights, 1 - group["lr"] * decay)
            momenta = self._momenta(weights, gradients, group) if group["momentum"] else gradients
            RULES[group["rule"]](weights, momenta, group["lr"])
        return loss

    def _momenta(self, weights: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """The momenta of `weights` after these gradients, decay among them where it is coupled."""
        moving = [k for k, w in enumerate(weights) if "momentum_buffer" in self.state[w]]
        if moving:
            momenta = [self.state[weights[k]]["momentum_buffer"] for k in moving]
            torch._foreach_mul_(momenta, group["momentum"])
            torch._foreach_add_(momenta, [gradients[k] for k in moving])
        for w, gradient in zip(weights, gradients, strict=True):
            if "momentum_buffer" not in self.state[w]:
                self.state[w]["momentum_buffer"] = gradient.clone() if group["decoupled"] else gradient
        return [self.state[w]["momentum_buffer"] for w in weights]
