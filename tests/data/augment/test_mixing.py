"""CutMix and Mixup: what images are made of, that labels have the same shares, and that every process sees the same."""

import pytest
import torch
from circuits import rng
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from eisnn.data import Augmentation, Loader
from eisnn.data.augment.mixing import draw_mixing, mix
from eisnn.data.dataset import Images

SETTINGS = [{"cutmix": 1.0}, {"mixup": 0.4}, {"cutmix": 0.5, "mixup": 2.0}]


def batch(n: int, size: int = 10, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images that are constant, each of its own value, and labels."""
    values = torch.rand(n, generator=rng(seed))
    return values.view(-1, 1, 1, 1).expand(n, 3, size, size), torch.arange(n)


@given(st.integers(0, 10**6), st.integers(1, 9), st.sampled_from(SETTINGS))
def test_an_image_is_made_of_two_in_the_shares_of_their_labels(seed: int, n: int, setting: dict) -> None:
    images, labels = batch(n, seed=seed)
    draws = draw_mixing(n, setting.get("cutmix", 0.0), setting.get("mixup", 0.0), rng(seed))
    mixed, mixture = mix(images, labels, draws)
    assert torch.equal(mixture.labels, labels.flip(0))
    assert (mixture.share >= 0).all()
    assert (mixture.share <= 1).all()
    share = mixture.share[:, None]
    expected = share * images.mean((2, 3)) + (1 - share) * images.flip(0).mean((2, 3))
    torch.testing.assert_close(mixed.mean((2, 3)), expected, atol=1e-6, rtol=0)


def test_cutmix_pastes_one_box_and_mixup_blends_evenly() -> None:
    n, size = 200, 12
    images, labels = batch(n, size)
    mixed, mixture = mix(images, labels, draw_mixing(n, 1.0, 1.0, rng(3)))
    kinds = {"box": 0, "blend": 0}
    for k, image in enumerate(mixed):
        own, other = images[k, 0, 0, 0], images[n - 1 - k, 0, 0, 0]
        assert torch.equal(image[0], image[2])  # all channels alike
        if ((image == own) | (image == other)).all():
            rows, columns = (image[0] == other).nonzero().unbind(1)
            if len(rows):
                inside = image[0, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
                assert (inside == other).all()  # a box without holes
            assert float(mixture.share[k]) == pytest.approx(1 - len(rows) / size**2, abs=1e-6)
            kinds["box"] += 1
        else:
            assert float(image.std()) < 1e-6
            kinds["blend"] += 1
    assert 70 < kinds["box"] < 130


@pytest.mark.parametrize("a", [0.2, 1.0, 5.0])
def test_the_share_is_beta_distributed(a: float) -> None:
    draws = draw_mixing(20000, 0.0, a, rng(0))
    assert (draws[:, 0] == 0).all()
    share = draws[:, 1]
    assert float(share.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(share.var()) == pytest.approx(1 / (4 * (2 * a + 1)), rel=0.05)  # of Beta(a, a)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("processes", [2, 3])
def test_any_number_of_processes_and_any_start_make_the_same_batches(setting: dict, processes: int) -> None:
    pixels = torch.randint(0, 256, (23, 3, 8, 8), dtype=torch.uint8, generator=rng(1))
    data = Images(pixels, torch.arange(23))
    augmentation = Augmentation(crop_padding=1, flip=True, **setting)

    def loader(rank: int = 0, world_size: int = 1, resident: bool = True) -> Loader:
        sharing = {"rank": rank, "world_size": world_size, "resident": resident}
        return Loader(data, 8, augmentation=augmentation, shuffle=True, seed=5, **sharing)

    whole = list(loader().epoch(2))
    parts = [list(loader(rank, processes, resident=rank > 0).epoch(2)) for rank in range(processes)]
    for step, one in enumerate(whole):
        mine = [part[step] for part in parts]
        torch.testing.assert_close(torch.cat([b.images for b in mine]), one.images)
        assert torch.equal(torch.cat([b.labels for b in mine]), one.labels)
        assert torch.equal(torch.cat([b.mixture.labels for b in mine]), one.mixture.labels)
        torch.testing.assert_close(torch.cat([b.mixture.share for b in mine]), one.mixture.share)
    for late, one in zip(loader().epoch(2, start=1), whole[1:], strict=True):
        assert torch.equal(late.images, one.images)
        assert torch.equal(late.mixture.share, one.mixture.share)


def test_without_mixing_there_is_no_mixture() -> None:
    data = Images(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.arange(4))
    assert next(Loader(data, 4, augmentation=Augmentation(flip=True)).epoch()).mixture is None
