"""Image folders or zip archives of `SPLIT/CLASS/NAME.png` (or another format), with splits train and test or val."""

from pathlib import Path

from eisnn.data.catalog import register
from eisnn.data.dataset import Dataset
from eisnn.data.errors import DataError
from eisnn.data.source import Source

from .decode import decode
from .tree import Tree, find_tree, same_name

EXTENSIONS = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
UNREAD = {  # images all the same: an error, as leaving them out would change the data without a word
    ".avif", ".gif", ".heic", ".heif", ".ico", ".jfif", ".jp2", ".jpe", ".pbm", ".pgm", ".pnm", ".ppm", ".svg",
    ".tga", ".tif", ".tiff",
}  # fmt: skip


@register("folder", "a folder or .zip of SPLIT/CLASS/NAME.png with SPLIT train and test (or val)")
def locate(path: Path, size: int | None = None) -> Source | None:
    """The image folder or archive `path`, or None if it has no `train/`; `size` is what images are brought to."""
    tree = find_tree(path, ("train", "test", "val"))
    if tree is None:
        return None
    _check_names(tree)  # here, as the cache does not see empty folders
    return Source(tree.path, tree.files, lambda: read(tree, size))


def _check_names(tree: Tree) -> None:
    """DataError for an image that would be left out, in place or format, and for a class without images."""
    for name in tree.names:
        suffix = Path(name).suffix.lower()
        if suffix in UNREAD:
            raise DataError(
                f"{tree.label(name)} has a format that is not read; convert it to one of "
                f"{', '.join(sorted(EXTENSIONS))}, or take it out"
            )
        if suffix in EXTENSIONS and name.count("/") != 2:
            raise DataError(f"{tree.label(name)} is misplaced, expected SPLIT/CLASS/NAME with SPLIT train, test or val")
    filled = {name.rpartition("/")[0] for name in _images(tree)}
    for folder in tree.folders:
        if folder.count("/") == 1 and folder not in filled:
            raise DataError(f"{tree.label(folder)} is a class without images; fill it or take it out")


def _images(tree: Tree) -> list[str]:
    return [name for name in tree.names if Path(name).suffix.lower() in EXTENSIONS]


def read(tree: Tree, size: int | None) -> Dataset:
    """Decodes the images; classes are the folder names, sorted; `test` goes before `val` where there are both.

    Args:
        tree: the files.
        size: every image becomes size x size, see `decode`; None takes images of one size as they are.

    Raises:
        DataError: a split is missing or an image damaged; the splits differ in their classes; the images differ in size
            and `size` is None.
    """
    images = _images(tree)
    splits = {split: [name for name in images if name.startswith(f"{split}/")] for split in ("train", "test", "val")}
    test = "test" if splits["test"] else "val"
    for split, wanted in (("train", "train/CLASS/"), (test, "test/CLASS/ or val/CLASS/")):
        if not splits[split]:
            raise DataError(f"{tree.path} has no images in {wanted} (looked for {', '.join(sorted(EXTENSIONS))})")
    classes = {split: sorted({_class(name) for name in splits[split]}) for split in ("train", test)}
    if classes["train"] != classes[test]:
        only_train = sorted(set(classes["train"]) - set(classes[test]))
        only_test = sorted(set(classes[test]) - set(classes["train"]))
        raise DataError(
            f"the splits of {tree.path} differ in their classes: only in train {only_train}, only in {test} {only_test}"
        )
    names = splits["train"] + splits[test]
    labels = [classes["train"].index(_class(name)) for name in names]
    both = decode(tree, names, labels, size=size)
    count = len(splits["train"])
    how = {"fit": size} if size is not None else {}
    return Dataset("folder", tuple(classes["train"]), both[:count], both[count:], how)


def _class(name: str) -> str:
    return same_name(name.split("/")[1])
