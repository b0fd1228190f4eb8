"""Running sums of loss, accuracy and firing rate; they stay on the device until someone reads them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from eisnn.nn import layers_of


class Meter:
    """Sums over images: cross-entropy, correct answers, images; and over those of measured steps: rates, images."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(5, dtype=torch.float64, device=device)

    def update(self, logits: Tensor, labels: Tensor, loss: Tensor, rate: Tensor | None) -> None:
        """Add one batch: `logits` `[B, classes]`, `labels` `[B]`, its mean `loss` and, if measured, its firing rate."""
        n = labels.shape[0]
        self.sums[0] += loss.detach().double() * n
        self.sums[1] += (logits.detach().argmax(-1) == labels).sum()
        self.sums[2] += n
        if rate is not None:
            self.sums[3] += rate * n
            self.sums[4] += n

    def read(self, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Means, over all processes through `reduce` (a sum): loss, accuracy in %, firing rate in spikes a step."""
        loss, correct, images, rate, measured = reduce(self.sums.clone()).tolist()
        return {
            "loss": loss / max(images, 1),
            "accuracy": 100 * correct / max(images, 1),
            "firing_rate": rate / max(measured, 1),
        }


class FiringRate:
    """Mean firing rate of all spiking layers, spikes per neuron and time step, measured while `active`; ReLU units have
    none."""

    def __init__(self, model: nn.Module) -> None:
        self.active = False
        self._rates: list[Tensor] = []
        for layer in layers_of(model).values():
            if layer.neuron is not None and not layer.rate_coded:
                layer.watched.register_forward_hook(self._record)

    def _record(self, module: nn.Module, args: object, output: Tensor | tuple[Tensor, object]) -> None:
        if self.active:
            spikes = output[0] if isinstance(output, tuple) else output
            self._rates.append(spikes.detach().abs().mean(dtype=torch.float32))

    @contextmanager
    def measure(self, active: bool) -> Iterator[None]:
        self.active = active
        try:
            yield
        finally:
            self.active = False

    def take(self) -> Tensor | None:
        """Mean over the layers of the passes since the last call; None if nothing was measured."""
        rates, self._rates = self._rates, []
        return torch.stack(rates).mean() if rates else None
