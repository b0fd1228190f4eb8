"""`Images`, `Dataset.hold_out`, `Dataset.subset` and the bundled sample."""

from pathlib import Path

import pytest
import torch
from data_files import random_images, same, write_folder, zip_folder
from hypothesis import given, settings
from hypothesis import strategies as st

from eisnn.data import DataError, Dataset, Images, list_datasets, load


def numbered(counts: list[int]) -> Dataset:
    """A data set with counts[k] training images of class k, in mixed order, each with its number in the pixels."""
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    pixels = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1)
    train = Images(pixels, labels)
    return Dataset("numbered", tuple(f"class {k}" for k in range(len(counts))), train, train[:1])


def test_images_check_their_shapes_and_types() -> None:
    pixels, labels = torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64)
    assert len(Images(pixels, labels)) == 4
    with pytest.raises(DataError, match=r"pixels are float32 \[4, 3, 8, 8\], expected uint8 \[N, C, H, W\]"):
        Images(pixels.float(), labels)
    with pytest.raises(DataError, match=r"labels are int64 \[3\], expected int64 \[4\]"):
        Images(pixels, labels[:3])
    with pytest.raises(DataError, match="labels are int32"):
        Images(pixels, labels.int())


def fingerprint(**changes: object) -> str:
    images = random_images(12, 3)
    parts = {"name": "x", "classes": ("a", "b", "c"), "train": images[:8], "test": images[8:]}
    return Dataset(**(parts | changes)).fingerprint


@pytest.mark.parametrize("change", ["images", "labels", "split", "pixel", "name", "classes", "preprocessing", "dtype"])
def test_the_fingerprint_changes_with_everything(change: str) -> None:
    images = random_images(12, 3)
    train = images[:8]
    swapped = torch.tensor([3, 1, 2, 0, 4, 5, 6, 7])
    pixels = train.pixels.clone()
    pixels[7, 2, 31, 31] ^= 1
    changed: dict[str, object] = {
        "images": {"train": Images(train.pixels[swapped], train.labels)},
        "labels": {"train": Images(train.pixels, train.labels[torch.tensor([1, 0, *range(2, 8)])])},
        "split": {"train": images[:9], "test": images[9:]},
        "pixel": {"train": Images(pixels, train.labels)},
        "name": {"name": "y"},
        "classes": {"classes": ("a", "c", "b")},
        "preprocessing": {"preprocessing": {"fit": 32}},
        "dtype": {
            "train": Images(train.pixels.view(8, 3, 16, 64), train.labels),
            "test": Images(images[8:].pixels.view(4, 3, 16, 64), images[8:].labels),
        },
    }[change]
    assert fingerprint(**changed) != fingerprint() == fingerprint()
    assert len(fingerprint()) == 16


def test_the_fingerprint_does_not_depend_on_place_archive_or_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EISNN_DATA", str(tmp_path / "home"))
    write_folder(tmp_path / "root")
    archive = zip_folder(tmp_path / "root", tmp_path / "a.zip")
    options = [{"cache": False}, {"cache": True}, {"cache": True}]
    found = {load("folder", path, **how).fingerprint for path in (tmp_path / "root", archive) for how in options}
    assert len(found) == 1
    assert load("folder", archive, size=16).fingerprint not in found


def test_parts_of_a_data_set_have_their_own_fingerprints() -> None:
    train = numbered([6, 6]).train
    dataset = Dataset("x", ("a", "b"), train, train)
    parts = [
        dataset,
        dataset.hold_out(0.5, 0),
        dataset.hold_out(0.5, 1),
        dataset.subset(4, None, 0),
        dataset.subset(4, 1, 0),
        dataset.subset(None, 1, 0),
        dataset.subset(4, None, 1),
        dataset.padded(4),
    ]
    assert len({part.fingerprint for part in parts}) == len(parts)
    assert dataset.subset(None, None, 0) is dataset.padded(1) is dataset
    assert dataset.hold_out(0.5, 0).fingerprint == dataset.hold_out(0.5, 0).fingerprint


def test_a_data_set_checks_that_its_splits_fit() -> None:
    images = random_images(6, 3)
    with pytest.raises(DataError, match=r"differ: train is \('Images', \[3, 32, 32\]\), test is .*\[1, 28, 28\]"):
        Dataset("x", ("a", "b", "c"), images, random_images(6, 3, (1, 28, 28)))
    with pytest.raises(DataError, match="test of x has labels outside of 0 to 1"):
        Dataset("x", ("a", "b"), images[:2], images)
    with pytest.raises(DataError, match="train of x has labels outside of 0 to 2"):
        Dataset("x", ("a", "b", "c"), Images(images.pixels, images.labels - 1), images)


def test_others_ask_the_data_set_for_the_shape_of_its_samples() -> None:
    images = random_images(4, 2, (1, 5, 7))
    dataset = Dataset("x", ("a", "b"), images, images)
    assert (dataset.channels, dataset.image_size) == (1, (5, 7))
    padded = dataset.padded(6)
    assert (padded.image_size, padded.preprocessing) == ((6, 7), {"padded_to": 6})


def test_images_are_indexed_by_tensor_and_slice() -> None:
    images = random_images(6, 3)
    assert same(images[torch.tensor([1, 3])], images[1:4:2])
    assert images[images.labels == 2].labels.tolist() == [2, 2]
    assert same(images.to("cpu"), images)


@settings(deadline=None, max_examples=30)
@given(
    counts=st.lists(st.integers(2, 30), min_size=1, max_size=5),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**32),
)
def test_hold_out_splits_every_class_and_loses_nothing(counts: list[int], fraction: float, seed: int) -> None:
    dataset = numbered(counts)
    parts = dataset.hold_out(fraction, seed)
    again = dataset.hold_out(fraction, seed)
    assert same(parts.train, again.train)
    assert same(parts.test, again.test)
    for label, count in enumerate(counts):
        held = int((parts.test.labels == label).sum())
        assert 1 <= held <= count - 1
        assert abs(held - fraction * count) <= 1
    numbers = torch.cat((parts.train.pixels, parts.test.pixels)).flatten()
    assert numbers.sort().values.tolist() == list(range(sum(counts)))
    for part in (parts.train, parts.test):
        assert torch.equal(part.labels, dataset.train.labels[part.pixels.flatten().long()])
        assert (part.pixels.flatten().long().diff() > 0).all()  # the old order


def test_hold_out_depends_on_the_seed() -> None:
    dataset = numbered([40, 40])
    assert not same(dataset.hold_out(0.5, 0).test, dataset.hold_out(0.5, 1).test)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_hold_out_rejects_fractions_outside_0_to_1(fraction: float) -> None:
    with pytest.raises(DataError, match="between 0 and 1"):
        numbered([4]).hold_out(fraction, 0)


def test_hold_out_rejects_classes_of_one_image() -> None:
    with pytest.raises(DataError, match="class 'class 1' has 1 training images"):
        numbered([4, 1]).hold_out(0.5, 0)


@settings(deadline=None, max_examples=30)
@given(counts=st.lists(st.integers(3, 30), min_size=1, max_size=5), each=st.integers(0, 2), more=st.integers(0, 4))
def test_a_subset_has_as_many_of_each_class(counts: list[int], each: int, more: int) -> None:
    dataset = numbered(counts)
    asked = each * len(counts) + more % len(counts) or 1
    small = dataset.subset(asked, None, seed=3)
    assert same(small.train, dataset.subset(asked, None, seed=3).train)
    assert same(small.test, dataset.test)
    assert len(small.train) == asked
    each_class = small.train.labels.bincount(minlength=len(counts))
    assert int(each_class.max() - each_class.min()) <= 1
    assert torch.equal(small.train.labels, dataset.train.labels[small.train.pixels.flatten().long()])
    assert (small.train.pixels.flatten().long().diff() > 0).all()  # the old order


def test_a_subset_depends_on_the_seed_and_is_of_either_split() -> None:
    dataset = numbered([40, 40])
    assert not same(dataset.subset(10, None, 0).train, dataset.subset(10, None, 1).train)
    both = Dataset("both", dataset.classes, dataset.train, dataset.train).subset(None, 4, 0)
    assert len(both.train) == 80
    assert both.test.labels.bincount().tolist() == [2, 2]
    assert same(dataset.subset(80, None, 0).train, dataset.train)  # all there are


@pytest.mark.parametrize(("count", "says"), [(0, "0 images are asked for"), (8, "need 4 of class 'class 1', .* has 3")])
def test_a_subset_rejects_what_is_not_there(count: int, says: str) -> None:
    with pytest.raises(DataError, match=says):
        numbered([9, 3]).subset(count, None, 0)


def test_bundled_sample_is_cifar10() -> None:
    sample = load("cifar10-sample")
    assert sample.name == "cifar10-sample"
    assert sample.name in list_datasets()
    assert sample.train.pixels.shape == (5000, 3, 32, 32)
    assert sample.test.pixels.shape == (1000, 3, 32, 32)
    assert sample.train.labels.bincount().tolist() == [500] * 10
    assert sample.test.labels.bincount().tolist() == [100] * 10
    # Published channel statistics of CIFAR-10; 500 of 5,000 images a class are near them.
    means = sample.train.pixels.float().mean((0, 2, 3)) / 255
    torch.testing.assert_close(means, torch.tensor([0.4914, 0.4822, 0.4465]), atol=0.01, rtol=0)


def test_bundled_sample_has_no_image_twice() -> None:
    sample = load("cifar10-sample")
    pixels = torch.cat((sample.train.pixels, sample.test.pixels)).flatten(1)
    assert len(pixels.unique(dim=0)) >= len(pixels) - 5  # CIFAR-10 itself has a few duplicates
