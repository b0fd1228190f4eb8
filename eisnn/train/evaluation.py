"""Accuracy of a model on a split."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from eisnn.data import Loader
from eisnn.nn import NonFiniteActivity
from eisnn.train.loss import cross_entropy
from eisnn.train.metrics import FiringRate, Meter

RATE_STEPS = 10  # the firing rate is measured at every tenth step: it costs a pass over all spikes


def evaluate_loader(
    model: nn.Module,
    loader: Loader,
    rates: FiringRate,
    reduce: Callable[[Tensor], Tensor] = lambda sums: sums,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
    """Loss, accuracy (%) and firing rate of `model` on a split; None if `stop()` came true.

    Raises: NonFiniteActivity on every process if activity overflows on one, after the last batch: all take part in
        what they do together until then.
    """
    model.eval()
    meter, lost = Meter(loader.device), torch.zeros((), device=loader.device)
    with torch.no_grad():
        for step, batch in enumerate(loader.epoch()):
            with rates.measure(step % RATE_STEPS == 0):
                try:
                    logits = model(batch.images)
                except NonFiniteActivity:  # finite weights may be so large that activity is not
                    logits = None
                    lost.fill_(1)
            rate = rates.take()
            if batch.weight > 0 and logits is not None:
                meter.update(logits, batch.labels, cross_entropy(logits, batch.labels), rate)
            if stop():
                return None
    if reduce(lost) > 0:
        raise NonFiniteActivity("what a layer receives in the evaluation is not finite")
    return meter.read(reduce)
