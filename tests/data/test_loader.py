"""Loader: one stream of batches, whatever the device, the step it begins at or the number of processes."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from data_files import random_images
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from eisnn.bench import ResidentMemory
from eisnn.data import Augmentation, Batch, DataError, Images, Loader
from eisnn.data.stream import stream

AUGMENTATION = Augmentation(
    crop_padding=2, flip=True, cutout="rectangle", resized_crop=(0.3, 1.0), color_jitter=(0.4, 0.4, 0.4, 0.1)
)


def numbered(n: int) -> Images:
    """Image k has label k."""
    return Images(random_images(n, 1, (3, 8, 8)).pixels, torch.arange(n))


def identical(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) and a.weight == b.weight
        for a, b in zip(one, other, strict=True)
    )


def labels(batches: list[Batch]) -> list[int]:
    return torch.cat([batch.labels for batch in batches]).tolist()


def test_a_loader_is_asked_for_an_epoch():
    with pytest.raises(TypeError, match=r"for batch in loader.epoch\(k\)"):
        next(iter(Loader(numbered(8), 4)))


def test_plain_epoch_gives_every_image_once_in_order_scaled_to_1() -> None:
    images = numbered(10)
    loader = Loader(images, 4)
    batches = list(loader.epoch())
    assert len(loader) == 3
    assert [len(batch.labels) for batch in batches] == [4, 4, 2]
    assert all(batch.weight == 1.0 for batch in batches)
    assert labels(batches) == list(range(10))
    assert torch.equal(torch.cat([batch.images for batch in batches]), images.pixels.float() / 255)


def test_shuffled_epochs_are_permutations_that_depend_on_seed_and_epoch_only() -> None:
    loader = Loader(numbered(50), 8, shuffle=True, seed=3)
    first, second = labels(list(loader.epoch(0))), labels(list(loader.epoch(1)))
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second != list(range(50))
    assert labels(list(loader.epoch(0))) == first
    assert labels(list(Loader(numbered(50), 25, shuffle=True, seed=3).epoch(0))) == first
    assert labels(list(Loader(numbered(50), 8, shuffle=True, seed=4).epoch(0))) != second


def test_images_and_labels_stay_together() -> None:
    images = numbered(30)
    for batch in Loader(images, 7, shuffle=True).epoch():
        assert torch.equal(batch.images, images.pixels[batch.labels].float() / 255)


def test_every_appearance_of_an_image_is_augmented_anew() -> None:
    one = random_images(1, 1, (3, 8, 8))
    copies = Images(one.pixels.expand(20, 3, 8, 8), torch.zeros(20, dtype=torch.int64))
    loader = Loader(copies, 5, augmentation=AUGMENTATION, shuffle=True)
    first = torch.cat([batch.images for batch in loader.epoch(0)])
    assert len(first.unique(dim=0)) == 20
    assert not torch.equal(first, torch.cat([batch.images for batch in loader.epoch(1)]))


class Positions(Augmentation):
    """Draws positions in the epoch and shows them instead of the images."""

    def draw(self, n: int, shape: Sequence[int], generator: torch.Generator) -> dict[str, Tensor]:
        return {"position": torch.arange(n)}

    def apply(self, pixels: Tensor, draws: dict[str, Tensor], size: int | None) -> Tensor:
        return draws["position"]


def test_draws_belong_to_positions_not_to_images() -> None:
    batches = list(Loader(numbered(10), 4, augmentation=Positions(), shuffle=True).epoch())
    assert [batch.images.tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


@pytest.mark.parametrize("start", [0, 2])
@pytest.mark.parametrize("mixed", [False, True])
def test_batches_augmented_together_are_those_augmented_alone(
    monkeypatch: pytest.MonkeyPatch, mixed: bool, start: int
) -> None:
    """As on a GPU: three at a time, the last group and the last batch smaller."""
    augmentation = Augmentation(crop_padding=1, flip=True, cutout="rectangle", cutmix=1.0 if mixed else 0.0)
    loader = Loader(numbered(23), 4, augmentation=augmentation, shuffle=True)
    alone = list(loader.epoch(1, start))
    monkeypatch.setattr(Loader, "_at_once", 3)
    together = list(loader.epoch(1, start))
    assert identical(alone, together)
    if mixed:
        assert all(torch.equal(a.mixture.share, b.mixture.share) for a, b in zip(alone, together, strict=True))


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(1, 20),
    batch_size=st.integers(1, 8),
    epoch=st.integers(0, 3),
    start=st.floats(0, 1),
    world_size=st.integers(1, 3),
    shuffle=st.booleans(),
    augmentation=st.sampled_from([None, AUGMENTATION]),
)
def test_images_that_stay_on_the_disk_make_the_batches_of_resident_ones(
    n: int, batch_size: int, epoch: int, start: float, world_size: int, shuffle: bool, augmentation: Augmentation | None
) -> None:
    images = numbered(n)
    with tempfile.NamedTemporaryFile() as file:
        images.pixels.numpy().tofile(file)
        file.flush()
        pixels = torch.from_file(file.name, size=images.pixels.numel(), dtype=torch.uint8).view_as(images.pixels)
        for rank in range(world_size):
            resident, streamed = (
                Loader(
                    split,
                    batch_size,
                    augmentation=augmentation,
                    shuffle=shuffle,
                    size=6,
                    rank=rank,
                    world_size=world_size,
                    resident=split is images,
                )
                for split in (images, Images(pixels, images.labels))
            )
            first = round(start * len(resident))
            assert identical(list(streamed.epoch(epoch, first)), list(resident.epoch(epoch, first)))


def test_streaming_reads_no_more_than_its_batches(tmp_path: Path) -> None:
    """The file is sparse and of 2 GiB, more than a test should load."""
    n = 2**31 // (3 * 64 * 64)
    with (tmp_path / "pixels").open("wb") as file:
        file.truncate(n * 3 * 64 * 64)
    pixels = torch.from_file(str(tmp_path / "pixels"), size=n * 3 * 64 * 64, dtype=torch.uint8).view(n, 3, 64, 64)
    loader = Loader(Images(pixels, torch.arange(n)), 32, shuffle=True, resident=False)
    with ResidentMemory() as memory:
        for batch, _ in zip(loader.epoch(), range(10), strict=False):
            assert batch.images.shape == (32, 3, 64, 64)
    assert memory.growth < 2**28


def test_streaming_reads_one_step_ahead_and_no_further() -> None:
    asked = []

    def batches() -> Iterator[Tensor]:
        for step in range(4):
            asked.append(step)
            yield torch.tensor([step])

    pixels = torch.arange(8, dtype=torch.uint8).view(4, 2)
    streamed = stream(pixels, batches(), torch.device("cpu"))
    assert asked == []
    for step in range(4):
        assert torch.equal(next(streamed), pixels[step : step + 1])
        assert asked == list(range(min(step + 2, 4)))
    assert next(streamed, None) is None


def test_an_error_of_the_reading_thread_arrives() -> None:
    streamed = stream(torch.zeros(4, 2, dtype=torch.uint8), [torch.tensor([0]), torch.tensor([4])], torch.device("cpu"))
    next(streamed)
    with pytest.raises(IndexError):
        next(streamed)


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(1, 20),
    batch_size=st.integers(1, 8),
    world_size=st.integers(1, 5),
    shuffle=st.booleans(),
    augmentation=st.sampled_from([None, AUGMENTATION]),
    seed=st.integers(0, 2**40),
)
def test_processes_share_the_batches_of_one(
    n: int, batch_size: int, world_size: int, shuffle: bool, augmentation: Augmentation | None, seed: int
) -> None:
    images = numbered(n)

    def epoch(rank: int, world_size: int) -> list[Batch]:
        loader = Loader(
            images,
            batch_size,
            augmentation=augmentation,
            shuffle=shuffle,
            seed=seed,
            size=6,
            rank=rank,
            world_size=world_size,
        )
        return list(loader.epoch(2))

    whole = epoch(0, 1)
    parts = [epoch(rank, world_size) for rank in range(world_size)]
    assert all(len(part) == len(whole) for part in parts)
    for joint, *own in zip(whole, *parts, strict=True):
        real = [batch for batch in own if batch.weight > 0]
        assert [len(batch.labels) for batch in real] == [
            len(piece) for piece in joint.labels.tensor_split(world_size) if len(piece)
        ]
        assert torch.equal(torch.cat([batch.labels for batch in real]), joint.labels)
        torch.testing.assert_close(torch.cat([batch.images for batch in real]), joint.images, atol=1e-5, rtol=0)

        def loss(batch: Batch) -> Tensor:
            return (batch.images.mean((1, 2, 3)) * (batch.labels + 1)).double().mean()

        average = sum(batch.weight * loss(batch) for batch in own) / world_size
        torch.testing.assert_close(average, loss(joint), atol=1e-6, rtol=1e-5)


def test_process_without_an_image_gets_a_placeholder_of_weight_0() -> None:
    batches = [list(Loader(numbered(9), 4, rank=rank, world_size=3).epoch())[-1] for rank in range(3)]
    assert [batch.labels.tolist() for batch in batches] == [[8], [8], [8]]
    assert [batch.weight for batch in batches] == [3.0, 0.0, 0.0]


@pytest.mark.parametrize("world_size", [1, 3])
def test_start_gives_the_rest_of_the_epoch(world_size: int) -> None:
    loader = Loader(
        numbered(23), 4, augmentation=AUGMENTATION, shuffle=True, seed=5, rank=world_size - 1, world_size=world_size
    )
    whole = list(loader.epoch(3))
    assert len(whole) == len(loader) == 6
    for start in range(len(loader) + 1):
        assert identical(list(loader.epoch(3, start)), whole[start:])


def test_interleaved_epochs_do_not_disturb_each_other_or_the_global_generator() -> None:
    loader = Loader(numbered(12), 4, augmentation=AUGMENTATION, shuffle=True)
    expected = list(loader.epoch(0))
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    mixed = []
    for batch, _ in zip(loader.epoch(0), loader.epoch(1), strict=True):
        mixed.append(batch)
    assert identical(mixed, expected)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_seed_and_epoch_are_not_interchangeable() -> None:
    one = Loader(numbered(50), 50, shuffle=True, seed=0)
    other = Loader(numbered(50), 50, shuffle=True, seed=1)
    assert labels(list(one.epoch(1))) != labels(list(other.epoch(0)))


def test_larger_images_are_resized_and_smaller_ones_refused() -> None:
    images = random_images(4, 2, (3, 16, 16))
    (batch,) = Loader(images, 4, size=8).epoch()
    expected = torch.nn.functional.interpolate(images.pixels.float() / 255, (8, 8), mode="bilinear", antialias=True)
    torch.testing.assert_close(batch.images, expected, atol=1e-6, rtol=0)
    with pytest.raises(DataError, match="16x16 pixels are smaller than size 32"):
        Loader(images, 4, size=32)
    (batch,) = Loader(images, 4, size=32, augmentation=Augmentation(resized_crop=(0.5, 1.0))).epoch()
    assert batch.images.shape == (4, 3, 32, 32)


def test_wrong_values_are_refused() -> None:
    images = numbered(4)
    with pytest.raises(DataError, match="no images"):
        Loader(images[:0], 2)
    with pytest.raises(DataError, match="batch_size is 0"):
        Loader(images, 0)
    with pytest.raises(DataError, match="rank is 2 and world_size 2"):
        Loader(images, 2, rank=2, world_size=2)
    with pytest.raises(DataError, match="seed is -1"):
        Loader(images, 2, seed=-1)
    loader = Loader(images, 2)
    for epoch, start in ((0, 3), (0, -1), (-1, 0)):
        with pytest.raises(DataError, match=rf"epoch is {epoch} and start {start}, .* start in 0\.\.2"):
            loader.epoch(epoch, start)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("resident", [True, False])
def test_batches_on_the_device_are_those_of_the_cpu_and_nothing_waits(resident: bool) -> None:
    arguments = {"augmentation": AUGMENTATION, "shuffle": True, "size": 6}
    on_cpu = list(Loader(numbered(40), 16, **arguments).epoch())
    on_device = Loader(numbered(40), 16, device="cuda", resident=resident, **arguments).epoch()
    batches = [next(on_device)]  # the draws move to the device at the first step
    torch.cuda.set_sync_debug_mode("error")
    try:
        batches += list(on_device)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for there, here in zip(batches, on_cpu, strict=True):
        assert torch.equal(there.labels.cpu(), here.labels)
        torch.testing.assert_close(there.images.cpu(), here.images, atol=1e-5, rtol=0)
