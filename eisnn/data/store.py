"""Decoded data sets on disk, so that decoding happens once: a folder for a source, a .npy file for a tensor.

The tensors that are read are mapped from the files. So a data set may be larger than the memory, and the processes of a
machine share one copy of it.
"""

import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import xxhash
from filelock import FileLock, Timeout
from torch import Tensor

from .dataset import Dataset, Images
from .errors import DataError, read_file, reading
from .memory import fits
from .source import Source

VERSION = 3  # raise it when a reader decodes differently
_CHECKS = ("version", "labels", "content", "fingerprint")
_SPLITS, _FIELDS = ("train", "test"), ("pixels", "labels")
_logger = logging.getLogger(__name__)


def load_stored(place: Path, source: Source, rebuild: bool) -> Dataset:
    """The images of a source from their decoded copy, which is made if it is not there.

    One process makes it; others that want the same one wait. Where it cannot be written (no permission, disk full),
    there is a warning, and the data set lies in memory.

    Args:
        place: of this source in the data folder, to which suffixes are added.
        source: what they are read from.
        rebuild: make the copy anew even if there is a good one.
    """
    with reading(source.root):
        copy = place.with_name(f"{place.name}-{source.fingerprint()}")
    if not rebuild and (dataset := _open(copy, logging.DEBUG)) is not None:
        return dataset
    with _writer_of(place) as writable:
        dataset = None if rebuild else _open(copy, logging.WARNING)  # another process may have made it meanwhile
        if dataset is None:
            dataset = source.read()
            if writable:
                _write(dataset, place, copy)
                dataset = _open(copy, logging.WARNING) or dataset
    return dataset


def _open(copy: Path, level: int) -> Dataset | None:
    """None, with a message of this level, if the copy is damaged. Of one that does not fit into memory the pixels are
    not checked: they would have to be read."""
    if not copy.is_dir():
        return None
    try:
        meta = json.loads(read_file(copy / "meta.json", 1 << 24))
        train, test = (Images(*(_mapped(copy / f"{split}.{field}.npy") for field in _FIELDS)) for split in _SPLITS)
        known = {} if fits(train.nbytes + test.nbytes) else {"content": meta["content"]}
        dataset = Dataset(meta["name"], tuple(meta["classes"]), train, test, meta["preprocessing"], **known)
        if [meta[key] for key in _CHECKS] != [VERSION, _of_labels(dataset), dataset.content, dataset.fingerprint]:
            raise DataError("its content is not what was written, or by another version")
    except Exception as error:  # NumPy's reader has many kinds of them
        _logger.log(level, "the decoded copy %s cannot be used (%s) and is made anew", copy, error)
        return None
    return dataset


def _of_labels(dataset: Dataset) -> str:
    """A digest of the labels of both splits."""
    return xxhash.xxh3_64_hexdigest(b"".join(part.labels.numpy().tobytes() for part in (dataset.train, dataset.test)))


def _mapped(file: Path) -> Tensor:
    return torch.from_numpy(np.lib.format.open_memmap(file, mode="c"))  # may be written to, but that stays in memory


@contextmanager
def _writer_of(place: Path) -> Iterator[bool]:
    """Waits until no other process decodes the same; gives whether anything can be written."""
    lock = FileLock(f"{place}.lock")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            _logger.warning("another process decodes the same data; waiting for it (%s)", lock.lock_file)
            lock.acquire()
    except (OSError, NotImplementedError) as error:  # the latter from file systems without locks
        _unwritable(place, error)
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _write(dataset: Dataset, place: Path, copy: Path) -> None:
    temporary = place.with_name(f"{place.name}.tmp")
    meta = {
        "version": VERSION,
        "name": dataset.name,
        "classes": dataset.classes,
        "preprocessing": dict(dataset.preprocessing),
        "labels": _of_labels(dataset),
        "content": dataset.content,
        "fingerprint": dataset.fingerprint,
    }
    try:
        _remove_leftovers(place.parent)
        shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed: this one holds the lock
        temporary.mkdir()
        for name in _SPLITS:
            split = getattr(dataset, name)
            for field in _FIELDS:
                np.save(temporary / f"{name}.{field}.npy", getattr(split, field).numpy())
        (temporary / "meta.json").write_text(json.dumps(meta))
        for old in place.parent.glob(f"{place.name}-*"):  # of the source as it was before
            shutil.rmtree(old)
        os.rename(temporary, copy)
    except OSError as error:
        _unwritable(place, error)
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_leftovers(folder: Path) -> None:
    """Removes what processes that were killed had begun to write: nobody holds its lock."""
    for temporary in folder.glob("*.tmp"):
        try:
            with FileLock(temporary.with_suffix(".lock"), timeout=0):
                shutil.rmtree(temporary, ignore_errors=True)
        except Timeout:
            pass


def _unwritable(place: Path, error: Exception) -> None:
    _logger.warning("the decoded data set is not kept for the next time, %s cannot be written: %s", place, error)
