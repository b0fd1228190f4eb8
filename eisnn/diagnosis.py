"""`eisnn.check`: what is wrong with a network and a batch, in one call."""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from eisnn.nn import SpikingLayer, dale_violations, layers_of, uninitialized

BRIGHT = 10  # a pixel above it is no pixel in [0, 1], as all data of this package are
SCALE = 1.75  # how many times as strong or weak as at E-I Init the batch may be
ALIKE = 0.5  # neighbours along the second axis that differ by less than this part of those along the first are frames
DWARFED = 0.95  # of the divisive current: a constant part above it says that the input is much weaker than at E-I Init


@dataclass(frozen=True)
class Diagnosis:
    """What `check` found.

    Attributes:
        findings: one sentence for each fault, with what would be right; empty if nothing is wrong.
        activity: by hidden layer, mean firing rate in spikes a neuron and step (of units without spikes the mean
            output); empty if the network could not be run.
    """

    findings: tuple[str, ...]
    activity: dict[str, float]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def __str__(self) -> str:
        lines = [f"- {finding}" for finding in self.findings] or ["nothing wrong was found"]
        return "\n".join([*lines, *(f"  {name or 'layer'}: {rate:.4f}" for name, rate in self.activity.items())])


@torch.no_grad()
def check(model: nn.Module, batch: Tensor, *, images: int | None = None) -> Diagnosis:
    """Look for what trains or answers wrongly without an error: wrong axes, negative or non-finite input, weights of
    the wrong sign or not finite, silent and saturated layers, an input of another scale than at E-I Init.

    One forward pass in evaluation mode, without gradients. It costs a few times a forward pass: call it when something
    is odd, or once before training. Nothing of the model is changed.

    Args:
        model: any module with spiking layers in it.
        batch: what `model(batch)` takes.
        images: how many images (or sequences) the batch holds, the answers that are expected. Where it is None, or T
            by chance, mixed axes are seen only if frames change slowly: then neighbours along the second axis are
            alike. To be sure, give it, and a batch of another size than T.
    Returns: a `Diagnosis`; `print` it.
    Raises: TypeError for a batch that is no tensor; ValueError for a model without spiking layers.
    """
    if not isinstance(batch, Tensor):
        raise TypeError(f"check takes the tensor that model(batch) takes, got {type(batch).__name__}")
    layers = layers_of(model)
    if not layers:
        raise ValueError(f"{type(model).__name__} has no spiking layer to check")
    findings = [*_of_weights(model), *_of_values("the batch", batch, layers)]
    if batch.ndim == 4 and batch.numel() and float(batch.amax()) > BRIGHT:
        findings.append(
            f"the batch has pixels up to {float(batch.amax()):g}: networks of this package are started and trained on "
            "pixels in [0, 1]; divide by 255, unless this one was not"
        )
    if names := uninitialized(model):
        return Diagnosis(
            (*findings, f"{', '.join(names)} was never initialised: call eisnn.ei_init_(model, batch)"), {}
        )
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    modes = {module: module.training for module in model.modules()}
    try:
        with ExitStack() as hooks:
            for name, layer in layers.items():
                if layer.hidden:
                    hooks.enter_context(layer.watched.register_forward_hook(_keep(seen, name), with_kwargs=True))
            out = model.eval()(batch)
    except (ValueError, TypeError, RuntimeError) as error:
        return Diagnosis((*findings, f"the network cannot be run: {error}"), {})
    finally:
        for module, training in modes.items():
            module.training = training
    for name, (x, spikes) in seen.items():
        findings += _of_activity(name or type(layers[name]).__name__, layers[name], x, spikes)
        if x.untyped_storage().data_ptr() == batch.untyped_storage().data_ptr():
            findings += _of_scale(name or type(layers[name]).__name__, layers[name], x)
    if images is not None and isinstance(out, Tensor) and images not in _answers(out, batch):
        findings.append(
            f"{images} images give an output of shape {list(out.shape)}: the axes are mixed up. Layers take sequences "
            f"[T, B, ...], time first; the batch has shape {list(batch.shape)} (is it [B, T, ...]?)"
        )
    elif _looks_batch_first(batch):
        findings.append(
            f"the batch of shape {list(batch.shape)} changes less along its second axis than along its first, as "
            "sequences [B, T, ...] do: layers take [T, B, ...], time first; give batch.transpose(0, 1)"
        )
    if isinstance(out, Tensor) and not bool(out.isfinite().all()):
        findings.append("the output is not finite")
    return Diagnosis(tuple(findings), {name: float(spikes.abs().mean()) for name, (_, spikes) in seen.items()})


def _answers(out: Tensor, batch: Tensor) -> list[int]:
    """How many answers there may be in an output, `[B, classes]`, or `[T, B, classes]` where the mean over time stands
    outside of the model."""
    if out.ndim < 3:
        return list(out.shape[:1])
    kept = batch.ndim in (3, 5) and out.shape[:2] == batch.shape[:2]  # the axes of a sequence: time is the first
    return [out.shape[1]] if kept else list(out.shape[:2])


def _looks_batch_first(batch: Tensor) -> bool:
    """Whether a sequence seems to have its images along the first axis: frames of one recording are more alike than
    those of different ones."""
    if batch.ndim not in (3, 5) or min(batch.shape[:2]) < 2 or not batch.is_floating_point():
        return False
    first, second = (float(batch.diff(dim=axis).abs().mean()) for axis in (0, 1))
    return second < ALIKE * first


def _keep(seen: dict[str, tuple[Tensor, Tensor]], name: str) -> Any:
    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        seen[name] = args[0] if args else kwargs["x"], output[0] if isinstance(output, tuple) else output

    return hook


def _of_weights(model: nn.Module) -> list[str]:
    try:
        found = [
            f"{name} has {count} negative or NaN entries, which Dale's law forbids: call eisnn.enforce_dale(optimizer, "
            "model), or load other weights"
            for name, count in dale_violations(model).items()
        ]
    except ValueError as error:  # reparametrized
        found = [str(error)]
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point() and (count := int((~tensor.isfinite()).sum())):
            found.append(
                f"{name} has {count} entries that are not finite: load other weights, or lower the learning rate"
            )
    return found


def _of_values(what: str, x: Tensor, layers: dict[str, SpikingLayer]) -> list[str]:
    found = []
    if not bool(x.isfinite().all()):
        found.append(f"{what} has {int((~x.isfinite()).sum())} values that are not finite")
    if bool((x < 0).any()) and any(layer.non_negative for layer in layers.values()):
        found.append(
            f"{what} has {int((x < 0).sum())} negative values, which E-I circuits do not take: give pixels in [0, 1] "
            "or counts, without subtracting a mean"
        )
    tiny = torch.finfo(x.dtype).tiny if x.is_floating_point() else 0
    if x.numel() and 0 < float(x.abs().amax()) < tiny:
        found.append(f"{what} holds nothing above {tiny:.1e}: it was scaled down too far")
    return found


def _of_scale(name: str, layer: SpikingLayer, x: Tensor) -> list[str]:
    start = layer.start_mean
    if start is None or 1 / SCALE <= (times := float(x.mean()) / start) <= SCALE:
        return []
    return [
        f"the input of {name} is {times:.2g} times as strong as at E-I Init (mean {float(x.mean()):.3g}, then "
        f"{start:.3g}): scale it as then, or call eisnn.ei_init_(model, batch, redraw=True) before training"
    ]


def _of_activity(name: str, layer: SpikingLayer, x: Tensor, spikes: Tensor) -> list[str]:
    found = []
    if layer.watched is layer:
        found += _of_values(f"the input of {name}", x, {name: layer})
        measured = layer.measure(x, spikes) if x.isfinite().all() else {}
        synapses = layer.synapses()
        if synapses is not None and synapses.sigma is not None and "I_div" in measured:
            share = float(synapses.sigma.mean() / measured["I_div"].mean())
            if share > DWARFED:
                found.append(
                    f"{name} divides by its constant alone ({share:.1%} of the divisive current): its input is much "
                    "weaker than at E-I Init; scale it as then (pixels in [0, 1] there and here)"
                )
    if layer.neuron is None or layer.rate_coded:
        return found
    if not bool(spikes.any()):
        found.append(f"{name} is silent: none of its neurons fires for this batch")
    elif bool((spikes != 0).all()):
        found.append(f"{name} is saturated: every neuron fires at every step")
    return found
