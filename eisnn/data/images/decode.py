"""Many image files into one uint8 tensor."""

import io
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from eisnn.data.dataset import Images
from eisnn.data.errors import DataError, reading
from eisnn.data.memory import empty_pixels
from eisnn.data.progress import track

from .tree import Tree

if TYPE_CHECKING:
    from PIL.Image import Image

GRAY = {"1", "L", "LA"}
DEEP = ("I", "F")  # more than 8 bits: Pillow would clip them without a word


def decode(
    tree: Tree, names: Sequence[str], labels: Sequence[int], *, size: int | None = None, rgb: bool = False
) -> Images:
    """Decodes the files `names`, all to one shape.

    Args:
        tree: where the files are.
        names: of the files, N of them.
        labels: N class indices.
        size: side in pixels for images that differ in size; they are cut to a centred square and resized.
        rgb: makes three channels of gray images even if all are gray; without it one colour image is enough for that.

    Returns:
        pixels uint8 [N, C, H, W] with C 1 or 3.

    Raises:
        DataError: a file is damaged, has more than 8 bits a channel, or differs in size while `size` is None.
    """
    with tree.open() as read:
        shapes: dict[tuple[int, int], str] = {}
        for name in track(names, f"Looking through {tree.path.name}"):
            with reading(tree.label(name)), _open(read(name)) as image:
                shapes.setdefault(image.size, name)
                rgb = rgb or image.mode not in GRAY
                if image.mode.startswith(DEEP):
                    raise DataError(f"{tree.label(name)} has mode {image.mode}, expected 8 bits a channel")
        (width, height), example = next(iter(shapes.items()))
        if len(shapes) > 1:
            if size is None:
                (other_width, other_height), other = list(shapes.items())[1]
                raise DataError(
                    f"images differ in size: {tree.label(example)} is {width}x{height}, {tree.label(other)} is "
                    f"{other_width}x{other_height}. Only `folder` with a `size` brings them to one."
                )
            width = height = size
        shown = track(names, f"Decoding {tree.path.name}")
        return Images(_fill(tree, shown, len(names), read, (width, height), rgb), torch.tensor(labels))


def _fill(
    tree: Tree,
    names: Iterable[str],
    count: int,
    read: Callable[[str], bytes],
    shape: tuple[int, int],
    rgb: bool,
) -> Tensor:
    from PIL import Image, ImageOps

    width, height = shape
    pixels = empty_pixels(count, 3 if rgb else 1, height, width)
    for index, name in enumerate(names):
        with reading(tree.label(name)), _open(read(name)) as image:
            plain = image.convert("RGB" if rgb else "L")
            if plain.size != shape:
                plain = ImageOps.fit(plain, shape, Image.Resampling.BILINEAR)
            raw = torch.frombuffer(bytearray(plain.tobytes()), dtype=torch.uint8)
            pixels[index] = raw.view(height, width, -1).permute(2, 0, 1)
    return pixels


def _open(content: bytes) -> "Image":
    from PIL import Image

    return Image.open(io.BytesIO(content))
