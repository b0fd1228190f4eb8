"""Image folders or zip archives of `SPLIT/CLASS/NAME.png` (or another format), with splits train and test or val."""

from pathlib import Path

from .dataset import Dataset
from .decode import decode
from .errors import DataError
from .source import Source
from .tree import Tree, find_tree

EXTENSIONS = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}


def locate(path: Path, size: int | None) -> Source | None:
    """The image folder or archive `path`, or None if it has no `train/`; `size` is for images of different sizes."""
    tree = find_tree(path, ("train", "test", "val"))
    return None if tree is None else Source(tree.path, tree.files, lambda: read(tree, size), f"size={size}")


def read(tree: Tree, size: int | None) -> Dataset:
    """Decodes the images; classes are the folder names, sorted; `test` goes before `val` where there are both.

    Args:
        tree: the files.
        size: images of different shapes become size x size (cut to a centred square, then resized, antialiased).

    Raises:
        DataError: a split or an image is missing, damaged or in the wrong place; the splits differ in their classes;
            the images differ in size and `size` is None.
    """
    images = [name for name in tree.names if Path(name).suffix.lower() in EXTENSIONS]
    for name in images:
        if name.count("/") != 2:
            raise DataError(f"{tree.label(name)} is misplaced, expected SPLIT/CLASS/NAME with SPLIT train, test or val")
    splits = {split: [name for name in images if name.startswith(f"{split}/")] for split in ("train", "test", "val")}
    test = "test" if splits["test"] else "val"
    for split, wanted in (("train", "train/CLASS/"), (test, "test/CLASS/ or val/CLASS/")):
        if not splits[split]:
            raise DataError(f"{tree.path} has no images in {wanted} (looked for {', '.join(sorted(EXTENSIONS))})")
    classes = {split: sorted({name.split("/")[1] for name in splits[split]}) for split in ("train", test)}
    if classes["train"] != classes[test]:
        only_train = sorted(set(classes["train"]) - set(classes[test]))
        only_test = sorted(set(classes[test]) - set(classes["train"]))
        raise DataError(
            f"the splits of {tree.path} differ in their classes: only in train {only_train}, only in {test} {only_test}"
        )
    names = splits["train"] + splits[test]
    labels = [classes["train"].index(name.split("/")[1]) for name in names]
    both = decode(tree, names, labels, size=size)
    count = len(splits["train"])
    return Dataset("folder", tuple(classes["train"]), both[:count], both[count:])
