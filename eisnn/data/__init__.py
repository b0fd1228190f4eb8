"""Data sets as tensors, augmentation in batches on the device, and the loader.

**The contract of a data set.** One file in `images/`, `events/` or `tasks/`, or anywhere else, finds its files with a
function that `register`s itself, and reads them into a `Dataset`; nothing else knows it by name:

    @register("shapes", "a folder with shapes.npy", remotes=[Remote(URL, "shapes.npy", MD5)])
    def locate(path: Path, size: int | None = None) -> Source | None:
        file = path / "shapes.npy"
        return Source(path, (file,), lambda: read(file, size)) if file.is_file() else None

`load(name, ...)` gives a function the options it takes: `size` and `time_steps`, which every training run has, and
keywords of its own. A file that is missing, short, corrupt or of another kind is a `DataError` that names it.

**The contract of a kind of data.** A kind is a subclass of `Split`: N samples with `labels`, which can be selected,
moved, digested and put together in batches. It names the axis of the samples in a batch and the class of its
augmentation, a `RandomTransform`, which makes of the stored samples of a batch what a network takes: of `Images`
[B, C, H, W] in [0, 1], of sequences of frames [T, B, C, H, W] >= 0. Everything else (`Loader`, holding out, subsets,
fingerprints) is the same for all kinds, and others ask the `Dataset`: `channels`, `image_size`, `classes`,
`preprocessing`, `fingerprint`.
"""

from .augment import Augmentation, RandomTransform
from .catalog import list_datasets, load, register
from .dataset import Dataset, Images, Split
from .download import Remote
from .errors import DataError
from .loader import Batch, Loader
from .source import Source

__all__ = [
    "Augmentation",
    "Batch",
    "DataError",
    "Dataset",
    "Images",
    "Loader",
    "RandomTransform",
    "Remote",
    "Source",
    "Split",
    "list_datasets",
    "load",
    "register",
]
