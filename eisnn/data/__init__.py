"""Data sets as uint8 tensors, augmentation in batches on the device, and the loader."""

from .augment import Augmentation
from .catalog import list_datasets, load
from .dataset import Dataset, Images
from .errors import DataError
from .loader import Batch, Loader

__all__ = ["Augmentation", "Batch", "DataError", "Dataset", "Images", "Loader", "list_datasets", "load"]
