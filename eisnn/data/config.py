"""The part of a configuration that describes the data, and the data it describes."""

from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from eisnn.config import Config, Positive, require_known

from .augment import Augmentation
from .catalog import entries, list_datasets, load
from .dataset import Dataset, Split
from .errors import DataError
from .events.augment import EventAugmentation
from .events.frames import FrameSettings
from .loader import Loader
from .memory import fits
from .tasks import TrialSettings


class DataConfig(Config):
    """A data set, how much of it is used, and how it comes in batches."""

    dataset: str = Field("cifar10", description="Data set, see `eisnn list`.")
    data_path: str | None = Field(None, description="Its archive or folder; left out: looked for in the data folder.")
    download: bool = Field(False, description="Fetch the data set if it is not there.")
    image_size: Positive = Field(32, description="Side of the images, pixels; smaller ones are padded, larger resized.")
    hold_out: float = Field(
        0.0, ge=0, lt=1, description="Part of the training images held out, and evaluated on instead of the test split."
    )
    train_images: Positive | None = Field(
        None, description="Use only so many training images, as many of each class; None uses all."
    )
    test_images: Positive | None = Field(None, description="Evaluate on only so many images, likewise.")
    data_on_device: bool | Literal["auto"] = Field(
        "auto",
        description="Keep all images on the training device, rather than move each batch there; auto: where they take "
        "at most a quarter of its free memory.",
    )
    init_batch: Literal["first", "separate"] = Field(
        "first",
        description="Augmented batch that E-I Init measures: the first that is trained on, or one drawn for it alone.",
    )
    batch_size: Positive = Field(128, description="Images a step, over all processes together.")
    augmentation: Augmentation | EventAugmentation = Field(
        default_factory=Augmentation, description="Of the training images, or of recordings of events."
    )

    frames: FrameSettings = Field(FrameSettings(), description="How recordings of events become frames.")
    trials: TrialSettings = Field(TrialSettings(), description="Which trials of a task are made.")
    split_seed: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Of a random split of cifar10-dvs; None is the split of the paper."
    )

    @model_validator(mode="after")
    def _known_names(self) -> "DataConfig":
        require_known(dataset=(self.dataset, list_datasets()))
        return self

    @property
    def options(self) -> dict[str, Any]:
        """What the data set takes besides its path and what all take."""
        own = entries()[self.dataset].options
        return {name: value for name, value in self._special().items() if name in own}

    def _special(self) -> dict[str, Any]:
        return {**self.frames.model_dump(), **self.trials.model_dump(), "split_seed": self.split_seed}

    @model_validator(mode="after")
    def _what_belongs_to_the_data_set(self) -> "DataConfig":
        usual = {**FrameSettings().model_dump(), **TrialSettings().model_dump(), "split_seed": None}
        given = [name for name, value in self._special().items() if value != usual[name] and name not in self.options]
        if given:
            raise ValueError(f"the data set {self.dataset!r} has no {' and '.join(given)}; leave out what is given")
        return self

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what the data set does not have: a default that changes must not make runs of others unreadable."""
        parts = {
            "frames": FrameSettings.model_fields,
            "trials": TrialSettings.model_fields,
            "split_seed": ["split_seed"],
        }
        own = self.options.keys()
        return {
            name: value for name, value in write(self).items() if name not in parts or not own.isdisjoint(parts[name])
        }

    @model_validator(mode="after")
    def _augmentation_leaves_something(self) -> "DataConfig":
        if isinstance(self.augmentation, EventAugmentation):
            return self
        sizes = {"crop_padding": self.augmentation.crop_padding}
        if self.augmentation.cutout == "square":
            sizes["cutout_size"] = self.augmentation.cutout_size
        for name, size in sizes.items():
            if size > self.image_size:
                raise ValueError(
                    f"augmentation.{name} is {size} pixels, more than the images have (image_size {self.image_size}): "
                    "nothing would be left of some"
                )
        return self


def load_data(data: DataConfig, time_steps: int, told_by: Path | None = None) -> Dataset:
    """The data set of a configuration; its `test` is the held-out part where there is one. Recordings of events become
    `time_steps` frames.

    Raises: DataError, which names the file `told_by` that the configuration is from, if there is one.
    """
    options = {"download": data.download, "size": data.image_size, "time_steps": time_steps} | data.options
    try:
        dataset = load(data.dataset, data.data_path, **options)
    except DataError as error:
        if told_by is None:
            raise
        where = f"{told_by} says that this is the data; if it has moved, name the place (--data-path)"
        raise DataError(f"{str(error).rstrip('.')}. {where}") from error
    dataset = dataset.hold_out(data.hold_out, seed=0) if data.hold_out else dataset
    return dataset.subset(data.train_images, data.test_images, seed=0)


def train_loader(data: DataConfig, dataset: Dataset, seed: int, **sharing: Any) -> Loader:
    """Shuffled, augmented batches of the training split; `sharing` says on which device, and with whom."""
    plain = data.augmentation == type(data.augmentation)()  # the same for images and events
    return Loader(
        dataset.train,
        data.batch_size,
        size=data.image_size,
        augmentation=None if plain else data.augmentation,
        shuffle=True,
        seed=seed,
        **sharing,
    )


def evaluation_loader(data: DataConfig, dataset: Dataset, **sharing: Any) -> Loader:
    """Batches of the evaluation split as they are; `sharing` as in `train_loader`."""
    return Loader(dataset.test, data.batch_size, size=data.image_size, **sharing)


def keeps_resident(data: DataConfig, device: torch.device, *splits: Split) -> bool:
    """Whether all images of `splits` shall lie on `device`, rather than one batch after the other."""
    if data.data_on_device == "auto":
        return fits(sum(split.nbytes for split in splits), device)
    return data.data_on_device
