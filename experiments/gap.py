"""Where the gap between -plus and its batch-norm twin with the same optimizer lies: from the one to the other in steps.

The twin loses one thing after the other until it is nearly -plus, and -plus gets back what the twin has. The steps are
not part of the package: they take the place of what a layer does. VGG-8 of quarter width, five epochs of 10,000
images, orthogonalised updates, judged on 5,000 images held out.

    python experiments/gap.py --data-path CIFAR10
    python experiments/gap.py --data-path CIFAR10 --table --output experiments/results/gap --seeds 3   # those committed
"""

from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from screening import variants
from study import parser, run_script, study
from telling import Row
from torch import Tensor
from torch.nn import functional as F

import eisnn.functional as EF
from eisnn.methods.bn import BNLayer
from eisnn.nn import LIF, EILayer
from eisnn.nn.neurons import run_neuron

TWIN, PLUS = "batch norm, orthogonal, 0.02", "plus, 0.02"
NORM = 0.58  # of a neuron's weights, as E-I Init and torch's own have it here
LEAST_CHANNELS = 8  # for a balance tap by tap
# What a twin's layer does otherwise; in -plus, what its circuits lack, or what their currents get besides; or a changed
# option.
STEPS: dict[str, tuple[str, frozenset[str] | dict[str, Any]]] = {
    "twin": (TWIN, frozenset()),
    "twin, weights centred tap by tap and of one norm": (TWIN, frozenset({"centred"})),
    "the same without batch norm": (TWIN, frozenset({"centred", "free"})),
    "the same with division": (TWIN, frozenset({"centred", "free", "divided"})),
    "the same with excitation and constant inhibition": (TWIN, frozenset({"centred", "free", "divided", "dale"})),
    "plus": (PLUS, frozenset()),
    "plus, tightness 3": (PLUS, {"circuit_options": {"tightness": 3.0}}),
    "plus, tightness 10": (PLUS, {"circuit_options": {"tightness": 10.0}}),
    "plus without the norm": (PLUS, frozenset({"no norm"})),
    "plus without the balance": (PLUS, frozenset({"no balance"})),
    "plus with constant division": (PLUS, frozenset({"constant"})),
    "plus, currents centred over the batch": (PLUS, frozenset({"centre"})),
    "plus, currents scaled over the batch": (PLUS, frozenset({"scale"})),
    "plus, currents centred and scaled over the batch": (PLUS, frozenset({"centre", "scale"})),
}


def by_channel(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1)


def kernel(layer: BNLayer, steps: frozenset[str]) -> Tensor:
    """The weights of a layer of the twin `[n, C, kh, kw]`."""
    weight: Tensor = layer.projection.weight
    axes = (1,) if weight.shape[1] >= LEAST_CHANNELS else (1, 2, 3)
    if "dale" in steps:
        with torch.no_grad():
            if not hasattr(layer, "drawn"):
                layer.drawn = True
                weight.exponential_().mul_(NORM / weight[0].numel() ** 0.5)
            weight.clamp_(min=0)
        weight = weight / weight.mean(axes, keepdim=True).clamp_min(1e-5) * (NORM / weight[0].numel() ** 0.5)
    if "centred" in steps:
        weight = weight - weight.mean(axes, keepdim=True)
        weight = weight * (NORM / weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1))
    return weight


def once(layer: Any, name: str, measured: Tensor) -> float:
    """`measured` at the first training batch."""
    if not hasattr(layer, name) and layer.training:
        setattr(layer, name, float(measured.detach()))
    return getattr(layer, name, 1.0)


def stepped(steps: frozenset[str]) -> Callable[..., Any]:
    """What a layer of the twin does with `steps`."""

    def respond(self: BNLayer, x: Tensor, time_steps: int | None, state: Any, return_state: bool) -> Any:
        conv = self.projection
        geometry = {"stride": conv.stride, "padding": conv.padding}
        maps = x.flatten(0, 1)
        current = F.conv2d(maps, kernel(self, steps), **geometry)
        if "divided" in steps:  # by the mean rate around, with semisaturation, as in -plus
            around = F.conv2d(maps, torch.full_like(conv.weight[:1], 1 / conv.weight[0].numel()), **geometry)
            current = current / (0.7 * around / once(self, "rate", around.mean()) + 0.3)
        if "free" in steps:
            scaled = current / once(self, "std", current.std())
            current = scaled * by_channel(self.norm.weight) + by_channel(self.norm.bias)
        else:
            current = self.norm(current)
        return run_neuron(self.neuron, current.unflatten(0, x.shape[:2]), time_steps, state, return_state)

    return respond


def normalized(steps: frozenset[str], ordinary: Callable[..., Any]) -> Callable[..., Any]:
    """What a circuit does whose integrated current is centred or scaled over the batch."""

    def respond(self: EILayer, x: Tensor, time_steps: int | None, state: Any, return_state: bool) -> Any:
        if not isinstance(self.neuron, LIF):  # E-I Init looks
            return ordinary(self, x, time_steps, state, return_state)
        i_e = self.integrated(x)
        seen = vars(self).setdefault("seen", torch.nn.BatchNorm2d(i_e.shape[2], affine=False))  # no part of its state
        seen.train(self.training)
        maps = i_e.flatten(0, 1)
        scaled = seen(maps)
        mean = by_channel(maps.mean((0, 2, 3)) if self.training else seen.running_mean)
        gain, bias = by_channel(self.gain_e), by_channel(self.bias)
        maps = scaled * gain if "scale" in steps else maps - mean
        maps = maps + (bias if "centre" in steps else mean)
        return self.neuron(maps.unflatten(0, i_e.shape[:2]), time_steps, state, return_state=True)

    return respond


def lacking(steps: frozenset[str], ordinary: Callable[..., Any]) -> Callable[..., Any]:
    """What a pooled circuit does without the one norm, the balance, or with what divides at the mean of its first
    batch."""

    def respond(self: EILayer, x: Tensor, time_steps: int | None, state: Any, return_state: bool) -> Any:
        if not isinstance(self.neuron, LIF):  # E-I Init looks
            return ordinary(self, x, time_steps, state, return_state)
        made = self.weights
        raw = ee, ie, ei = self.weight_ee, self.weight_ie, self.weight_ei
        if "no balance" not in steps:
            ee, ie, ei = EF.conserved_weights(*raw, made.total, tapwise=made.tapwise)
        signed = EF.fold(ee, ie, ei)
        if "no norm" not in steps:
            signed = EF.fix_norm(signed, made.row_norm)
        pooled = (ei * self.gain_i * made.gain_unit).mean(0, keepdim=True) @ ie.flatten(1)
        currents = self.connection.feedforward(x, torch.cat([signed, pooled.view(1, *ie.shape[1:])]))
        i_div = currents[:, :, self.n_e :] + EF.per_neuron(made.sigma * made.sigma_unit, currents)
        if "constant" in steps and (self.training or hasattr(self, "first_division")):  # E-I Init does not train
            i_div = 0 * i_div + once(self, "first_division", i_div.mean())  # its gradients are 0, but there
        i_e = EF.per_neuron(self.gain_e, currents) * currents[:, :, : self.n_e] / i_div
        return self.neuron(i_e + EF.per_neuron(self.bias, currents), time_steps, state, return_state=True)

    return respond


def rows() -> list[Row]:
    """Every step, at the same budget."""
    known, made = variants(), []
    for name, (method, steps) in STEPS.items():
        config, within = known[method].changed(hold_out=0.8), None
        if isinstance(steps, dict):
            config = config.changed(**steps)
        elif steps:
            changed = lacking if steps & {"no norm", "no balance", "constant"} else normalized
            layer = BNLayer if method == TWIN else EILayer
            respond = stepped(steps) if method == TWIN else changed(steps, EILayer.respond)
            within = partial(patch.object, layer, "respond", respond)
        made.append(Row(name, config, versus="plus", within=within))
    return made


def main() -> None:
    budget = {"epochs": 5, "evaluate_epochs": 5, "width": 0.25, "batch_size": 64, "test_images": 5000}
    study(rows(), parser(__doc__, **budget).parse_args())


if __name__ == "__main__":
    run_script(main)
