"""Decoded data sets on disk, one safetensors file a source, so that decoding happens once.

The tensors that are read are mapped from the file; those that are written are never copied. So a data set may be larger
than the memory.
"""

import json
import logging
import os
import uuid
from contextlib import suppress
from pathlib import Path

import numpy as np
from torch import Tensor

from .dataset import Dataset, Images
from .errors import DataError
from .storage import fits

VERSION = "1"  # raise it when a reader decodes differently
_logger = logging.getLogger(__name__)


def read_cache(file: Path, fingerprint: str) -> Dataset | None:
    """The data set in `file` if it was stored with this fingerprint; None, with a warning, if the file is
    damaged. Of one that does not fit into memory only size and structure are checked: the rest would have to be read.
    """
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="pt") as stored:
            meta = stored.metadata() or {}
            if (meta.get("version"), meta.get("fingerprint")) != (VERSION, fingerprint):
                return None  # the source has changed since
            splits = {
                split: Images(stored.get_tensor(f"{split}.pixels"), stored.get_tensor(f"{split}.labels"))
                for split in ("train", "test")
            }
        dataset = Dataset(meta["name"], tuple(json.loads(meta["classes"])), **splits)
        if fits(file.stat().st_size) and meta["checksum"] != _checksum(dataset):
            raise DataError("its content does not match its checksum")
    except (SafetensorError, DataError, OSError, RuntimeError, KeyError, json.JSONDecodeError) as error:
        # RuntimeError: torch opens the file a second time, and somebody may have deleted it in between.
        _logger.warning("the cache %s cannot be used (%s) and is made anew", file, error)
        return None
    return dataset


def write_cache(file: Path, fingerprint: str, dataset: Dataset) -> None:
    """Stores a data set; goes on with a warning where that is impossible (no permission, disk full)."""
    meta = {
        "version": VERSION,
        "fingerprint": fingerprint,
        "name": dataset.name,
        "classes": json.dumps(dataset.classes),
        "checksum": _checksum(dataset),
    }
    # A name of its own for every writer: processes that start together each write a whole file, and the last
    # replacement wins; readers hold on to the file they opened.
    temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _save(temporary, _tensors(dataset), meta)
        os.replace(temporary, file)
    except OSError as error:
        _logger.warning("the decoded data set is not kept for the next time, %s cannot be written: %s", file, error)
        with suppress(OSError):
            temporary.unlink()


def _save(file: Path, tensors: dict[str, Tensor], meta: dict[str, str]) -> None:
    """safetensors' own `save_file` makes a copy of all tensors first; the format is that simple."""
    tensors = dict(sorted(tensors.items(), key=lambda item: -item[1].itemsize))  # so that the labels are aligned
    header: dict[str, object] = {"__metadata__": meta}
    begin = 0
    for name, tensor in tensors.items():
        dtype, end = "U8" if tensor.itemsize == 1 else "I64", begin + tensor.nbytes
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as opened:
        opened.write(len(text).to_bytes(8, "little") + text)
        opened.flush()
        for tensor in tensors.values():
            tensor.numpy().tofile(opened)


def _tensors(dataset: Dataset) -> dict[str, Tensor]:
    return {
        f"{split}.{field}": getattr(images, field).contiguous()
        for split, images in (("train", dataset.train), ("test", dataset.test))
        for field in ("pixels", "labels")
    }


def _checksum(dataset: Dataset) -> str:
    """Sums (modulo 2^64) of the tensors as 64-bit words: notices lost blocks and flipped bits at memory speed."""
    return ",".join(str(_sum(tensor)) for tensor in _tensors(dataset).values())


def _sum(tensor: Tensor) -> int:
    raw = tensor.flatten().numpy().view(np.uint8)  # numpy, as a split may begin at any byte
    whole = len(raw) // 8 * 8
    return int(raw[:whole].view(np.int64).sum()) + int(raw[whole:].sum())
