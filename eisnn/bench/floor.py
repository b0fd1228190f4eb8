"""What no network can do without: its bare convolutions."""

import copy
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from eisnn.bench.subjects import Subject, Timed
from eisnn.nn import SpikingLayer, layers_of


class Floor(Timed):
    """The convolutions of a network alone, forward and backward; of a circuit the one with the stacked kernel and, by a
    stock operator, the lateral 1x1."""

    def __init__(self, subject: Subject) -> None:
        self.device = subject.device
        self.calls: list[tuple[Tensor, Tensor, Tensor | None, Any]] = []

        def hook(layer: SpikingLayer, args: Any) -> None:
            x = args[0].detach().to(torch.bfloat16 if subject.precision == "bf16" else torch.float32)
            x = x.flatten(0, 1).clone().requires_grad_(len(self.calls) > 0)  # the images need no gradient
            with torch.no_grad():
                paths = copy.deepcopy(layer).folded().pathways()
            if paths and paths[0].weight.ndim == 4:
                forward, *lateral = paths
                weights = [p.weight.detach().to(x.dtype, copy=True).requires_grad_() for p in (forward, *lateral)]
                self.calls.append((x, weights[0], weights[1] if lateral else None, forward.connection))

        layers = [layer for layer in layers_of(subject.model).values() if layer.hidden]
        handles = [m.register_forward_pre_hook(hook) for m in layers]
        subject.forward()
        for handle in handles:
            handle.remove()

    def launch(self) -> None:
        """All forward passes, then all backward passes."""
        outputs = [self._outputs(*call) for call in self.calls]
        for y in outputs:
            torch.autograd.backward(y, [torch.ones_like(part) for part in y])
        for x, kernel, lateral, _ in self.calls:
            x.grad = kernel.grad = None
            if lateral is not None:
                lateral.grad = None

    def forward(self) -> None:
        with torch.no_grad():
            for call in self.calls:
                self._outputs(*call)
        self._wait()

    @staticmethod
    def _outputs(x: Tensor, kernel: Tensor, lateral: Tensor | None, geometry: Any) -> list[Tensor]:
        y = geometry.feedforward(x[None], kernel)[0]
        if lateral is None:
            return [y]
        n_e = lateral.shape[0]
        return [y[:, :n_e], F.conv2d(y[:, n_e:], lateral[:, :, None, None])]
