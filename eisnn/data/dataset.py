"""A data set: two splits of samples with integer labels."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
import xxhash
from torch import Tensor

from .augment import Augmentation, RandomTransform
from .errors import DataError
from .memory import empty_pixels
from .stream import stream


class Split(ABC):
    """N samples with integer labels, on one device. A kind of data is a subclass.

    Attributes:
        labels: int64 [N].
        batch_axis: where the samples of a batch lie: 0 of images [B, C, H, W], 1 of sequences [T, B, C, H, W].
        augmentation: the class of its random augmentation; without settings that makes plain batches.
        kind: what messages call its samples.
    """

    labels: Tensor
    batch_axis: ClassVar[int]
    augmentation: ClassVar[type[RandomTransform]]
    kind: ClassVar[str] = "samples"

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} of {list(self.sample_shape)})"

    @property
    @abstractmethod
    def sample_shape(self) -> Sequence[int]:
        """Of one sample as it is kept: [C, H, W], or [T, C, H, W] of sequences."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """What the samples take in memory."""

    @abstractmethod
    def __getitem__(self, index: Tensor | slice) -> Self:
        """The samples at `index` (an integer or bool tensor, or a slice), as a split; they need not fit into memory."""

    @abstractmethod
    def to(self, device: torch.device | str) -> Self:
        """The same samples on `device`."""

    @abstractmethod
    def batches(self, order: Tensor, parts: Iterable[slice], device: torch.device | None) -> Iterator[Any]:
        """What `augmentation.apply` takes, for each of `parts` of `order`.

        Args:
            order: int64 [N] on the CPU, the samples of an epoch.
            parts: which of them make a batch.
            device: moves each batch there while the one before it is in use (`stream`); None leaves it with the split.
        """

    @abstractmethod
    def digest(self) -> str:
        """Of all samples and labels, in their order."""

    def padded(self, size: int) -> Self:
        """With zeros around samples of less than `size` pixels, where they are not brought to size in batches."""
        return self


@dataclass(frozen=True, eq=False, repr=False)
class Images(Split):
    """Images, which come in batches float32 [B, C, H, W] in [0, 1].

    Attributes:
        pixels: uint8 [N, C, H, W] in 0..255.
        labels: int64 [N].

    Raises:
        DataError: the dtypes or shapes are others than these.
    """

    pixels: Tensor
    labels: Tensor
    batch_axis = 0
    augmentation = Augmentation
    kind = "images"

    def __post_init__(self) -> None:
        if self.pixels.dtype != torch.uint8 or self.pixels.ndim != 4:
            raise DataError(f"pixels are {_describe(self.pixels)}, expected uint8 [N, C, H, W]")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.pixels.shape[:1]:
            raise DataError(f"labels are {_describe(self.labels)}, expected int64 [{len(self.pixels)}]")

    @property
    def sample_shape(self) -> torch.Size:
        return self.pixels.shape[1:]

    @property
    def nbytes(self) -> int:
        return self.pixels.nbytes

    def __getitem__(self, index: Tensor | slice) -> "Images":
        if isinstance(index, slice) or self.pixels.is_cuda:
            return Images(self.pixels[index], self.labels[index])
        index = index.nonzero().flatten() if index.dtype == torch.bool else index
        room = empty_pixels(len(index), *self.sample_shape)
        return Images(torch.index_select(self.pixels, 0, index, out=room), self.labels[index])

    def to(self, device: torch.device | str) -> "Images":
        return Images(self.pixels.to(device), self.labels.to(device))

    def batches(self, order: Tensor, parts: Iterable[slice], device: torch.device | None) -> Iterator[Tensor]:
        if device is not None:
            return stream(self.pixels, (order[part] for part in parts), device)
        order = order.to(self.pixels.device)
        return (self.pixels[order[part]] for part in parts)

    def digest(self) -> str:
        digest = xxhash.xxh3_128()
        for tensor in (self.labels, self.pixels):
            digest.update(_describe(tensor).encode())
            digest.update(tensor.cpu().contiguous().numpy().data)
        return digest.hexdigest()

    def padded(self, size: int) -> "Images":
        count, channels, height, width = self.pixels.shape
        rows, columns = max(size - height, 0), max(size - width, 0)
        padded = empty_pixels(count, channels, height + rows, width + columns).zero_()
        padded[..., rows // 2 :, columns // 2 :][..., :height, :width] = self.pixels
        return Images(padded, self.labels)


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A named data set; label k means `classes[k]`.

    Attributes:
        name: in the catalog.
        classes: their names.
        train, test: its splits, of one kind and of samples of one shape.
        preprocessing: what was done to the samples of the files, so that it can be done to others; JSON.
        content: digest of pixels and labels as they were decoded, in hexadecimal; computed if it is not given.

    Raises:
        DataError: the splits differ in kind or shape, or a label is not that of a class.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    content: str = ""

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}, {len(self.classes)} classes, train={self.train}, test={self.test})"

    def __post_init__(self) -> None:
        kinds = [(type(split).__name__, list(split.sample_shape)) for split in (self.train, self.test)]
        if kinds[0] != kinds[1]:
            raise DataError(f"the splits of {self.name} differ: train is {kinds[0]}, test is {kinds[1]}")
        for name, split in (("train", self.train), ("test", self.test)):
            if len(split) and not 0 <= int(split.labels.min()) <= int(split.labels.max()) < len(self.classes):
                raise DataError(f"{name} of {self.name} has labels outside of 0 to {len(self.classes) - 1}")
        if not self.content:
            object.__setattr__(self, "content", self.train.digest() + self.test.digest())

    @property
    def channels(self) -> int:
        """C of the samples."""
        return self.train.sample_shape[-3]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the stored samples, pixels."""
        return self.train.sample_shape[-2], self.train.sample_shape[-1]

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with any pixel, label, class name or preprocessing, whatever the place or
        the kind of the files."""
        said = json.dumps([self.name, self.classes, dict(self.preprocessing), self.content], sort_keys=True)
        return xxhash.xxh3_64_hexdigest(said.encode())

    def padded(self, size: int) -> "Dataset":
        """With zeros around samples of less than `size` pixels."""
        if min(self.image_size) >= size:
            return self
        train, test = self.train.padded(size), self.test.padded(size)
        if train is self.train:  # brought to size in batches
            return self
        return replace(self, train=train, test=test, preprocessing={**self.preprocessing, "padded_to": size})

    def hold_out(self, fraction: float, seed: int) -> "Dataset":
        """Splits the training images in two by class, so that one can choose on images that are not the test split.

        Args:
            fraction: part of each class's training images to hold out, in (0, 1); rounded, at least 1 image.
            seed: of the random choice; the same seed gives the same split.

        Returns:
            A data set whose `train` is the rest, in the old order, and whose `test` is the held-out part.

        Raises:
            DataError: `fraction` is not in (0, 1), or a class has fewer than two training images.
        """
        if not 0 < fraction < 1:
            raise DataError(f"the fraction to hold out is {fraction}, expected a number between 0 and 1, such as 0.1")
        sizes = torch.bincount(self.train.labels.cpu(), minlength=len(self.classes)).tolist()
        for name, size in zip(self.classes, sizes, strict=True):
            if size < 2:
                raise DataError(f"class {name!r} has {size} training images; holding out needs at least 2")
        held = _choose(self.train, [min(max(round(fraction * size), 1), size - 1) for size in sizes], seed)
        return replace(
            self,
            train=self.train[~held],
            test=self.train[held],
            preprocessing={**self.preprocessing, "hold_out": fraction, "hold_out_seed": seed},
        )

    def subset(self, train: int | None, test: int | None, seed: int) -> "Dataset":
        """Fewer images, as many of each class as of another (the first classes may have one more).

        Args:
            train: images of the training split, >= 1; None keeps all.
            test: likewise of the test split.
            seed: of the random choice; the same seed gives the same images, in the old order.

        Raises:
            DataError: there are not so many images of a class, or a number is below 1.
        """
        if train is None and test is None:
            return self
        return replace(
            self,
            train=self._fewer(self.train, train, seed),
            test=self._fewer(self.test, test, seed),
            preprocessing={**self.preprocessing, "subset": [train, test], "subset_seed": seed},
        )

    def _fewer(self, images: Split, count: int | None, seed: int) -> Split:
        if count is None:
            return images
        if count < 1:
            raise DataError(f"{count} images are asked for, expected at least 1")
        each, more = divmod(count, len(self.classes))
        counts = [each + (label < more) for label in range(len(self.classes))]
        sizes = torch.bincount(images.labels.cpu(), minlength=len(self.classes)).tolist()
        for name, size, needed in zip(self.classes, sizes, counts, strict=True):
            if size < needed:
                raise DataError(
                    f"{count} images of {len(self.classes)} classes need {needed} of class {name!r}, which has {size}"
                )
        return images[_choose(images, counts, seed)]


def _choose(images: Split, counts: list[int], seed: int) -> Tensor:
    """A bool tensor that is true at `counts[label]` images of each class, chosen at random."""
    generator, labels = torch.Generator().manual_seed(seed), images.labels.cpu()
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label, count in enumerate(counts):
        members = (labels == label).nonzero().flatten()
        chosen[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    return chosen


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
