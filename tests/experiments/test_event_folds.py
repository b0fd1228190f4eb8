"""Folds of recordings: each is tested on once, by a network that has not seen it."""

from pathlib import Path

import numpy as np
from nmnist_demo import FOLDS, write_folds


def test_folds_divide_all_recordings(tmp_path: Path) -> None:
    """Each recording has one event, whose time says which it is."""
    arrays = {}
    for split, begin, count in (("train", 0, 80), ("test", 80, 30)):
        t = np.arange(begin, begin + count)
        arrays |= {f"{split}_t": t, f"{split}_offsets": np.arange(count + 1), f"{split}_label": t % 10}
        arrays |= {f"{split}_{name}": np.zeros(count, np.uint8) for name in "xyp"}
    np.savez(tmp_path / "all.npz", **arrays)
    folds = write_folds(tmp_path / "all.npz", tmp_path / "folds")
    tested: list[int] = []
    for file in folds:
        with np.load(file) as fold:
            train, test = fold["train_t"], fold["test_t"]
            assert sorted([*train, *test]) == list(range(110))
            assert (fold["train_label"] == train % 10).all()
            assert (fold["test_label"] == test % 10).all()
            assert set(np.bincount(fold["test_label"])) <= {2, 3}  # of eleven in each class
            assert fold["test_offsets"].tolist() == list(range(len(test) + 1))
        tested += test.tolist()
    assert sorted(tested) == list(range(110))
    assert len(folds) == FOLDS
    before = [file.stat().st_mtime_ns for file in folds]
    assert [file.stat().st_mtime_ns for file in write_folds(tmp_path / "all.npz", tmp_path / "folds")] == before
