"""Damages files and counts what their readers make of it, the same for the same seed; `damaged_runs.py` runs it.

An outcome is one of: `refused`, by an error that names the file; `mended`, made anew with the right result; `same`,
where the damage changes nothing; `different`, accepted with another result; and three that are faults: `unnamed`, an
error that does not say where; `crash`, an error of another class; `slow`, more than 20 seconds.
"""

import io
import os
import shutil
import signal
import unittest.mock
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data_files import (
    random_images,
    save,
    tar_folder,
    write_cifar,
    write_fashion,
    write_folder,
    write_mosaics,
    write_tiny,
    zip_folder,
)
from mutants import mutations
from PIL import Image

from eisnn.data import DataError, load
from eisnn.data.images import cifar, fashion_mnist

FAULTS = ("unnamed", "crash", "slow")
SECONDS = 20


@dataclass(frozen=True)
class Kind:
    """A file to damage.

    Attributes:
        name: of the kind.
        file: which one.
        read: gives what is compared, by ==.
        digest: the format has one, so that no damage may give another result.
        error: the class that readers raise.
    """

    name: str
    file: Path
    read: Callable[[], Any]
    digest: bool
    error: type[Exception] = DataError


def outcomes(kinds: Iterable[Kind], count: int, seed: int = 0) -> dict[str, Counter[str]]:
    """How often what became of `count` damaged copies of the file of each kind; the file is put back afterwards."""
    return {kind.name: Counter(outcome for _, outcome in damaged(kind, count, seed)) for kind in kinds}


def damaged(kind: Kind, count: int, seed: int = 0) -> Iterator[tuple[str, str]]:
    """What was done to each copy, and its outcome."""
    content, expected = kind.file.read_bytes(), kind.read()
    for name, changed in mutations(content, seed, count):
        _write(kind.file, changed)
        yield name, _outcome(kind, expected)
        _write(kind.file, content)


def _outcome(kind: Kind, expected: Any) -> str:
    written = kind.file.stat().st_ino if kind.file.exists() else None
    try:
        with _limit(SECONDS):
            result = kind.read()
    except kind.error as error:
        named = kind.file.name in str(error) or str(kind.file.parent) in str(error)
        return "refused" if named else "unnamed"
    except TimeoutError:
        return "slow"
    except Exception as error:
        print(f"{kind.name}: {type(error).__name__}: {error}")
        return "crash"
    if result != expected:
        return "different"
    anew = not kind.file.exists() or kind.file.stat().st_ino != written
    return "mended" if anew else "same"


def _write(file: Path, content: bytes) -> None:
    """A new file, as who has mapped the old one keeps it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    file.write_bytes(content)


@contextmanager
def _limit(seconds: int) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def loaded(name: str, path: Path, cache: bool = False) -> Callable[[], Any]:
    """Reads a data set; what is compared are its classes, pixels and labels."""

    def read() -> Any:
        dataset = load(name, path, cache=cache)
        return dataset.classes, dataset.content

    return read


@contextmanager
def data_kinds(root: Path) -> Iterator[list[Kind]]:
    """Small data sets of every format in `root`, and the decoded copy of one."""
    ten = replace(cifar.CIFAR10, train=dict.fromkeys(cifar.CIFAR10.train, 4), test={"test_batch.bin": 4})
    with (
        unittest.mock.patch.object(cifar, "CIFAR10", ten),
        unittest.mock.patch.object(fashion_mnist, "COUNTS", {"train": 6, "t10k": 4}),
        unittest.mock.patch.dict(os.environ, {"EISNN_DATA": str(root / "home")}),
    ):
        yield list(_data_kinds(root))


def _data_kinds(root: Path) -> Iterator[Kind]:
    folder = root / "cifar" / cifar.CIFAR10.folder
    write_cifar(folder, cifar.CIFAR10)
    archive = tar_folder(folder, root / "cifar.tar.gz")
    yield Kind("CIFAR .bin", folder / "data_batch_2.bin", loaded("cifar10", folder), digest=False)
    yield Kind("CIFAR class names", folder / cifar.CIFAR10.names, loaded("cifar10", folder), digest=False)
    yield Kind("CIFAR .tar.gz", archive, loaded("cifar10", archive), digest=True)
    for compress in (False, True):
        place = root / f"fashion-{compress}"
        write_fashion(place, fashion_mnist.COUNTS, compress)
        for part in ("images-idx3", "labels-idx1"):
            file = place / f"train-{part}-ubyte{'.gz' * compress}"
            yield Kind(f"idx {part}{'.gz' * compress}", file, loaded("fashion-mnist", place), digest=compress)
    write_mosaics(root / "mosaic", columns=1, rows=1)
    mosaic = root / "mosaic" / "train" / "cat.webp"
    yield Kind("WebP", mosaic, loaded("cifar10", root / "mosaic"), digest=False)
    write_folder(root / "images")
    png = root / "images" / "train" / "ant" / "01.png"
    yield Kind("PNG", png, loaded("folder", root / "images"), digest=True)
    for kind in ("JPEG", "BMP"):
        own = shutil.copytree(root / "images", root / kind)
        file = own / "train" / "ant" / f"zz.{kind[:3].lower().replace('jpe', 'jpg')}"
        save(file, random_images(1, 1, (3, 10, 12)).pixels[0])
        yield Kind(kind, file, loaded("folder", own), digest=False)
    layer = random_images(1, 1, (4, 10, 12)).pixels[0].permute(1, 2, 0).numpy()
    content, own = io.BytesIO(), shutil.copytree(root / "images", root / "layers")
    Image.fromarray(layer).quantize(16).save(content, "PNG", transparency=3)
    (own / "train" / "ant" / "palette.png").write_bytes(content.getvalue())
    yield Kind("PNG, palette", own / "train" / "ant" / "palette.png", loaded("folder", own), digest=True)
    zipped = zip_folder(root / "images", root / "images.zip")
    yield Kind("zip of images", zipped, loaded("folder", zipped), digest=True)
    write_tiny(root / "tiny")
    annotations = root / "tiny" / "val" / "val_annotations.txt"
    yield Kind("annotations of TinyImageNet", annotations, loaded("tiny-imagenet", root / "tiny"), digest=False)
    kept = loaded("folder", shutil.copytree(root / "images", root / "kept"), cache=True)
    kept()
    for file in sorted(root.glob("home/cache/folder-*/*")):
        yield Kind(f"decoded copy, {file.name}", file, kept, digest=True)
