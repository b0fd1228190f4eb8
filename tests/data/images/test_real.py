"""The real data sets, where they are to be had."""

from pathlib import Path

import pytest
import torch

from eisnn.data import load
from eisnn.data.images.fashion_mnist import DEBIAN
from eisnn.data.images.mosaic import CIFAR10

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


def means(pixels: torch.Tensor) -> torch.Tensor:
    return torch.stack([channel.float().mean() for channel in pixels.unbind(1)]) / 255


@pytest.mark.skipif(not (SHARED / "cifar10").is_dir(), reason="CIFAR-10 is not in ../shared/data/cifar10")
def test_cifar10_has_the_published_counts_and_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EISNN_DATA", str(tmp_path))
    dataset = load("cifar10", SHARED / "cifar10")
    assert dataset.classes == CIFAR10
    assert dataset.train.labels.bincount().tolist() == [5000] * 10
    assert dataset.test.labels.bincount().tolist() == [1000] * 10
    torch.testing.assert_close(means(dataset.train.pixels), torch.tensor([0.4914, 0.4822, 0.4465]), atol=1e-4, rtol=0)
    again = load("cifar10", SHARED / "cifar10")  # from the cache
    assert torch.equal(again.train.pixels, dataset.train.pixels)
    assert torch.equal(again.test.labels, dataset.test.labels)

    sample = load("cifar10-sample")
    for split in ("train", "test"):
        whole, part = getattr(dataset, split), getattr(sample, split)
        rows = {row.numpy().tobytes() for row in whole.pixels[whole.labels == 3]}
        assert all(row.numpy().tobytes() in rows for row in part.pixels[part.labels == 3])


@pytest.mark.skipif(
    not (SHARED / "tiny-imagenet-20c.zip").is_file(), reason="there is no ../shared/data/tiny-imagenet-20c.zip"
)
def test_tiny_imagenet_of_20_classes() -> None:
    dataset = load("tiny-imagenet", SHARED / "tiny-imagenet-20c.zip", cache=False)
    assert len(dataset.classes) == 20
    assert dataset.train.pixels.shape == (10_000, 3, 64, 64)
    assert dataset.train.labels.bincount().tolist() == [500] * 20
    assert dataset.test.labels.bincount().tolist() == [50] * 20


@pytest.mark.skipif(
    not any(folder.is_dir() for folder in DEBIAN), reason="Debian's package dataset-fashion-mnist is not installed"
)
def test_fashion_mnist_of_debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EISNN_DATA", str(tmp_path))
    dataset = load("fashion-mnist", size=32)
    assert dataset.train.pixels.shape == (60_000, 1, 32, 32)
    assert dataset.train.labels.bincount().tolist() == [6000] * 10
    assert dataset.test.labels.bincount().tolist() == [1000] * 10
    inner = dataset.train.pixels[..., 2:30, 2:30]
    torch.testing.assert_close(means(inner), torch.tensor([0.2860]), atol=1e-4, rtol=0)  # as published
