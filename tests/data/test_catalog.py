"""A data set enters the catalog by itself, with options of its own, and is found, kept and named like the others."""

from pathlib import Path

import pytest
import torch
from data_files import random_images

from eisnn.data import DataError, Dataset, Images, Source, catalog, list_datasets, load, register


@pytest.fixture(autouse=True)
def _own_catalog(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A copy of it, and a data folder of our own."""
    monkeypatch.setattr(catalog, "ENTRIES", dict(catalog.entries()))
    monkeypatch.setenv("EISNN_DATA", str(tmp_path / "home"))


def squares(path: Path, size: int | None = None, value: int = 3) -> Source | None:
    """Images of `size` (4 by default) and one value, if there is a file `squares`."""
    file = path / "squares"

    def read() -> Dataset:
        images = Images(torch.full((2, 1, size or 4, size or 4), value, dtype=torch.uint8), torch.tensor([0, 1]))
        return Dataset("whatever it calls itself", ("a", "b"), images, images)

    return Source(path, (file,), read) if file.is_file() else None


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "squares").write_text("")
    return tmp_path


def test_options_reach_the_data_set_and_have_copies_of_their_own(place: Path) -> None:
    register("squares", "a folder with the file squares")(squares)
    assert "squares" in list_datasets()
    for _ in range(2):
        for options in ({}, {"size": 6}, {"value": 9}, {"size": 6, "value": 9}):
            dataset = load("squares", place, **options, time_steps=7)  # which it does not take
            assert dataset.name == "squares"
            assert dataset.image_size == (options.get("size", 4),) * 2
            assert (dataset.train.pixels == options.get("value", 3)).all()
    assert len(list((place / "home" / "cache").glob("*.lock"))) == 4


def test_an_unknown_option_says_what_there_is(place: Path) -> None:
    register("squares", "a folder with the file squares")(squares)
    with pytest.raises(DataError, match=r"'squares' has no options \['colour'\]; it takes \['size', 'value'\]"):
        load("squares", place, colour="red")
    with pytest.raises(DataError, match=r"'cifar10' has no options \['value'\]; it takes none"):
        load("cifar10", value=1)


def test_what_a_path_may_be_is_said(place: Path) -> None:
    register("squares", "a folder with the file squares")(squares)
    (place / "squares").unlink()
    with pytest.raises(DataError, match="does not hold the data set 'squares'; expected a folder with"):
        load("squares", place)
    with pytest.raises(DataError, match=r"'squares' needs a path \(--data-path\): a folder with the file squares"):
        load("squares")


def test_a_name_belongs_to_one_data_set(place: Path) -> None:
    with pytest.raises(ValueError, match=r"already a data set 'folder', of eisnn\.data\.images\.folder; give another"):
        register("folder")(squares)
    register("squares")(squares)
    register("squares", "a folder")(squares)  # the same file, run again
    assert catalog.ENTRIES["squares"].expected == "a folder"


def test_places_are_searched_after_the_data_folder(place: Path, tmp_path: Path) -> None:
    register("squares", places=[tmp_path / "nowhere", place])(squares)
    assert (load("squares").train.pixels == 3).all()
    (tmp_path / "home" / "squares").mkdir(parents=True)
    (tmp_path / "home" / "squares" / "squares").write_text("")
    assert load("squares", rebuild=True).train.pixels.shape == (2, 1, 4, 4)
    assert len(list((tmp_path / "home" / "cache").glob("*.lock"))) == 2


def test_what_comes_with_a_package_is_read_where_it_lies(place: Path, tmp_path: Path) -> None:
    register("squares", bundled=place)(squares)
    assert len(load("squares").train) == 2
    assert not (tmp_path / "home").exists()
    with pytest.raises(DataError, match="squares comes with the package and takes no path, got elsewhere"):
        load("squares", "elsewhere")


def test_a_source_that_keeps_its_own_copy_gets_one_place_for_all_options(place: Path, tmp_path: Path) -> None:
    asked = []

    def locate(path: Path, value: int = 0) -> Source:
        def convert(folder: Path, rebuild: bool) -> Dataset:
            asked.append((folder, rebuild, value))
            images = random_images(2, 2)
            return Dataset("own", ("a", "b"), images, images)

        return Source(path, (), lambda: convert(path, False), convert)

    register("own", "anything")(locate)
    load("own", place)
    load("own", place, value=1, rebuild=True)
    load("own", place, cache=False)
    (kept, first, _), (again, second, value), (temporary, _, _) = asked
    assert kept == again
    assert kept.parent == tmp_path / "home" / "cache"
    assert (first, second, value, temporary) == (False, True, 1, place)
