"""What all models share: time, state and the average of the logits over T."""

from math import inf
from numbers import Real
from typing import Any

from torch import Tensor, nn

from eisnn.functional.checks import check_int
from eisnn.nn import layers_of
from eisnn.nn.layer import assert_values, check_floating


class Carry:
    """Hands every layer its state from before the sequence and collects the states after it, in execution order.

    Args:
        states: as returned by an earlier call of the model; None starts every layer at 0.
        collect: whether states are wanted.
    """

    def __init__(self, states: list[Any] | None, collect: bool) -> None:
        if states is not None and not isinstance(states, list | tuple):
            raise ValueError(f"state must be the list that this model returned, got {type(states).__name__}")
        self._states, self._used = states, 0
        self.collected: list[Any] | None = [] if collect else None

    def __call__(self, layer: nn.Module, x: Tensor, time_steps: int) -> Tensor:
        state = None
        if self._states is not None:
            if self._used == len(self._states):
                raise ValueError(
                    f"state holds {self._used} entries, fewer than the model has layers; pass what this model returned"
                )
            state = self._states[self._used]
            self._used += 1
        if state is None and self.collected is None:
            return layer(x, time_steps)
        x, state = layer(x, time_steps, state=state, return_state=True)
        if self.collected is not None:
            self.collected.append(state)
        return x

    def check_all_used(self) -> None:
        """Raise ValueError if more states were given than layers were called."""
        if self._states is not None and self._used < len(self._states):
            raise ValueError(
                f"state holds {len(self._states)} entries, but the model has {self._used} layers that keep one; pass "
                "what this model returned"
            )


class SpikingNetwork(nn.Module):
    """Base of the models: `features` maps a sequence to `[T, B, F]`, `readout` to logits.

    Args:
        in_channels: of the images or event frames.
        num_classes: of the readout.
        time_steps: T, >= 1.
    """

    min_size = 1

    def __init__(self, in_channels: int, num_classes: int, time_steps: int) -> None:
        super().__init__()
        for name, value in [("in_channels", in_channels), ("num_classes", num_classes), ("time_steps", time_steps)]:
            check_int(type(self).__name__, name, value)
        self.in_channels, self.num_classes, self.time_steps = in_channels, num_classes, time_steps
        self.answer_steps: int | None = None  # of the last steps, over which logits are averaged; None is all T
        self.readout: nn.Module

    def features(self, x: Tensor, carry: Carry) -> Tensor:
        """`[T or 1, B, C, H, W]` -> `[T, B, F]`."""
        raise AttributeError(f"{type(self).__name__} defines no features()")

    def forward(
        self, x: Tensor, state: list[Any] | None = None, return_state: bool = False, per_step: bool = False
    ) -> Any:
        """Classify images or event sequences.

        Args:
            x: static images `[B, C, H, W]` (shown at each of the T steps), or a sequence `[T, B, C, H, W]`; values
                >= 0 (pixels in [0, 1], event counts). Input that is NaN or infinite, or negative in a network with E-I
                circuits, fails an asynchronous assertion.
            state: membrane states from an earlier call, for streams: the list as it was returned, for a batch of the
                same size.
            return_state: also return the states after the last step.
            per_step: logits of each step instead of their mean.
        Returns: logits `[B, num_classes]` (`[T, B, num_classes]` with `per_step`), or (logits, state); averaged over T,
            or over the last `answer_steps` of it.
        Raises: ValueError for a wrong shape of input or state; TypeError for images that are not floating-point.
        """
        x = self._as_sequence(x)
        carry = Carry(state, return_state)
        features = self.features(x, carry)
        carry.check_all_used()
        logits = self.readout(features, self.time_steps)
        self._assert_values(x)  # last, so that E-I Init comes first and names the layer
        logits = logits.expand(self.time_steps, -1, -1) if per_step else last_steps(logits, self.answer_steps).mean(0)
        return (logits, carry.collected) if return_state else logits

    def _assert_values(self, x: Tensor) -> None:
        """Asynchronous: the host does not wait for the device. NaN fails both comparisons."""
        smallest, largest = x.detach().aminmax()
        if any(layer.non_negative for layer in layers_of(self).values()):
            assert_values((smallest >= 0) & (largest < inf), "the input of an E-I network must be >= 0 and finite")
        else:
            assert_values((smallest > -inf) & (largest < inf), "the input of a network must be finite")

    def _as_sequence(self, x: Tensor) -> Tensor:
        check_floating(x, type(self).__name__)
        if x.ndim not in (4, 5):
            raise ValueError(
                f"the input must be images [B, C, H, W] or a sequence [T, B, C, H, W], got shape {list(x.shape)}"
            )
        if x.numel() == 0:
            raise ValueError(f"the input must hold at least one image, got shape {list(x.shape)}")
        if x.ndim == 5 and x.shape[0] != self.time_steps:
            raise ValueError(
                f"a sequence must be [T, B, C, H, W] with T = time_steps = {self.time_steps}, got shape "
                f"{list(x.shape)} (is it [B, T, ...]?)"
            )
        if x.shape[-3] != self.in_channels:
            raise ValueError(f"this model has {self.in_channels} input channels, got {x.shape[-3]} ({list(x.shape)})")
        if min(x.shape[-2:]) < self.min_size:
            raise ValueError(
                f"this model needs images of at least {self.min_size}x{self.min_size} pixels, got "
                f"{x.shape[-2]}x{x.shape[-1]}; pad or resize them (eisnn.data.load(..., size={self.min_size}))"
            )
        return x if x.ndim == 5 else x[None]


def last_steps(logits: Tensor, steps: int | None) -> Tensor:
    """The last `steps` of `logits` `[T, B, classes]`, all of them for None: those that an answer is made of."""
    return logits if steps is None else logits[-steps:]


def scaled(neurons: int, width: float) -> int:
    """`neurons` of a layer times the `width` of its model, at least 1."""
    if not (isinstance(width, Real) and 0 < width < inf):
        raise ValueError(f"width must be a finite number > 0, got {width!r}")
    return max(1, round(neurons * width))


def global_average(x: Tensor) -> Tensor:
    """Mean over positions: `[T, B, C, H, W]` -> `[T, B, C]`."""
    return x.mean((-2, -1))
