"""Every format is read exactly, and every damage is an error that names the file."""

import gzip
import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from data_files import (
    random_images,
    same,
    save,
    tar_folder,
    write_cifar,
    write_fashion,
    write_folder,
    write_mosaics,
    write_tiny,
    zip_folder,
)
from PIL import Image

from eisnn.data import DataError, list_datasets, load
from eisnn.data.errors import reading
from eisnn.data.images import cifar, fashion_mnist
from eisnn.data.images.mosaic import CIFAR10, tile, untile


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The official formats with fewer records, and a data folder of our own."""
    monkeypatch.setenv("EISNN_DATA", str(tmp_path / "home"))
    ten, hundred = cifar.CIFAR10, cifar.CIFAR100
    monkeypatch.setattr(cifar, "CIFAR10", replace(ten, train=dict.fromkeys(ten.train, 20), test={"test_batch.bin": 30}))
    monkeypatch.setattr(cifar, "CIFAR100", replace(hundred, train={"train.bin": 200}, test={"test.bin": 100}))
    monkeypatch.setattr(fashion_mnist, "COUNTS", {"train": 30, "t10k": 20})


def cut(file: Path, keep: float = 0.5) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * keep)])


def overwrite(file: Path, at: int, byte: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] = byte
    file.write_bytes(content)


# --- CIFAR, binary


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_read_exactly_however_it_is_stored(name: str, tmp_path: Path) -> None:
    layout = cifar.CIFAR10 if name == "cifar10" else cifar.CIFAR100
    folder = tmp_path / "in" / layout.folder
    train, test = write_cifar(folder, layout)
    archive = tar_folder(folder, tmp_path / "in" / layout.archive)
    renamed = shutil.copy(archive, tmp_path / "renamed.tgz")
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(archive, alone)
    for path in (folder, folder.parent, archive, renamed, alone, str(folder)):
        dataset = load(name, path, cache=False)
        assert same(dataset.train, train), path
        assert same(dataset.test, test), path
        assert dataset.name == name
    assert dataset.classes == (CIFAR10 if name == "cifar10" else tuple(f"class_{k}" for k in range(100)))


def test_cifar_class_order_is_that_of_the_names_file(tmp_path: Path) -> None:
    write_cifar(tmp_path, cifar.CIFAR10)
    (tmp_path / "batches.meta.txt").write_text("\n".join(reversed(CIFAR10)) + "\n")
    assert load("cifar10", tmp_path, cache=False).classes == CIFAR10[::-1]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: cut(f / "data_batch_3.bin"), r"data_batch_3\.bin has 30,730 bytes, expected 61,460"),
        (lambda f: (f / "data_batch_2.bin").unlink(), r"data_batch_2\.bin is missing"),
        (lambda f: (f / "test_batch.bin").unlink(), r"test_batch\.bin is missing"),
        (lambda f: (f / "batches.meta.txt").unlink(), r"batches\.meta\.txt is missing"),
        (lambda f: (f / "batches.meta.txt").write_text("cat\ndog\n"), r"batches\.meta\.txt names 2 classes"),
        (lambda f: overwrite(f / "data_batch_1.bin", 3073, 10), r"data_batch_1\.bin has label 10, expected 0 to 9"),
    ],
)
def test_damaged_cifar_folder_is_named(damage, message: str, tmp_path: Path) -> None:
    write_cifar(tmp_path, cifar.CIFAR10)
    damage(tmp_path)
    with pytest.raises(DataError, match=message):
        load("cifar10", tmp_path)


def test_damaged_cifar_archives_are_named(tmp_path: Path) -> None:
    folder = tmp_path / cifar.CIFAR10.folder
    write_cifar(folder, cifar.CIFAR10)
    archive = tar_folder(folder, tmp_path / "cifar.tar.gz")
    whole = archive.read_bytes()
    for broken in (
        whole[: len(whole) // 2],
        whole[:-4],  # only the end of gzip's checksum is missing
        whole[:-6] + bytes(6),  # a wrong checksum after complete members
        b"no archive",
        b"",
        gzip.compress(b"no tar"),
    ):
        archive.write_bytes(broken)
        with pytest.raises(DataError, match=r"cifar\.tar\.gz"):
            load("cifar10", archive)
    (folder / "test_batch.bin").unlink()
    tar_folder(folder, archive)
    with pytest.raises(DataError, match=r"cifar\.tar\.gz lacks \['test_batch\.bin'\].*binary version"):
        load("cifar10", archive)


def test_archives_that_grow_out_of_measure_are_not_read_to_the_end(tmp_path: Path) -> None:
    folder = tmp_path / cifar.CIFAR10.folder
    write_cifar(folder, cifar.CIFAR10)
    (folder / "readme.html").write_bytes(bytes(1 << 26))
    archive = tar_folder(folder, tmp_path / "cifar.tar.gz")
    write_fashion(tmp_path, fashion_mnist.COUNTS)
    labels = tmp_path / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(gzip.decompress(labels.read_bytes()) + bytes(1 << 26)))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"cifar\.tar\.gz has more than 1,\d{3},\d{3} bytes"):
            load("cifar10", archive)
        with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz has more than 38 bytes"):
            load("fashion-mnist", tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()


# --- mosaics


def test_mosaics_are_read_exactly_and_in_sorted_order(tmp_path: Path) -> None:
    pixels = write_mosaics(tmp_path, columns=3, rows=2)
    dataset = load("cifar10", tmp_path, cache=False)
    assert torch.equal(dataset.train.pixels, pixels["train"])
    assert torch.equal(dataset.test.pixels, pixels["test"])
    assert dataset.train.labels.tolist() == [k for k in range(10) for _ in range(6)]
    assert dataset.classes == CIFAR10 == tuple(sorted(CIFAR10))


def test_tiles_go_row_by_row() -> None:
    pixels = torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1).expand(6, 3, 32, 32)
    mosaic = tile(pixels, 3)
    assert mosaic.shape == (64, 96, 3)
    assert mosaic[::32, ::32, 0].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert torch.equal(untile(mosaic), pixels)
    with pytest.raises(DataError, match="6 images do not fill rows of 4"):
        tile(pixels, 4)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: cut(f / "train" / "cat.webp"), r"train.cat\.webp"),
        (lambda f: (f / "test" / "dog.webp").write_bytes(b"RIFF"), r"test.dog\.webp"),
        (lambda f: (f / "test" / "frog.webp").unlink(), r"test should hold.*missing \['frog'\]"),
        (lambda f: (f / "test" / "frog.webp").rename(f / "test" / "toad.webp"), r"surplus \['toad'\]"),
        (lambda f: Image.new("RGB", (64, 40)).save(f / "train" / "ship.webp"), r"ship\.webp is a RGB image of 64x40"),
        (lambda f: Image.new("RGB", (70, 32)).save(f / "train" / "ship.webp"), r"ship\.webp is a RGB image of 70x32"),
    ],
)
def test_damaged_mosaics_are_named(damage, message: str, tmp_path: Path) -> None:
    write_mosaics(tmp_path)
    damage(tmp_path)
    with pytest.raises(DataError, match=message):
        load("cifar10", tmp_path)


# --- Fashion-MNIST


@pytest.mark.parametrize("compress", [True, False])
def test_fashion_mnist_is_read_exactly(compress: bool, tmp_path: Path) -> None:
    train, test = write_fashion(tmp_path, fashion_mnist.COUNTS, compress)
    dataset = load("fashion-mnist", tmp_path)
    assert same(dataset.train, train)
    assert same(dataset.test, test)
    assert len(dataset.classes) == 10


def test_small_images_are_padded_centred_with_zeros(tmp_path: Path) -> None:
    train, _ = write_fashion(tmp_path, fashion_mnist.COUNTS)
    padded = load("fashion-mnist", tmp_path, size=32).train.pixels
    assert padded.shape == (30, 1, 32, 32)
    assert torch.equal(padded[..., 2:30, 2:30], train.pixels)
    assert padded.long().sum() == train.pixels.long().sum()
    assert load("fashion-mnist", tmp_path, size=20).train.pixels.shape[-2:] == (28, 28)
    with pytest.raises(DataError, match="size is 0"):
        load("fashion-mnist", tmp_path, size=0)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: cut(f / "train-images-idx3-ubyte.gz"), r"train-images-idx3-ubyte\.gz is truncated"),
        (lambda f: overwrite(f / "t10k-images-idx3-ubyte.gz", -5, 9), r"t10k-images-idx3-ubyte\.gz"),
        (lambda f: (f / "t10k-labels-idx1-ubyte.gz").unlink(), r"t10k-labels-idx1-ubyte\.gz"),
        (lambda f: (f / "train-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x03"), "does not begin with the idx header"),
        (lambda f: (f / "t10k-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x14" + bytes(19)), "holds 27 bytes"),
        (
            lambda f: (f / "t10k-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x14" + bytes(19) + b"\x0a"),
            "t10k-labels-idx1-ubyte in .* has label 10",
        ),
    ],
)
def test_damaged_fashion_mnist_is_named(damage, message: str, tmp_path: Path) -> None:
    write_fashion(tmp_path, fashion_mnist.COUNTS)
    damage(tmp_path)
    with pytest.raises(DataError, match=message):
        load("fashion-mnist", tmp_path)


# --- TinyImageNet


def test_tiny_imagenet_folder_and_archives_agree(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_tiny(root)
    dataset = load("tiny-imagenet", root, cache=False)
    assert dataset.classes == ("n01", "n02")  # sorted, not in the order of the annotations
    assert dataset.train.pixels.shape == (6, 3, 64, 64)
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.test.labels.tolist() == [1, 1, 0, 0]
    gray = dataset.train.pixels[0]
    assert torch.equal(gray[0], gray[2])
    for archive in (zip_folder(root, tmp_path / "flat.zip"), zip_folder(root, tmp_path / "deep.zip", "tiny-200")):
        other = load("tiny-imagenet", archive, cache=False)
        assert same(other.train, dataset.train)
        assert same(other.test, dataset.test)


def test_tiny_imagenet_is_rgb_even_if_all_is_gray(tmp_path: Path) -> None:
    write_tiny(tmp_path, train=1)
    for file in (tmp_path / "val" / "images").iterdir():
        save(file, random_images(1, 1, (1, 64, 64)).pixels[0])
    assert load("tiny-imagenet", tmp_path).train.pixels.shape == (2, 3, 64, 64)


def test_decoded_jpeg_is_what_pillow_decodes(tmp_path: Path) -> None:
    import numpy as np

    write_tiny(tmp_path)
    with Image.open(tmp_path / "train" / "n01" / "images" / "n01_1.JPEG") as image:
        expected = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    assert torch.equal(load("tiny-imagenet", tmp_path).train.pixels[1], expected)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: cut(f / "train" / "n01" / "images" / "n01_2.JPEG"), r"n01_2\.JPEG"),
        (lambda f: (f / "val" / "val_annotations.txt").unlink(), r"no val/val_annotations\.txt"),
        (lambda f: (f / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn99\n"), "line 1 of .* class 'n99'"),
        (lambda f: (f / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn01\n"), "3 have no label"),
        (lambda f: (f / "val" / "images" / "val_1.JPEG").unlink(), r"1 images are missing \['val/images/val_1"),
        (lambda f: save(f / "train" / "stray.JPEG", torch.zeros(3, 64, 64).byte()), r"stray\.JPEG.* is misplaced"),
        (
            lambda f: save(f / "train" / "n01" / "images" / "deep" / "x.JPEG", torch.zeros(3, 64, 64).byte()),
            r"x\.JPEG.* is misplaced",
        ),
        (
            lambda f: [file.rename(file.with_suffix(".txt")) for file in f.glob("train/*/images/*")],
            "no images train/WNID",
        ),
        (
            lambda f: (f / "val" / "val_annotations.txt").write_text("") or shutil.rmtree(f / "val" / "images"),
            r"val_annotations\.txt.* is empty",
        ),
        (lambda f: save(f / "val" / "images" / "val_0.JPEG", torch.zeros(3, 32, 64).byte()), r"val_0\.JPEG.* is 64x32"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_damaged_tiny_imagenet_is_named(damage, message: str, zipped: bool, tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_tiny(root)
    damage(root)
    with pytest.raises(DataError, match=message):
        load("tiny-imagenet", zip_folder(root, tmp_path / "tiny.zip") if zipped else root)


def test_damaged_zip_is_named(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_tiny(root)
    archive = zip_folder(root, tmp_path / "tiny.zip")
    whole = archive.read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(b"\xff\xd8\xff") + 300] ^= 1  # inside an image: the checksum of the member notices
    for broken in (whole[: len(whole) // 2], b"", b"PK", bytes(flipped)):
        archive.write_bytes(broken)
        with pytest.raises(DataError, match=r"tiny\.zip"):
            load("tiny-imagenet", archive)


# --- image folders


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("second", ["test", "val"])
def test_image_folder_is_read_exactly(second: str, channels: int, tmp_path: Path) -> None:
    root = tmp_path / "root"
    train, test = write_folder(root, ("train", second), channels)
    (root / "train" / ".DS_Store").write_bytes(b"?")
    (root / "train" / "ant" / "notes.txt").write_text("not an image")
    for path in (root, zip_folder(root, tmp_path / "a.zip"), zip_folder(root, tmp_path / "b.zip", "some/where")):
        dataset = load("folder", path)
        assert dataset.classes == ("ant", "bee")
        assert same(dataset.train, train)
        assert same(dataset.test, test)


@pytest.mark.parametrize("second", ["test", "val"])
def test_the_folder_of_the_splits_may_be_called_train_itself(second: str, tmp_path: Path) -> None:
    root = tmp_path / "outer" / "train"
    train, test = write_folder(root, ("train", second))
    archives = [zip_folder(root, tmp_path / f"{k}.zip", prefix) for k, prefix in enumerate(["train", "some/train"])]
    for path in (root.parent, root, *archives):
        dataset = load("folder", path)
        assert same(dataset.train, train)
        assert same(dataset.test, test)


def test_a_class_may_be_a_link(tmp_path: Path) -> None:
    train, _ = write_folder(tmp_path / "root")
    (tmp_path / "root" / "train" / "ant").rename(tmp_path / "elsewhere")
    (tmp_path / "root" / "train" / "ant").symlink_to(tmp_path / "elsewhere")
    assert same(load("folder", tmp_path / "root").train, train)


def test_one_colour_image_makes_all_rgb(tmp_path: Path) -> None:
    write_folder(tmp_path, channels=1)
    gray = load("folder", tmp_path).train.pixels
    assert gray.shape[1] == 1
    save(tmp_path / "test" / "bee" / "zz.png", random_images(1, 1, (3, 10, 12)).pixels[0])
    assert torch.equal(load("folder", tmp_path).train.pixels, gray.expand(-1, 3, -1, -1))


def test_images_of_different_sizes_need_a_size(tmp_path: Path) -> None:
    write_folder(tmp_path)
    save(tmp_path / "train" / "ant" / "zz.png", torch.full((3, 30, 20), 9, dtype=torch.uint8))
    with pytest.raises(DataError, match=r"00\.png is 12x10, .*zz\.png is 20x30"):
        load("folder", tmp_path)
    for size in (8, 16):  # the cache must keep them apart
        pixels = load("folder", tmp_path, size=size).train.pixels
        assert pixels.shape == (7, 3, size, size)
        assert (pixels[3] == 9).all()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: cut(f / "test" / "ant" / "00.png"), r"test.ant.00\.png"),
        (lambda f: shutil.rmtree(f / "test" / "ant"), r"only in train \['ant'\], only in test \[\]"),
        (lambda f: shutil.rmtree(f / "test"), "has no images in test/CLASS/ or val/CLASS/"),
        (
            lambda f: shutil.rmtree(f / "train" / "ant") or shutil.rmtree(f / "train" / "bee"),
            "no images in train/|does not hold",
        ),
        (lambda f: shutil.rmtree(f / "train"), "does not hold the data set 'folder'; expected"),
        (lambda f: save(f / "train" / "x.png", torch.zeros(3, 10, 12).byte()), r"x\.png.* is misplaced"),
        (lambda f: Image.new("I;16", (12, 10)).save(f / "train" / "ant" / "00.png"), "expected 8 bits"),
        (lambda f: (f / "train" / "ant" / "x.gif").touch(), r"x\.gif.* has a format that is not read; convert it"),
        (lambda f: (f / "test" / "bee" / "x.TIF").touch(), r"x\.TIF.* has a format that is not read; convert it"),
        (lambda f: [(f / s / "cat").mkdir() for s in ("train", "test")], r"t/cat.* is a class without images"),
        (lambda f: note(f / "test" / "cat"), r"test.cat.* is a class without images"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_damaged_image_folder_is_named(damage, message: str, zipped: bool, tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_folder(root)
    load("folder", root)  # what is cached does not hide what happens later
    damage(root)
    with pytest.raises(DataError, match=message):
        load("folder", zip_folder(root, tmp_path / "root.zip") if zipped else root)


def note(folder: Path) -> None:
    folder.mkdir()
    (folder / "notes.txt").write_text("not an image")


def test_an_image_is_neither_folder_nor_zip(tmp_path: Path) -> None:
    write_folder(tmp_path)
    with pytest.raises(DataError, match=r"00\.png is no complete zip archive; give a folder or a \.zip"):
        load("folder", tmp_path / "train" / "ant" / "00.png")


# --- names and places


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.png may not be read: denied\. Check its permissions"), reading("x.png"):
        raise PermissionError(13, "denied")


def test_wrong_names_and_paths_say_what_would_be_right(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="no data set 'cifar'; known are cifar10, cifar10-dvs, cifar10-sample, cifar100"
    ):
        load("cifar")
    with pytest.raises(DataError, match="the data set 'folder' needs a path"):
        load("folder")
    with pytest.raises(DataError, match=r"does not exist; for cifar10 give cifar-10-binary\.tar\.gz"):
        load("cifar10", tmp_path / "nowhere")
    for name in list_datasets():
        bundled = f"{name} comes with the package and takes no path"
        with pytest.raises(DataError, match=f"does not hold the data set '{name}'; expected|{bundled}"):
            load(name, tmp_path)
    with pytest.raises(DataError, match="takes no path"):
        load("cifar10-sample", tmp_path)


def test_not_found_says_where_it_looked_and_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EISNN_DATA", str(tmp_path / "empty"))
    with pytest.raises(DataError, match=r"not found in .*empty.cifar100.*download=True.*--download.*EISNN_DATA"):
        load("cifar100")


@pytest.mark.parametrize("place", ["", "cifar10"])
def test_data_folder_is_searched(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EISNN_DATA", str(tmp_path))
    pixels = write_mosaics(tmp_path / place)
    assert torch.equal(load("cifar10").train.pixels, pixels["train"])
