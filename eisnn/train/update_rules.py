"""SGD with momentum whose groups may turn the momentum into another kind of step: multiplicative, or orthogonalised."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# Newton-Schulz: x <- a x + b (x x^T) x + c (x x^T)^2 x moves all singular values in (0, 1] to about 1 in few steps.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def orthogonalize(matrix: Tensor) -> Tensor:
    """The matrix with its singular values moved to 0.7 .. 1.2: nearly `U V^T` of `matrix = U S V^T`.

    Args:
        matrix: `[n, d]`; a factor of it, or zero, changes nothing: zero stays zero.
    Source: the quintic Newton-Schulz iteration of Muon (Jordan et al. 2024).
    """
    a, b, c = COEFFICIENTS
    x = matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / x.norm().clamp_min(torch.finfo(x.dtype).tiny)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if matrix.shape[0] > matrix.shape[1] else x


def _additive(w: Tensor, momentum: Tensor, lr: float) -> None:
    w.sub_(momentum, alpha=lr)


def _exponentiated(w: Tensor, momentum: Tensor, lr: float) -> None:
    w.mul_((-lr * w.sign() * momentum).exp_())


def _orthogonal(w: Tensor, momentum: Tensor, lr: float) -> None:
    step = orthogonalize(momentum.flatten(1))
    n, d = step.shape
    w.sub_(step.view_as(w), alpha=lr * max(1.0, n / d) ** 0.5)


RULES: dict[str, Callable[[Tensor, Tensor, float], None]] = {
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
        lr: learning rate; for "exponentiated" the relative change at a momentum of 1.
        momentum: in [0, 1).
        weight_decay: coupled, as SGD's.
    Raises: ValueError for an unknown rule.
    Sources: Kivinen and Warmuth 1997, Cornford et al. 2024 (exponentiated gradient); Jordan et al. 2024 (Muon).
    """

    def __init__(self, params: Any, lr: float, momentum: float = 0.0, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "rule": "additive"})
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
            for w in group["params"]:
                if w.grad is None:
                    continue
                gradient = w.grad.add(w, alpha=group["weight_decay"])
                state = self.state[w]
                if "momentum_buffer" in state:
                    state["momentum_buffer"].mul_(group["momentum"]).add_(gradient)
                else:
                    state["momentum_buffer"] = gradient
                RULES[group["rule"]](w, state["momentum_buffer"], group["lr"])
        return loss
