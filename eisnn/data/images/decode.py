"""Many image files into one uint8 tensor, as a person would see them."""

import io
import zlib
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

GRAY, COLOR = {"1", "L", "LA"}, {"P", "PA", "RGB", "RGBA", "CMYK"}  # modes of Pillow
MAX_PIXELS = 80_000_000  # of an image; Pillow's own limit is somewhat higher
MAX_GROWTH, HARMLESS = 300, 1 << 30  # decoded bytes for each byte of the files, and as many as are fine in any case


def decode(
    tree: Tree, names: Sequence[str], labels: Sequence[int], *, size: int | None = None, rgb: bool = False
) -> Images:
    """Decodes the files `names`, all to one shape: upright, and what is transparent on a white ground.

    Args:
        tree: where the files are.
        names: of the files, N of them.
        labels: N class indices.
        size: side in pixels to bring every image to, whatever the others are: one with fewer rows or columns is padded
            with zeros, centred; then its centred square is resized (antialiased). None takes them as they are.
        rgb: makes three channels of gray images even if all are gray; without it one colour image is enough for that.

    Returns:
        pixels uint8 [N, C, H, W] with C 1 or 3.

    Raises:
        DataError: a file is damaged, animated, too large, of more than 8 bits a channel, or nothing in it can be seen;
            or images differ in size while `size` is None.
    """
    with tree.open(others=True) as read:
        shape, example, encoded = (size, size) if size is not None else None, "", 0
        for name in track(names, f"Looking through {tree.path.name}"):
            content = read(name)
            encoded += len(content)
            with reading(tree.label(name)), open_image(content, tree.label(name)) as image:
                rgb = rgb or image.mode not in GRAY
                seen = _seen_size(image)
            if shape is None:
                shape, example = seen, name
            elif size is None and seen != shape:
                raise DataError(
                    f"images differ in size: {tree.label(example)} is {shape[0]}x{shape[1]}, {tree.label(name)} is "
                    f"{seen[0]}x{seen[1]}. Only `folder` with a `size` brings them to one."
                )
        assert shape is not None  # there are names
        decoded = len(names) * (3 if rgb else 1) * shape[0] * shape[1]
        if decoded > max(HARMLESS, MAX_GROWTH * encoded):
            raise DataError(f"{tree.path} grows from {encoded:,} bytes to {decoded:,}, more than images do")
        shown = track(names, f"Decoding {tree.path.name}")
        return Images(_fill(tree, shown, len(names), read, shape, rgb), torch.tensor(labels))


def _fill(
    tree: Tree,
    names: Iterable[str],
    count: int,
    read: Callable[[str], bytes],
    shape: tuple[int, int],
    rgb: bool,
) -> Tensor:
    width, height = shape
    pixels = empty_pixels(count, 3 if rgb else 1, height, width)
    for index, name in enumerate(names):
        with reading(tree.label(name)), open_image(read(name), tree.label(name)) as image:
            seen = _fit(_as_seen(image, tree.label(name)).convert("RGB" if rgb else "L"), shape)
            raw = torch.frombuffer(bytearray(seen.tobytes()), dtype=torch.uint8)
            pixels[index] = raw.view(height, width, -1).permute(2, 0, 1)
    return pixels


def open_image(content: bytes, label: str) -> "Image":
    """An image of 8 bits, whose pixels are not decoded yet; DataError for what Pillow would cut down without a word."""
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(content), formats=("PNG", "JPEG", "WEBP", "BMP"))
        size = image.width * image.height
    except Image.DecompressionBombError:
        size = MAX_PIXELS + 1
    except UnidentifiedImageError:
        raise DataError(f"{label} is no PNG, JPEG, WebP or BMP image, or is damaged") from None
    if size > MAX_PIXELS:
        raise DataError(f"{label} has more than {MAX_PIXELS:,} pixels; make it smaller")
    if image.format == "PNG":
        _check_sums(content, label)
    deep = image.format == "PNG" and content[24] > 8
    if deep or image.mode not in GRAY | COLOR:
        mode = f"{image.mode} of 16 bits" if deep else image.mode
        raise DataError(f"{label} has mode {mode}, expected 8 bits a channel, gray or RGB")
    if getattr(image, "is_animated", False) and image.format != "MPO":  # that is a photo and its variants
        raise DataError(f"{label} is animated; give its frames as images, or take it out")
    return image


def _check_sums(content: bytes, label: str) -> None:
    """DataError if a chunk of a PNG file is damaged; Pillow stops reading, and comparing, when it has all pixels."""
    begin = 8
    while begin < len(content):
        end = begin + 8 + int.from_bytes(content[begin : begin + 4], "big")
        if zlib.crc32(content[begin + 4 : end]).to_bytes(4, "big") != content[end : end + 4]:
            raise DataError(f"{label} is damaged at byte {begin:,}; replace it with a complete copy")
        if content[begin + 4 : begin + 8] == b"IEND":
            return
        begin = end + 4


def _orientation(image: "Image") -> int:
    """As cameras record it: 1 is upright, above 4 width and height change places."""
    if not image.info.keys() & {"exif", "xmp", "XML:com.adobe.xmp"}:
        return 1  # else Pillow would decode a PNG to the end to look for it
    return image.getexif().get(0x0112, 1)


def _seen_size(image: "Image") -> tuple[int, int]:
    return image.size if _orientation(image) <= 4 else image.size[::-1]


def _as_seen(image: "Image", label: str) -> "Image":
    """Upright and on a white ground; DataError if all is the colour of the ground that is not transparent."""
    from PIL import Image, ImageOps

    if _orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
    if not image.has_transparency_data:
        return image
    layer = image.convert("RGBA")
    flat = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    if _constant(flat) and not _constant(layer):
        raise DataError(f"{label} shows nothing on a white ground: what it draws is transparent or white")
    return flat


def _constant(image: "Image") -> bool:
    return all(low == high for low, high in image.getextrema())  # type: ignore[misc]


def _fit(image: "Image", shape: tuple[int, int]) -> "Image":
    from PIL import Image, ImageOps

    width, height = (max(own, wanted) for own, wanted in zip(image.size, shape, strict=True))
    if image.size != (width, height):
        padded = Image.new(image.mode, (width, height))
        padded.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
        image = padded
    return image if image.size == shape else ImageOps.fit(image, shape, Image.Resampling.BILINEAR)
