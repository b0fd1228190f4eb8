"""Dale's law: marks, projects and checks the sign constraint. Clamping happens nowhere else.

A module names its constrained parameters in a class attribute `dale_parameters`; everything in it stays >= 0. Where
0 itself will not do, `lower_bounds` says by name how much has to remain.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


def constrained_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Names and parameters of `model` that Dale's law constrains to >= 0.

    Of weights that `torch.nn.utils.prune` masks it is the original: with a mask of 0 and 1 the law holds for both.
    Raises: ValueError for weights that another reparametrization makes, as it may give them any sign; for masks on what
        may not be 0.
    """
    for constrained in _constrained(model):
        yield constrained.name, constrained.parameter


class Constrained(NamedTuple):
    """A parameter that Dale's law constrains: the smallest value it may have, and what multiplies it."""

    name: str
    parameter: nn.Parameter
    bound: float
    mask: Tensor | None


def _constrained(model: nn.Module) -> Iterator[Constrained]:
    for prefix, module in model.named_modules():
        bounds = getattr(module, "lower_bounds", {})
        for own in getattr(module, "dale_parameters", ()):
            if getattr(module, own) is not None:
                stored, bound = _stored_name(module, own, prefix), bounds.get(own, 0.0)
                mask = None if stored == own else module._buffers[f"{own}_mask"]
                if mask is not None and bound:
                    owner = prefix or type(module).__name__
                    raise ValueError(f"{owner}: {own} is masked, but must stay >= {bound}; take its mask away")
                full = f"{prefix}.{stored}" if prefix else stored
                yield Constrained(full, module._parameters[stored], bound, mask)


def _stored_name(module: nn.Module, name: str, owner: str) -> str:
    """Under which name `module` stores the parameter `name`."""
    if name in module._parameters:
        return name
    if f"{name}_orig" in module._parameters and f"{name}_mask" in module._buffers:
        return f"{name}_orig"
    raise ValueError(
        f"{owner or type(module).__name__}: {name} is reparametrized ({type(module).__name__}), which may give it any "
        "sign, so Dale's law cannot be kept; remove the reparametrization (masks of torch.nn.utils.prune are allowed)"
    )


def require_plain(module: nn.Module, owner: str) -> None:
    """Raise ValueError if a parameter that Dale's law constrains is masked or reparametrized: to fill it is not to fill
    what acts."""
    for name in getattr(module, "dale_parameters", ()):
        if getattr(module, name) is not None and _stored_name(module, name, owner) != name:
            raise ValueError(
                f"{owner}: {name} is masked already; prune after ei_init_, which would fill the mask's copy"
            )


def count_violations(values: Tensor) -> int:
    """How many entries are negative or NaN."""
    return int(_violations(values))


def _violations(values: Tensor) -> Tensor:
    return (~(values >= 0)).sum()


def loading_violation(module: nn.Module, state_dict: Mapping[str, Tensor], prefix: str) -> str | None:
    """Why `module` must not load its weights, `prefix` before their names, from `state_dict`; None if it may."""
    for name, *_, mask in _constrained(module):
        for loaded in (name,) if mask is None else (name, f"{name.removesuffix('_orig')}_mask"):
            value = state_dict.get(prefix + loaded)
            if value is not None and (count := count_violations(value)):
                return (
                    f"{prefix}{loaded} violates Dale's law: {count} negative or NaN entries; this layer was left as it "
                    "was"
                )
    return None


def dale_violations(model: nn.Module) -> dict[str, int]:
    """Check Dale's law: `{}`, or how many entries are negative (or NaN) by parameter name; of masked weights, those
    that are so themselves or by their mask."""
    values: dict[str, Tensor] = {}
    for name, parameter, _, mask in _constrained(model):
        # Where one of the two is negative or NaN, so is the smaller one.
        values[name] = parameter.detach() if mask is None else torch.minimum(parameter.detach(), mask)
    if not values:
        return {}
    device = next(iter(values.values())).device
    counts = torch.stack([_violations(value).to(device) for value in values.values()]).tolist()  # one wait for all
    return {name: count for name, count in zip(values, counts, strict=True) if count}


def project_(model: nn.Module) -> None:
    """Clamp all constrained parameters of `model` to >= 0 (to its module's `lower_bounds`), in place."""
    by_bound: dict[float, list[Tensor]] = {}
    for each in _constrained(model):
        by_bound.setdefault(each.bound, []).append(each.parameter)
    with torch.no_grad():
        for bound, parameters in by_bound.items():
            torch._foreach_clamp_min_(parameters, bound)


class NonFiniteGradient(RuntimeError):
    """A gradient, or a parameter itself, is NaN or infinite; no parameter was changed."""


class Enforcement(NamedTuple):
    """Handles of the hooks of `enforce_dale`."""

    hooks: tuple[RemovableHandle, ...]

    def remove(self) -> None:
        """End the enforcement."""
        for hook in self.hooks:
            hook.remove()


def enforce_dale(optimizer: Any, model: nn.Module, *, check_gradients: bool = True) -> Enforcement:
    """Keep Dale's law: after every `optimizer.step()` the constrained parameters of `model` are clamped to >= 0.

    The hooks belong to this optimizer object: `deepcopy` and pickle lose them. Nothing is clamped on a model without
    circuits.

    Args:
        optimizer: a torch optimizer, also inside Lightning Fabric's wrapper.
        model: raw, or wrapped by Fabric or DistributedDataParallel.
        check_gradients: before each step raise NonFiniteGradient if a gradient or a parameter is NaN or infinite, so
            that nothing the optimizer holds is damaged. A spike hides what its current was, so a loss may be finite
            when these are not. On CUDA the check is an asynchronous assertion, which does not wait for the device.
    Returns: a handle; `handle.remove()` ends the enforcement.
    Raises: ValueError if the optimizer does not hold a trainable constrained parameter, or a weight is negative now,
        and for a network that is for inference only; TypeError for other objects, or these two in the wrong order.
    """
    if isinstance(optimizer, nn.Module) or not isinstance(model, nn.Module):
        raise TypeError(
            f"enforce_dale takes (optimizer, model), in this order; got ({type(optimizer).__name__}, "
            f"{type(model).__name__})"
        )
    require_trainable(model)
    optimizer = getattr(optimizer, "optimizer", optimizer)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    missing = [name for name, p in constrained_parameters(model) if p.requires_grad and id(p) not in held]
    if missing:
        raise ValueError(
            f"the optimizer does not hold {len(missing)} of the model's constrained parameters, first {missing[0]}; "
            "give enforce_dale the optimizer that was made from this model's parameters()"
        )
    violations = dale_violations(model)
    if violations:
        name, count = next(iter(violations.items()))
        raise ValueError(f"Dale's law is already violated: {count} negative or NaN entries in {name}; initialise first")

    def check(*_: Any) -> None:
        require_finite(model)

    def clamp(*_: Any) -> None:
        project_(model)

    hooks = [optimizer.register_step_pre_hook(check)] if check_gradients else []
    return Enforcement((*hooks, optimizer.register_step_post_hook(clamp)))


@torch.no_grad()
def all_finite(values: list[Tensor]) -> Tensor:
    """Whether no entry of `values`, which lie on one device, is NaN or infinite: a bool there, for which the host does
    not wait. On a CPU "no" may also mean that a sum of finite entries is infinite."""
    if values[0].is_cuda:  # all in few launches
        return torch.stack(torch._foreach_norm(values, torch.inf)).isfinite().all()
    # A sum is several times as fast as a largest value, and NaN or infinite if a term is.
    sums = [value.sum(dtype=torch.promote_types(value.dtype, torch.float32)).double() for value in values]
    return torch.stack(sums).isfinite().all()


def require_trainable(model: nn.Module) -> None:
    """Raise ValueError for a network with layers that are for inference only, or without anything to train."""
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(
            f"this {type(model).__name__} has no parameter to train: eisnn.fold makes networks for inference only; "
            "train the network that it was made from"
        )
    if names := [name for name, module in model.named_modules() if getattr(module, "inference_only", False)]:
        raise ValueError(
            f"this {type(model).__name__} cannot be trained: {', '.join(names)} is folded, for inference only. Train "
            "the network that it was made from, and call eisnn.fold afterwards"
        )


@torch.no_grad()
def require_finite(model: nn.Module) -> None:
    """Raise NonFiniteGradient, naming a parameter of `model`, if its gradient or itself is NaN or infinite; on CUDA by
    an asynchronous assertion."""
    named: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        if (grad := parameter.grad) is not None and not grad.is_sparse:
            named |= {f"the gradient of {name}": grad, name: parameter}
    by_device: dict[torch.device, list[Tensor]] = {}
    for value in named.values():
        by_device.setdefault(value.device, []).append(value)
    message = "this step was not taken, as a gradient or a parameter is not finite: "
    for device, values in by_device.items():
        finite = all_finite(values)
        if device.type == "cuda":
            torch._assert_async(finite, message + "look at the input with eisnn.check(model, batch)")
        elif not finite:
            wrong = next((name for name, value in named.items() if not bool(value.isfinite().all())), None)
            if wrong is None:  # finite, only the sum is not
                continue
            raise NonFiniteGradient(
                f"{message}{wrong} holds NaN or infinite values. No parameter was changed. Too high a learning rate "
                "does it, or an input or weight that is not finite: eisnn.check(model, batch) says which"
            )
