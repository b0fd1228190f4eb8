"""What every kind of augmentation is: settings, random numbers for an epoch, and a pure function of a batch."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict
from torch import Generator, Tensor

from .mixing import Mixture


class RandomTransform(BaseModel):
    """Settings of what is done at random to the samples of a split; with the defaults, nothing.

    The random numbers of an epoch are drawn first and on the CPU (`draw`), then applied batch by batch (`apply`): what
    a sample becomes depends on its own numbers, not on the batch, the device or the process.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    def check(self, shape: Sequence[int], size: int | None) -> None:
        """Raises `DataError` if samples of `shape` cannot be brought to `size`; called before the first epoch."""

    def draw(self, n: int, shape: Sequence[int], generator: Generator) -> dict[str, Tensor]:
        """Draws all random numbers for `n` samples of `shape`.

        Returns:
            CPU tensors with first axis n, to be indexed by sample and given to `apply`.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no draw()")

    def apply(self, pixels: Any, draws: dict[str, Tensor], size: int | None) -> Tensor:
        """Makes a batch, up to mixing.

        Args:
            pixels: B stored samples, as the split gives them.
            draws: of `draw`, the entries of these B samples, on the device of `pixels`.
            size: height and width of the result in pixels; None keeps those of the samples.

        Returns:
            What a network takes, float32: the B samples lie along the split's `batch_axis`.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no apply()")

    @property
    def mixes(self) -> bool:
        """Whether samples are made of two."""
        return False

    def mix(self, inputs: Tensor, labels: Tensor, draws: dict[str, Tensor]) -> tuple[Tensor, Mixture]:
        """Mixes the samples of a whole batch with each other, after `apply`, if it `mixes`."""
        raise NotImplementedError(f"{type(self).__name__} defines no mix()")
