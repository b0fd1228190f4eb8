"""Training images made of two: CutMix (Yun et al. 2019) and Mixup (Zhang et al. 2018).

Image k of a batch is mixed with its k-th last. A weight for each pixel says how much stays of the image itself: 0 in
one box and 1 around it (CutMix), or the same everywhere (Mixup); the mean weight is the share of the image's own label.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from .geometry import inside_boxes


@dataclass(frozen=True, eq=False)
class Mixture:
    """What was mixed into the images of a batch.

    Attributes:
        labels: int64 [b], of the other images.
        share: float32 [b], of each image's own label, in [0, 1]; the other label has the rest.
    """

    labels: Tensor
    share: Tensor

    def __getitem__(self, part: slice) -> "Mixture":
        return Mixture(self.labels[part], self.share[part])


def draw_mixing(n: int, cutmix: float, mixup: float, generator: Generator) -> Tensor:
    """Random numbers of `mix` for n images, [n, 4]: whether to cut, the share to keep, and the centre of the box.

    Args:
        cutmix: a of the distribution Beta(a, a) of the share, > 0; 0 mixes all images by Mixup.
        mixup: likewise; 0 mixes all images by CutMix. With both, each image gets one of them with probability 0.5.
    """
    beta = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))  # torch's takes no generator
    cut = torch.rand(n, generator=generator) < (0.5 if cutmix and mixup else float(cutmix > 0))
    kept, blended = (torch.from_numpy(beta.beta(a, a, n)).float() if a else torch.ones(n) for a in (cutmix, mixup))
    share = torch.where(cut, kept, blended)
    return torch.cat((cut[:, None], share[:, None], torch.rand(n, 2, generator=generator)), 1)


def mix(images: Tensor, labels: Tensor, draws: Tensor) -> tuple[Tensor, Mixture]:
    """Mixes the images of a whole batch.

    Args:
        images: float [B, C, H, W].
        labels: int64 [B].
        draws: [B, 4], of `draw_mixing`, on the device of the images.

    Returns:
        The mixed images, and what went into them.
    """
    height, width = images.shape[-2:]
    cut, share, row, column = draws.unbind(1)
    side = (1 - share).sqrt()  # of the box, relative to the image's
    tall, wide = (side * height).round(), (side * width).round()
    top, left = (row * height - tall / 2).round(), (column * width - wide / 2).round()
    around = ~inside_boxes(top, left, tall, wide, height, width)
    keep = torch.where(cut[:, None, None, None] > 0, around, share[:, None, None, None])
    mixed = torch.lerp(images.flip(0), images, keep)
    return mixed, Mixture(labels.flip(0), keep.mean((1, 2, 3)))
