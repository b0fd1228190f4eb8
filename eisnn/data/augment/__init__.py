"""Random augmentation of batches on their device; see `RandomTransform` for what a kind of data needs."""

from .images import Augmentation
from .mixing import Mixture
from .transform import RandomTransform

__all__ = ["Augmentation", "Mixture", "RandomTransform"]
