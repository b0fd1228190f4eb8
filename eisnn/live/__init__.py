"""A network that watches a stream of events, one time step at a time, with its membrane state carried over."""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from eisnn.data.events import EventAugmentation, Events
from eisnn.data.events.frames import FrameSettings, batch_of
from eisnn.data.events.stream import from_pipe, windows
from eisnn.models import SpikingNetwork

__all__ = ["Step", "from_pipe", "watch", "windows"]


@dataclass(frozen=True, eq=False)
class Step:
    """What a network makes of one window.

    Attributes:
        events: of the window.
        frame: float32 [2, H, W], what the network saw.
        logits: [classes], of this time step.
        mean: [classes], mean of the logits of the last T steps, fewer at the beginning: after the first T steps what
            the network gives for them as one sequence.
        seconds: from the whole window to its logits, on the device where the network is.
    """

    events: Events
    frame: Tensor
    logits: Tensor
    mean: Tensor
    seconds: float

    @property
    def rate(self) -> float:
        """Events a second that the network could keep up with."""
        return len(self.events) / self.seconds


def watch(
    model: SpikingNetwork,
    stream: Iterable[Events],
    *,
    size: int | None = None,
    settings: FrameSettings = FrameSettings(),  # noqa: B008 - frozen
) -> Iterator[Step]:
    """Feeds windows of a stream to a network, each as one time step.

    The state of all neurons is carried from one step to the next and begins at 0. A network that has parameters for
    each time step (BNTT, TEBN, TAB) goes no further than its T.

    Args:
        model: trained; it is not changed.
        stream: windows, such as `windows(events, 30_000)` gives them, all of one sensor.
        size: height and width of the frames as in training, pixels; None keeps the sensor's.
        settings: how frames change their size, as in training.
    """
    stepper = deepcopy(model).eval()
    stepper.time_steps = 1
    parameter = next(stepper.parameters())
    state: list[Any] | None = None
    recent: deque[Tensor] = deque(maxlen=model.answer_steps or model.time_steps)
    for events in stream:
        start = time.perf_counter()
        with torch.inference_mode():
            batch = batch_of([events], 1, settings).to(parameter.device)
            frame = EventAugmentation().apply(batch, {}, size).to(parameter.dtype)
            logits, state = stepper(frame, state=state, return_state=True)
            logits = logits[0]
            recent.append(logits)
            mean = torch.stack(tuple(recent)).mean(0)
        if parameter.is_cuda:
            torch.cuda.synchronize(parameter.device)
        yield Step(events, frame[0, 0], logits, mean, time.perf_counter() - start)
