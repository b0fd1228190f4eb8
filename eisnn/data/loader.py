"""Batches of a split, on the training device; the split lives there or stays where it is."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .augment import Mixture, RandomTransform
from .dataset import Split
from .errors import DataError

SEVERAL = 8  # batches that are augmented at once on a GPU, where launching the kernels takes longer than running them


class Batch(NamedTuple):
    """This process's part of a batch.

    Attributes:
        images: float32, images [b, C, H, W] in [0, 1] or frames of events or trials [T, b, C, H, W] >= 0.
        labels: int64 [b].
        weight: of this part's mean loss, so that the average over processes of weight * mean is the mean over the
            whole batch: 1 where all parts are equal, 0 for the placeholder of a process that got no image.
        mixture: what was mixed into the images, if anything was.
    """

    images: Tensor
    labels: Tensor
    weight: float
    mixture: Mixture | None = None


class Loader:
    """Iterates over a split, shuffled and augmented on the device, the same for any device and number of processes.

    All that is random in an epoch comes from one CPU generator, seeded by `seed` and the epoch alone, before the first
    batch. So a run can resume at any step, and each process takes its slice of each batch without talking to others.

    Args:
        images: the split.
        batch_size: images a step, over all processes together.
        augmentation: of the class that the split names; None only makes floats of the samples.
        shuffle: a new order every epoch.
        seed: of order and augmentation, >= 0.
        size: side of the batches' images in pixels; larger images are resized, None keeps them.
        rank: which process this is.
        world_size: how many there are.
        device: of the batches; None is where the images are.
        resident: move all images to `device` once. Otherwise they stay where they are, in memory or mapped from a file,
            and only each batch is moved, as uint8, while the one before it is in use. The batches are the same.

    Raises:
        DataError: a value out of range, no images, images smaller than `size` (they are padded when loaded), or
            augmentation that is for another kind of data.
    """

    def __init__(
        self,
        images: Split,
        batch_size: int,
        *,
        augmentation: RandomTransform | None = None,
        shuffle: bool = False,
        seed: int = 0,
        size: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str | None = None,
        resident: bool = True,
    ) -> None:
        if len(images) == 0:
            raise DataError("there are no images to load")
        if batch_size < 1:
            raise DataError(f"batch_size is {batch_size}, expected at least 1")
        if not 0 <= rank < world_size:
            raise DataError(f"rank is {rank} and world_size {world_size}, expected 0 <= rank < world_size")
        if seed < 0:
            raise DataError(f"seed is {seed}, expected at least 0")
        augmentation = augmentation or images.augmentation()
        if not isinstance(augmentation, images.augmentation):
            kind, wanted = type(images).__name__, images.augmentation.__name__
            raise DataError(f"augmentation is {augmentation!r}, but that of {kind} is {wanted}")
        augmentation.check(images.sample_shape, size)  # here, not in the middle of the first epoch
        self.device = images.labels.device if device is None else torch.device(device)
        self.resident = resident
        self.images = images.to(self.device) if resident else images
        self.batch_size = batch_size
        self.augmentation = augmentation
        self.shuffle = shuffle
        self.seed = seed
        self.size = size
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        """Steps an epoch; the last, smaller batch counts."""
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        raise TypeError("a Loader gives batches by epoch, which seeds their order: for batch in loader.epoch(k)")

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from step `start` on, exactly those an iteration from 0 would give.

        Raises:
            DataError: `start` is not in 0..len(self), or `epoch` is negative.
        """
        if epoch < 0 or not 0 <= start <= len(self):
            raise DataError(f"epoch is {epoch} and start {start}, expected epoch >= 0 and start in 0..{len(self)}")
        return self._batches(epoch, start)

    def _batches(self, epoch: int, start: int) -> Iterator[Batch]:
        count = len(self.images)
        generator = torch.Generator().manual_seed(_mix(self.seed, epoch))
        order = torch.randperm(count, generator=generator) if self.shuffle else torch.arange(count)
        # Entry k belongs to position k of the epoch, whichever image comes there.
        draws = self.augmentation.draw(count, self.images.sample_shape, generator)
        draws = {name: draw.to(self.device) for name, draw in draws.items()}
        labels = self.images.labels[order.to(self.images.labels.device)].to(self.device)
        parts = [self._part(step) for step in range(start, len(self))]
        # Images are mixed with others of the batch, so there every process makes all of it.
        mixes = self.augmentation.mixes
        made = [self._whole(step) if mixes else part for step, (part, _) in enumerate(parts, start)]
        for images, among, (part, weight) in zip(self._augmented(order, made, draws), made, parts, strict=True):
            mixture = None
            if mixes:
                mine = slice(part.start - among.start, part.stop - among.start)
                own = {name: draw[among] for name, draw in draws.items()}
                images, mixture = self.augmentation.mix(images, labels[among], own)
                images = images.narrow(self.images.batch_axis, mine.start, mine.stop - mine.start)
                mixture = mixture[mine]
            yield Batch(images, labels[part], weight, mixture)

    def _augmented(self, order: Tensor, made: list[slice], draws: dict[str, Tensor]) -> Iterator[Tensor]:
        """The samples at each of the positions `made` of the epoch, augmented; of adjacent ones `_at_once` together."""
        several = self._at_once
        groups = [made[k : k + several] for k in range(0, len(made), several)]
        spans = [slice(group[0].start, group[-1].stop) for group in groups]
        loaded = self.images.batches(order, spans, None if self.resident else self.device)
        for pixels, group, span in zip(loaded, groups, spans, strict=True):
            own = {name: draw[span] for name, draw in draws.items()}
            augmented = self.augmentation.apply(pixels, own, self.size)
            for one in group:
                yield augmented.narrow(self.images.batch_axis, one.start - span.start, one.stop - one.start)

    @property
    def _at_once(self) -> int:
        """How many batches are augmented at once. One process's parts of several batches are not adjacent."""
        return SEVERAL if self.resident and self.device.type == "cuda" and self.world_size == 1 else 1

    def _whole(self, step: int) -> slice:
        """Positions in the epoch of the batch at `step`."""
        return slice(step * self.batch_size, min((step + 1) * self.batch_size, len(self.images)))

    def _part(self, step: int) -> tuple[slice, float]:
        """This process's positions in the epoch at `step`, and their weight; parts differ by one image at most."""
        first = step * self.batch_size
        count = min(self.batch_size, len(self.images) - first)
        share, surplus = divmod(count, self.world_size)
        size = share + (self.rank < surplus)
        if size == 0:
            return slice(first, first + 1), 0.0
        begin = first + self.rank * share + min(self.rank, surplus)
        return slice(begin, begin + size), size * self.world_size / count


def _mix(seed: int, epoch: int) -> int:
    """One seed of the two, without (seed, epoch + 1) being (seed + 1, epoch)."""
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])
