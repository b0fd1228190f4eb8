"""Writes small data sets in the official formats, and serves a folder over HTTP, for the tests of `eisnn.data`."""

import functools
import gzip
import http.server
import io
import shutil
import struct
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eisnn.data import Images
from eisnn.data.images.cifar import Layout
from eisnn.data.images.mosaic import CIFAR10, tile


def random_images(n: int, classes: int, shape: tuple[int, int, int] = (3, 32, 32), seed: int = 0) -> Images:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=generator)
    return Images(pixels, torch.arange(n) % classes)


def same(one: Images, other: Images) -> bool:
    return torch.equal(one.pixels, other.pixels) and torch.equal(one.labels, other.labels)


def write_cifar(folder: Path, layout: Layout) -> tuple[Images, Images]:
    """The files of the binary version in `folder`; returns what is in them."""
    folder.mkdir(parents=True, exist_ok=True)
    names = CIFAR10 if layout.classes == 10 else [f"class_{k}" for k in range(layout.classes)]
    (folder / layout.names).write_text("\n".join(names) + "\n\n")
    splits = []
    for seed, files in enumerate((layout.train, layout.test)):
        images = random_images(sum(files.values()), layout.classes, seed=seed)
        # Coarse labels are all wrong on purpose: only the fine ones may be read.
        labels = torch.full((len(images), layout.label_bytes), 77, dtype=torch.uint8)
        labels[:, -1] = images.labels
        records = torch.cat((labels, images.pixels.flatten(1)), 1).numpy()
        begin = 0
        for name, count in files.items():
            (folder / name).write_bytes(records[begin : begin + count].tobytes())
            begin += count
        splits.append(images)
    return splits[0], splits[1]


def tar_folder(folder: Path, archive: Path) -> Path:
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    return archive


def write_fashion(folder: Path, counts: dict[str, int], compress: bool = True) -> tuple[Images, Images]:
    folder.mkdir(parents=True, exist_ok=True)
    splits = []
    for seed, (split, count) in enumerate(counts.items()):
        images = random_images(count, 10, (1, 28, 28), seed)
        for name, array in (("images-idx3", images.pixels[:, 0]), ("labels-idx1", images.labels.byte())):
            content = struct.pack(f">HBB{array.ndim}i", 0, 8, array.ndim, *array.shape) + array.numpy().tobytes()
            if compress:
                (folder / f"{split}-{name}-ubyte.gz").write_bytes(gzip.compress(content))
            else:
                (folder / f"{split}-{name}-ubyte").write_bytes(content)
        splits.append(images)
    return splits[0], splits[1]


def write_mosaics(folder: Path, columns: int = 2, rows: int = 2) -> dict[str, Tensor]:
    """CIFAR-10 as mosaics, rows * columns images a class in train, one row in test; returns the pixels by split."""
    pixels = {}
    for split, height in (("train", rows), ("test", 1)):
        (folder / split).mkdir(parents=True, exist_ok=True)
        images = random_images(10 * height * columns, 10, seed=height)
        pixels[split] = images.pixels
        for name, own in zip(CIFAR10, images.pixels.chunk(10), strict=True):
            Image.fromarray(tile(own, columns).numpy()).save(folder / split / f"{name}.webp", lossless=True)
    return pixels


def save(file: Path, pixels: Tensor) -> None:
    """One image [C, H, W], C 1 or 3, in the format of the file's extension."""
    file.parent.mkdir(parents=True, exist_ok=True)
    array = pixels.permute(1, 2, 0).numpy()
    image = Image.fromarray(np.ascontiguousarray(array[..., 0] if len(pixels) == 1 else array))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG" if file.suffix.lower() in {".jpg", ".jpeg"} else file.suffix[1:].upper())
    file.write_bytes(buffer.getvalue())


def write_folder(root: Path, splits: tuple[str, str] = ("train", "test"), channels: int = 3) -> tuple[Images, Images]:
    """An image folder of PNG files, classes ant and bee, 3 and 2 images a class of 10x12 pixels."""
    written = []
    for split, count in zip(splits, (3, 2), strict=True):
        images = random_images(2 * count, 2, (channels, 10, 12), seed=count)
        images = images[images.labels.sort(stable=True).indices]
        for k, pixels in enumerate(images.pixels):
            save(root / split / ("ant", "bee")[int(images.labels[k])] / f"{k:02}.png", pixels)
        written.append(images)
    return written[0], written[1]


def write_tiny(root: Path, wnids: tuple[str, ...] = ("n02", "n01"), train: int = 3, val: int = 2) -> None:
    """TinyImageNet's layout with noise for images; the first training image of each class is gray."""
    lines = []
    for label, wnid in enumerate(wnids):
        for k in range(train):
            pixels = random_images(1, 1, (3 if k else 1, 64, 64), seed=100 * label + k).pixels[0]
            save(root / "train" / wnid / "images" / f"{wnid}_{k}.JPEG", pixels)
        for _ in range(val):
            name = f"val_{len(lines)}.JPEG"
            save(root / "val" / "images" / name, random_images(1, 1, (3, 64, 64), seed=900 + len(lines)).pixels[0])
            lines.append(f"{name}\t{wnid}\t0\t0\t63\t63\n")
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("boxes, which nobody reads\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))


def zip_folder(folder: Path, archive: Path, inside: str = "") -> Path:
    """Zips the content of `folder`, in the archive under the folder `inside`."""
    root = folder if not inside else shutil.copytree(folder, folder.parent / "zipping" / inside).parent
    made = shutil.make_archive(str(archive.with_suffix("")), "zip", root)
    return Path(made)


@contextmanager
def serve(folder: Path, promise_more: bool = False, asked: list[str] | None = None) -> Iterator[str]:
    """A web server for `folder`; gives its address. `promise_more` announces longer files than it then sends; what is
    asked of it goes into `asked`."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            if asked is not None:
                asked.append(self.path)
            super().do_GET()

        def send_header(self, keyword: str, value: str) -> None:
            longer = promise_more and keyword == "Content-Length"
            super().send_header(keyword, str(int(value) + 1000) if longer else value)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
