"""An image becomes what a person would see, whatever its mode, its format and the images beside it; or is an error."""

import io
import shutil
import struct
import unicodedata
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import random_images, same, save, write_folder, write_tiny, zip_folder
from PIL import Image, ImageOps

from eisnn.data import DataError, Images, load
from eisnn.data.images import decode

DARK, LIGHT = (200, 40, 10), (250, 240, 120)
WIDTH, HEIGHT = 16, 8


def picture() -> Image.Image:
    """Dark on the left, light on the right."""
    image = Image.new("RGB", (WIDTH, HEIGHT), DARK)
    image.paste(LIGHT, (WIDTH // 2, 0, WIDTH, HEIGHT))
    return image


def folder_of(root: Path, content: bytes, suffix: str) -> Path:
    """An image folder in which every image has this content."""
    for split in ("train", "test"):
        (root / split / "ant").mkdir(parents=True, exist_ok=True)
        (root / split / "ant" / f"one{suffix}").write_bytes(content)
    return root


def seen(root: Path, content: bytes, suffix: str = ".png", **options: int) -> torch.Tensor:
    """The pixels [C, H, W] that one file becomes."""
    return load("folder", folder_of(root, content, suffix), cache=False, **options).train.pixels[0]


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noisy(size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(random_images(1, 1, (3, *size)).pixels[0].permute(1, 2, 0).numpy())


def gray(color: tuple[int, int, int]) -> int:
    return Image.new("RGB", (1, 1), color).convert("L").getpixel((0, 0))


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        *(("RGB", kind) for kind in ("PNG", "JPEG", "WEBP", "BMP")),
        *(("L", kind) for kind in ("PNG", "JPEG", "BMP")),
        *(("P", kind) for kind in ("PNG", "BMP")),
        *(("RGBA", kind) for kind in ("PNG", "WEBP")),
        ("LA", "PNG"),
        ("CMYK", "JPEG"),
    ],
)
def test_every_mode_shows_its_colours(mode: str, kind: str, tmp_path: Path) -> None:
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(kind, {})
    suffix = {"JPEG": ".jpg"}.get(kind, f".{kind.lower()}")
    pixels = seen(tmp_path, encoded(picture().convert(mode, palette=Image.Palette.ADAPTIVE), kind, **options), suffix)
    colors = [[gray(color)] if mode.startswith("L") else color for color in (DARK, LIGHT)]
    expected = torch.tensor(colors).mT[:, None, :].repeat_interleave(WIDTH // 2, 2).expand(-1, HEIGHT, -1)
    torch.testing.assert_close(pixels.int(), expected.int(), atol=3 if kind == "JPEG" else 0, rtol=0)


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_one_bit_is_black_and_white(kind: str, tmp_path: Path) -> None:
    image = Image.new("1", (4, 2))
    image.putpixel((3, 1), 1)
    assert seen(tmp_path, encoded(image, kind), f".{kind.lower()}").tolist() == [[[0, 0, 0, 0], [0, 0, 0, 255]]]


def png(bits: int, color: int, rows: np.ndarray) -> bytes:
    """A PNG file whose samples are given as they are stored, big-endian."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = rows.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    content = b"".join(b"\0" + row.tobytes() for row in rows)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("color", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_more_than_8_bits_are_refused(color: int, channels: int, tmp_path: Path) -> None:
    """12 bits of a camera in 16 would lose all but their upper four."""
    rows = np.linspace(0, 3820, 8 * 8 * channels).astype(">u2").reshape(8, 8, channels)
    with pytest.raises(DataError, match=r"one\.png.* has mode .* of 16 bits, expected 8 bits a channel"):
        seen(tmp_path, png(16, color, rows))


def test_what_is_transparent_lies_on_a_white_ground(tmp_path: Path) -> None:
    hidden = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    alpha = np.zeros((8, 8), np.uint8)
    alpha[2:4], alpha[4:6] = 255, 128
    expected = hidden * (alpha[..., None] / 255) + 255.0 * (1 - alpha[..., None] / 255)
    image = Image.fromarray(np.dstack((hidden, alpha)))
    pixels = seen(tmp_path, encoded(image)).permute(1, 2, 0)
    torch.testing.assert_close(pixels.double(), torch.from_numpy(expected), atol=1, rtol=0)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_a_drawing_in_alpha_is_seen(mode: str, tmp_path: Path) -> None:
    alpha = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4)
    image = Image.new(mode, (8, 8))
    image.putalpha(alpha)
    assert torch.equal(seen(tmp_path, encoded(image))[0], 255 - torch.from_numpy(np.array(alpha)))


@pytest.mark.parametrize("transparent", [0, 2])
def test_a_transparent_colour_of_a_palette_is_white(transparent: int, tmp_path: Path) -> None:
    image = Image.fromarray(np.arange(4, dtype=np.uint8).reshape(2, 2))
    image = image.convert("P", palette=Image.Palette.ADAPTIVE)
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    image.putdata([0, 1, 2, 3])
    pixels = seen(tmp_path, encoded(image, transparency=transparent)).flatten(1).T.tolist()
    colors = [[10, 20, 30], [40, 50, 60], [70, 80, 90], [100, 110, 120]]
    colors[transparent] = [255] * 3
    assert pixels == colors


@pytest.mark.parametrize("ink", ["white on clear", "all clear"])
def test_a_drawing_that_nobody_sees_is_an_error(ink: str, tmp_path: Path) -> None:
    image = Image.new("RGBA", (8, 8), (255, 255, 255, 0))
    image.paste((255, 255, 255, 255) if ink == "white on clear" else (9, 9, 9, 0), (2, 2, 6, 6))
    with pytest.raises(DataError, match=r"one\.png shows nothing on a white ground"):
        seen(tmp_path, encoded(image))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [None, 20])
def test_photographs_stand_upright(orientation: int, size: int | None, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = picture()
    photo.paste((0, 0, 0), (0, 0, 3, 2))  # so that all eight differ
    content = encoded(photo, "JPEG", quality=100, subsampling=0, exif=exif)
    with Image.open(io.BytesIO(content)) as opened:
        upright = ImageOps.exif_transpose(opened)
    expected = torch.from_numpy(np.array(upright)).permute(2, 0, 1)
    pixels = seen(tmp_path, content, ".jpg") if size is None else seen(tmp_path, content, ".jpg", size=size)
    if size is not None:
        (height, width), side = expected.shape[1:], size
        pixels = pixels[:, (side - height) // 2 :, (side - width) // 2 :][:, :height, :width]
    assert torch.equal(pixels, expected)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_animation_is_refused(kind: str, tmp_path: Path) -> None:
    frames = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in random_images(3, 1, (3, 8, 8)).pixels]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="is animated; give its frames as images"):
        seen(tmp_path, content, f".{kind.lower()}")


@pytest.mark.parametrize("side", [9000, 14000])
def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(side: int, tmp_path: Path) -> None:
    content = encoded(Image.new("1", (side, side)))
    assert len(content) < 50_000
    with pytest.raises(DataError, match=r"one\.png"):
        seen(tmp_path, content, size=32)


def test_files_that_grow_out_of_measure_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, noise = encoded(Image.new("L", (3000, 1000))), encoded(noisy((40, 40)))
    assert seen(tmp_path / "few", content).shape == (1, 1000, 3000)
    monkeypatch.setattr(decode, "HARMLESS", 1 << 10)
    with pytest.raises(DataError, match=r"few grows from [0-9,]+ bytes to 6,000,000"):
        seen(tmp_path / "few", content)
    assert seen(tmp_path / "few", content, size=32).shape == (1, 32, 32)
    assert seen(tmp_path / "few", noise).shape == (3, 40, 40)


def test_a_damaged_chunk_of_a_png_is_refused_and_what_follows_its_end_is_not_read(tmp_path: Path) -> None:
    """Pillow may stop before it comes to the checksum of the pixels."""
    content = encoded(noisy((8, 8)).quantize(16))
    expected = seen(tmp_path, content)
    assert torch.equal(seen(tmp_path, content + b"a note that somebody left"), expected)
    begin, end = content.index(b"IDAT") - 4, content.index(b"IEND") - 8
    damaged = content[: end - 4] + bytes(4) + content[end:]
    with pytest.raises(DataError, match=rf"one\.png is damaged at byte {begin}; replace it"):
        seen(tmp_path, damaged)


def test_an_image_left_out_by_a_damaged_name_in_the_directory_of_an_archive_is_noticed(tmp_path: Path) -> None:
    write_folder(tmp_path / "root")
    archive = zip_folder(tmp_path / "root", tmp_path / "a.zip")
    content = archive.read_bytes()
    at = content.rindex(b"train/ant/01.png")
    for name in (b"train/ant/01.pnx", b"extra/ant/01.png"):
        archive.write_bytes(content[:at] + name + content[at + len(name) :])
        with pytest.raises(DataError, match=r"a\.zip is truncated, damaged"):
            load("folder", archive, cache=False)


def test_a_member_that_grows_out_of_measure_is_not_read(tmp_path: Path) -> None:
    write_folder(tmp_path / "root")
    archive = zip_folder(tmp_path / "root", tmp_path / "bomb.zip")
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as opened, opened.open("train/ant/x.png", "w") as member:
        for _ in range(5):
            member.write(bytes(1 << 26))
    assert archive.stat().st_size < 1 << 20
    with pytest.raises(DataError, match=r"train/ant/x\.png in .*bomb\.zip grows to 335,544,320 bytes"):
        load("folder", archive, cache=False)


def test_another_format_under_a_known_name_is_refused(tmp_path: Path) -> None:
    """Pillow would run PostScript."""
    for kind in ("GIF", "TIFF", "EPS"):
        with pytest.raises(DataError, match=r"one\.png is no PNG, JPEG, WebP or BMP image, or is damaged"):
            seen(tmp_path / kind, encoded(picture(), kind))


# --- one rule of sizes


@pytest.mark.parametrize("size", [8, 16, 40])
def test_what_an_image_becomes_does_not_depend_on_the_others(size: int, tmp_path: Path) -> None:
    for name, extra in (("alike", False), ("odd", True)):
        for split in ("train", "test"):
            for k, pixels in enumerate(random_images(3, 1, (3, 24, 32)).pixels):
                save(tmp_path / name / split / "ant" / f"{k}.png", pixels)
        if extra:
            save(tmp_path / name / "train" / "ant" / "9.png", random_images(1, 1, (3, 24, 33)).pixels[0])
    alike, odd = (load("folder", tmp_path / name, size=size, cache=False) for name in ("alike", "odd"))
    assert torch.equal(odd.train.pixels[:3], alike.train.pixels)
    assert torch.equal(odd.test.pixels, alike.test.pixels)
    assert alike.train.pixels.shape[-2:] == (size, size)
    assert alike.preprocessing == odd.preprocessing == {"fit": size}


def test_larger_images_are_cut_to_their_centred_square_and_smaller_ones_padded(tmp_path: Path) -> None:
    image = Image.fromarray(random_images(1, 1, (3, 20, 30)).pixels[0].permute(1, 2, 0).numpy())
    square = image.resize((10, 10), Image.Resampling.BILINEAR, box=(5, 0, 25, 20))
    small = torch.from_numpy(np.array(square)).permute(2, 0, 1)
    assert torch.equal(seen(tmp_path, encoded(image), size=10), small)
    plain = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    assert torch.equal(seen(tmp_path, encoded(image), size=20), plain[..., 5:25])
    wide = seen(tmp_path, encoded(image), size=24)  # rows are padded, columns cut
    assert torch.equal(wide[:, 2:22], plain[..., 3:27])
    assert not wide[:, :2].any()
    assert not wide[:, 22:].any()


# --- names


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("inside", ["", "some/where"])
def test_a_class_may_be_called_train(zipped: bool, inside: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    train, _ = write_folder(root)
    for split in ("train", "test"):
        (root / split / "bee").rename(root / split / "train")
    path = zip_folder(root, tmp_path / "a.zip", inside) if zipped else root
    dataset = load("folder", path, cache=False)
    assert dataset.classes == ("ant", "train")
    assert same(dataset.train, train)


def test_two_data_sets_in_one_archive_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "root" / "one")
    shutil.copytree(tmp_path / "root" / "one", tmp_path / "root" / "two")
    with pytest.raises(DataError, match=r"more than one train/ folder: in \['one/', 'two/'\]"):
        load("folder", zip_folder(tmp_path / "root", tmp_path / "a.zip"))


@pytest.mark.parametrize("zipped", [False, True])
def test_class_names_that_look_the_same_are_the_same(zipped: bool, tmp_path: Path) -> None:
    root = tmp_path / "root"
    train, test = write_folder(root)
    for split, form in (("train", "NFC"), ("test", "NFD")):
        (root / split / "bee").rename(root / split / unicodedata.normalize(form, "Ähre"))
    dataset = load("folder", zip_folder(root, tmp_path / "a.zip") if zipped else root, cache=False)
    assert dataset.classes == ("ant", unicodedata.normalize("NFC", "Ähre"))
    assert same(dataset.train, train)
    assert same(dataset.test, test)


def test_archives_with_backslashes_or_the_same_name_twice_are_refused(tmp_path: Path) -> None:
    content = encoded(picture())
    for names, message in (
        (["train\\ant\\0.png", "test\\ant\\0.png"], r"names with backslashes, such as 'train\\\\ant\\\\0\.png'"),
        (["test/ant/0.png", "train/ant/0.png", "train/ant/0.png"], r"holds 'train/ant/0\.png' more than once"),
    ):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            for name in names:
                archive.writestr(name, content)
        with pytest.raises(DataError, match=message):
            load("folder", tmp_path / "a.zip")


def test_links_in_circles_end(tmp_path: Path) -> None:
    write_folder(tmp_path)
    for name in ("one", "two", "three"):
        (tmp_path / "train" / "ant" / name).symlink_to(tmp_path / "train")
    with pytest.raises(DataError, match="is misplaced"):
        load("folder", tmp_path)


def test_tiny_imagenet_goes_the_same_way(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    file = next((tmp_path / "train" / "n01" / "images").iterdir())
    file.write_bytes(encoded(picture(), "GIF"))
    with pytest.raises(DataError, match=rf"{file.name} is no PNG, JPEG, WebP or BMP image, or is damaged"):
        load("tiny-imagenet", tmp_path)


def test_a_split_of_images_has_no_images_but_uint8() -> None:
    with pytest.raises(DataError, match="expected uint8"):
        Images(torch.zeros(1, 3, 2, 2), torch.zeros(1, dtype=torch.int64))
