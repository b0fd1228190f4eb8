"""Data sets of recordings: found in their official layout, labelled, cut, split and upright; damage is named."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from event_files import random_events, write_cifar10_dvs, write_dvs_gesture, write_nmnist

from eisnn.data import DataError
from eisnn.data.events import Events, cifar10_dvs, dvs_gesture, folder, nmnist, read, write
from eisnn.data.events.layout import Layout, Trial
from eisnn.data.events.store import open_store

NMNIST = Path(__file__).parents[3].parent / "shared/data/nmnist-1100.npz"


def trials(layout: Layout | None) -> list[Trial]:
    assert layout is not None
    return [trial for file in layout.files for trial in layout.recordings(file)]


def same(one: Events, other: Events) -> bool:
    return all(np.array_equal(getattr(one, field), getattr(other, field)) for field in ("t", "x", "y", "p"))


# --- N-MNIST


def test_nmnist_from_folders_and_archives(tmp_path: Path) -> None:
    root = write_nmnist(tmp_path / "folders")
    archives = tmp_path / "archives"
    for split in ("Train", "Test"):
        shutil.make_archive(str(archives / split), "zip", root, split)
    found, zipped = trials(nmnist.find(root)), trials(nmnist.find(archives))
    assert [trial.name for trial in found[:3]] == ["train/0/00000", "train/0/00010", "train/1/00001"]
    assert [trial.label for trial in found] == [*np.repeat(range(10), 2), *range(10)]
    assert same(found[1].events, read(root / "Train/0/00010.bin"))
    assert found[0].events.size == (34, 34)
    assert [trial[:2] for trial in zipped] == [trial[:2] for trial in found]
    assert all(same(a.events, b.events) for a, b in zip(found, zipped, strict=True))


def test_nmnist_that_is_not_there(tmp_path: Path) -> None:
    assert nmnist.find(tmp_path) is None
    write_nmnist(tmp_path, {"Train": 1})
    assert nmnist.find(tmp_path) is None


def test_nmnist_with_a_damaged_file_names_it(tmp_path: Path) -> None:
    layout = nmnist.find(write_nmnist(tmp_path))
    (tmp_path / "Train/3/00003.bin").write_bytes(b"12345" * 50 + b"1")
    with pytest.raises(DataError, match=r"Train/3/00003\.bin"):
        trials(layout)


def npz(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Six recordings of 40 events in each split."""
    arrays = {}
    for split in ("train", "test"):
        recordings = [random_events(rng, 40, (34, 34)) for _ in range(6)]
        arrays |= {f"{split}_{f}": np.concatenate([getattr(r, f) for r in recordings]) for f in ("t", "x", "y", "p")}
        arrays |= {f"{split}_offsets": np.arange(0, 241, 40), f"{split}_label": np.arange(6, dtype=np.uint8)}
    return arrays


def test_nmnist_in_an_archive_of_arrays(tmp_path: Path) -> None:
    arrays = npz(np.random.default_rng(0))
    np.savez(tmp_path / "part.npz", **arrays)
    found = trials(nmnist.find(tmp_path / "part.npz"))
    assert [trial[:2] for trial in found[5:7]] == [("train/5/00005", 5), ("test/0/00000", 0)]
    np.testing.assert_array_equal(found[7].events.t, arrays["test_t"][40:80])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("test_label"), "lacks the arrays test_label"),
        (lambda a: a.update(train_offsets=np.arange(6)), "train_offsets do not rise from 0, one for each"),
        (lambda a: a.update(train_t=a["train_t"] / 1e6), "its t is float64"),
        (lambda a: a.update(test_offsets=a["test_offsets"] // 2), "do not end at 240 events"),
        (lambda a: a.update(train_p=a["train_p"] + 1), "its p is not 0 or 1"),
        (lambda a: a.update(train_label=a["train_label"] + 9), "labels are not digits"),
        (lambda a: a.update(test_x=a["test_x"] + 34), "off the sensor of 34 x 34"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, message: str, tmp_path: Path) -> None:
    arrays = npz(np.random.default_rng(0))
    change(arrays)
    np.savez(tmp_path / "part.npz", **arrays)
    with pytest.raises(DataError, match=message):
        trials(nmnist.find(tmp_path / "part.npz"))


@pytest.mark.skipif(not NMNIST.exists(), reason=f"needs {NMNIST}")
def test_real_recordings_take_fewer_bytes_than_raw_ones(tmp_path: Path) -> None:
    layout = nmnist.find(NMNIST)
    assert layout is not None
    opened = open_store(layout, tmp_path)
    assert len(opened) == 1100
    assert opened.repairs == {}
    assert opened.nbytes / (5 * opened.offsets[-1]) < 0.81  # N-MNIST's own files have five bytes an event
    first = opened.packing.unpack(opened.packed(0))
    with np.load(NMNIST) as stored:
        np.testing.assert_array_equal(first.t, stored["train_t"][: stored["train_offsets"][1]])


# --- CIFAR10-DVS


@pytest.fixture
def ten_each(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(cifar10_dvs, "EACH", 10)
    return write_cifar10_dvs(tmp_path / "cifar", 10)


def test_cifar10_dvs_is_found_in_order_and_upright(ten_each: Path, tmp_path: Path) -> None:
    archives = tmp_path / "archives"
    for name in cifar10_dvs.CLASSES:
        shutil.make_archive(str(archives / name), "zip", ten_each, name)
    found, zipped = trials(cifar10_dvs.find(ten_each)), trials(cifar10_dvs.find(archives))
    assert [trial.name for trial in found[9:11]] == ["airplane/cifar10_airplane_9", "automobile/cifar10_automobile_0"]
    assert [trial.label for trial in found] == np.repeat(range(10), 10).tolist()
    raw = read(ten_each / "bird/cifar10_bird_3.aedat")
    np.testing.assert_array_equal(found[23].events.x, raw.y)
    np.testing.assert_array_equal(found[23].events.y, raw.x)
    assert all(same(a.events, b.events) and a[:2] == b[:2] for a, b in zip(found, zipped, strict=True))


def test_cifar10_dvs_follows_the_addresses_as_spikingjelly_does(ten_each: Path) -> None:
    """x is 127 less the y of the address, y 127 less its x, polarity 1 where its bit is 0."""
    content = (ten_each / "cat/cifar10_cat_0.aedat").read_bytes()
    address = np.frombuffer(content[content.index(b"End Of ASCII Header\r\n") + 21 :], ">u4")[::2]
    events = trials(cifar10_dvs.find(ten_each))[30].events
    np.testing.assert_array_equal(events.x, 127 - (address >> 8 & 127))
    np.testing.assert_array_equal(events.y, 127 - (address >> 1 & 127))
    np.testing.assert_array_equal(events.p, 1 - (address & 1))


def test_cifar10_dvs_lacks_recordings(ten_each: Path, tmp_path: Path) -> None:
    assert cifar10_dvs.find(tmp_path) is None
    (ten_each / "dog/cifar10_dog_4.aedat").unlink()
    with pytest.raises(DataError, match=r"has not 10 recordings of every class.*'dog': 9"):
        cifar10_dvs.find(ten_each)


def names_of_cifar10_dvs() -> list[str]:
    return [f"{name}/cifar10_{name}_{k}" for name in cifar10_dvs.CLASSES for k in range(1000)]


def test_the_papers_split_is_the_first_900_file_names_of_each_class() -> None:
    names = np.array(names_of_cifar10_dvs())
    test = cifar10_dvs.is_test(names.tolist(), None)
    for name in cifar10_dvs.CLASSES:
        own = sorted(n for n in names if n.startswith(f"{name}/"))
        assert sorted(names[test & np.char.startswith(names, f"{name}/")]) == own[900:]


def test_random_splits_hold_back_100_of_each_class() -> None:
    names = names_of_cifar10_dvs()
    zero, one = (cifar10_dvs.is_test(names, seed).reshape(10, 1000) for seed in (0, 1))
    assert zero.sum(1).tolist() == one.sum(1).tolist() == [100] * 10
    assert 50 < (zero & one).sum() < 160  # a tenth of a tenth
    assert (zero == cifar10_dvs.is_test(names, 0).reshape(10, 1000)).all()


# --- DVS128 Gesture

RECORDINGS = {"train": ["user01_led", "user02_lab"], "test": ["user24_led"]}
TRIALS = [(1, 5_000_000, 5_050_000), (11, 5_060_000, 5_100_000)]


def test_dvs_gesture_cuts_trials_by_its_tables(tmp_path: Path) -> None:
    root = write_dvs_gesture(tmp_path / "DvsGesture", RECORDINGS, TRIALS)
    for path in (root, tmp_path):
        found = trials(dvs_gesture.find(path))
        assert [trial.name for trial in found] == [
            f"{name}/{k:02}" for name in ("train/user01_led", "train/user02_lab", "test/user24_led") for k in range(2)
        ]
        assert [trial.label for trial in found] == [0, 10] * 3
    whole = read(root / "user01_led.aedat")
    for trial, (_, start, end) in zip(found, TRIALS, strict=False):
        assert same(trial.events, whole[(whole.t >= start) & (whole.t < end)])
        assert trial.events.t[0] >= start > 0


def test_dvs_gesture_counts_what_was_mended_once(tmp_path: Path) -> None:
    root = write_dvs_gesture(tmp_path / "DvsGesture", RECORDINGS, TRIALS)
    file = root / "user24_led.aedat"
    file.write_bytes(file.read_bytes() + b"\0\0\1\0\x08" + b"\0" * 7 + b"\0" * 4 + b"\1\0\0\0" * 3 + b"\0" * 8)
    layout = dvs_gesture.find(root)
    assert layout is not None
    assert open_store(layout, tmp_path / "store").repairs == {"special events": 1}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "user02_lab.aedat").unlink(), r"user02_lab\.aedat is missing, though trials_to_train\.txt"),
        (lambda f: (f / "user24_led_labels.csv").unlink(), r"user24_led_labels\.csv is missing"),
        (lambda f: (f / "user01_led_labels.csv").write_text("a,b\n1,2\n"), r"begins with \['a', 'b'\], expected"),
        (lambda f: add(f, "12,1,2"), "line 4: class 12 from 1 to 2 us, expected 1 to 11"),
        (lambda f: add(f, "1,7,7"), "line 4: class 1 from 7 to 7 us, expected 1 to 11, forward"),
        (lambda f: add(f, "1,x,7"), r"line 4: \['1', 'x', '7'\] is not a class and two times"),
        (lambda f: add(f, "1,7,8"), "line 4.*has no events from 7 to 8 us"),
        (lambda f: (f / "trials_to_test.txt").write_text(""), r"trials_to_test\.txt lists no recordings"),
    ],
)
def test_a_damaged_dvs_gesture_is_named(damage, message: str, tmp_path: Path) -> None:
    root = write_dvs_gesture(tmp_path / "DvsGesture", RECORDINGS, TRIALS)
    damage(root)
    with pytest.raises(DataError, match=message):
        trials(dvs_gesture.find(root))


def add(root: Path, line: str) -> None:
    with open(root / "user01_led_labels.csv", "a") as file:
        file.write(f"{line}\n")


# --- Any folder


def write_folder(root: Path, name: str, test: str = "test") -> Path:
    rng = np.random.default_rng(0)
    for split in ("train", test):
        for label in ("left", "right"):
            write(random_events(rng, 50, (30, 40)), root / split / label / name)
    return root


@pytest.mark.parametrize("test", ["test", "val"])
def test_a_folder_of_recordings(test: str, tmp_path: Path) -> None:
    layout = folder.find(write_folder(tmp_path, "a.npz", test))
    found = trials(layout)
    assert [trial[:2] for trial in found] == [
        ("train/left/a.npz", 0),
        ("train/right/a.npz", 1),
        ("test/left/a.npz", 0),
        ("test/right/a.npz", 1),
    ]
    assert layout is not None
    assert (layout.size, layout.classes) == ((30, 40), ("left", "right"))
    assert same(found[3].events, read(tmp_path / test / "right/a.npz"))


def test_a_folder_of_recordings_that_do_not_say_their_size(tmp_path: Path) -> None:
    """The sensor is as large as all recordings together need."""
    write_folder(tmp_path, "a.bin")
    write(Events(np.arange(30), np.full(30, 99, "u2"), np.zeros(30, "u2"), np.zeros(30, "u1"), (1, 100)),
          tmp_path / "test/left/b.bin")  # fmt: skip
    layout = folder.find(tmp_path)
    assert layout is not None
    assert layout.size == (30, 100)
    assert {trial.events.size for trial in trials(layout)} == {(30, 100)}


def test_folders_that_are_none_or_uneven(tmp_path: Path) -> None:
    assert folder.find(tmp_path) is None
    write_folder(tmp_path, "a.npz")
    shutil.rmtree(tmp_path / "test/left")
    with pytest.raises(DataError, match=r"\['left', 'right'\] in train, \['right'\] in test"):
        folder.find(tmp_path)


def test_the_split_file_comes_with_the_package() -> None:
    import tomllib

    root = Path(cifar10_dvs.__file__).parents[2]
    patterns = tomllib.loads((root.parent / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"][
        "eisnn"
    ]
    assert any(cifar10_dvs.SPLIT in root.glob(pattern) for pattern in patterns)
