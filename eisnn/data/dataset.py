"""A data set: two splits of uint8 images with integer labels."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .errors import DataError
from .storage import empty_pixels


@dataclass(frozen=True, eq=False)
class Images:
    """One split: `pixels` uint8 [N, C, H, W] in 0..255 and `labels` int64 [N], both on one device.

    Raises:
        DataError: the dtypes or shapes are others than these.
    """

    pixels: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.pixels.dtype != torch.uint8 or self.pixels.ndim != 4:
            raise DataError(f"pixels are {_describe(self.pixels)}, expected uint8 [N, C, H, W]")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.pixels.shape[:1]:
            raise DataError(f"labels are {_describe(self.labels)}, expected int64 [{len(self.pixels)}]")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor | slice) -> "Images":
        """The images at `index` (an integer or bool tensor, or a slice), as `Images`."""
        return Images(self.pixels[index], self.labels[index])

    def to(self, device: torch.device | str) -> "Images":
        """The same images on `device`."""
        return Images(self.pixels.to(device), self.labels.to(device))


@dataclass(frozen=True, eq=False)
class Dataset:
    """A named data set; label k means `classes[k]`."""

    name: str
    classes: tuple[str, ...]
    train: Images
    test: Images

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
        return replace(self, train=_select(self.train, ~held), test=_select(self.train, held))

    def subset(self, train: int | None, test: int | None, seed: int) -> "Dataset":
        """Fewer images, as many of each class as of another (the first classes may have one more).

        Args:
            train: images of the training split, >= 1; None keeps all.
            test: likewise of the test split.
            seed: of the random choice; the same seed gives the same images, in the old order.

        Raises:
            DataError: there are not so many images of a class, or a number is below 1.
        """
        return replace(self, train=self._fewer(self.train, train, seed), test=self._fewer(self.test, test, seed))

    def _fewer(self, images: Images, count: int | None, seed: int) -> Images:
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
        return _select(images, _choose(images, counts, seed))


def _choose(images: Images, counts: list[int], seed: int) -> Tensor:
    """A bool tensor that is true at `counts[label]` images of each class, chosen at random."""
    generator, labels = torch.Generator().manual_seed(seed), images.labels.cpu()
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label, count in enumerate(counts):
        members = (labels == label).nonzero().flatten()
        chosen[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    return chosen


def _select(images: Images, chosen: Tensor) -> Images:
    """The images where the bool tensor `chosen` is true; on the CPU also more of them than fit into memory."""
    index = chosen.nonzero().flatten().to(images.pixels.device)
    if index.is_cuda:
        return images[index]
    room = empty_pixels(len(index), *images.pixels.shape[1:])
    return Images(torch.index_select(images.pixels, 0, index, out=room), images.labels[index])


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
