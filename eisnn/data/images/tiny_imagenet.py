"""TinyImageNet in its original layout, as a folder or the zip archive of it.

`train/WNID/images/*.JPEG`, `val/images/*.JPEG` and `val/val_annotations.txt`; the official test split has no labels,
so val is what is reported everywhere and our `test`.
"""

from functools import partial
from pathlib import Path

from eisnn.data.catalog import register
from eisnn.data.dataset import Dataset
from eisnn.data.download import Remote
from eisnn.data.errors import DataError
from eisnn.data.source import Source

from .decode import decode
from .tree import Tree, find_tree

FOLDER = "tiny-imagenet-200"
ANNOTATIONS = "val/val_annotations.txt"


@register(
    "tiny-imagenet",
    "tiny-imagenet-200.zip or the folder it extracts to",
    # The server has no https. What is fetched is compared with the checksum before it gets its name, so somebody on the
    # way can at most prevent the download.
    remotes=[Remote(f"http://cs231n.stanford.edu/{FOLDER}.zip", f"{FOLDER}.zip", "90528d7ca1a48142e341f4ef8d21d0de")],
)
def locate(path: Path) -> Source | None:
    """TinyImageNet at `path`: the archive, the extracted folder, or a folder with either."""
    for place in (path, path / FOLDER, path / f"{FOLDER}.zip"):
        if (tree := find_tree(place, ("train", "val"))) is not None:
            return Source(tree.path, tree.files, partial(read, tree))
    return None


def read(tree: Tree) -> Dataset:
    """Decodes all images to RGB; classes are the sorted WordNet ids of the folders in `train/`, however many.

    Raises:
        DataError: images or annotations are missing, damaged, of different sizes, or contradict each other.
    """
    train = [name for name in tree.names if name.startswith("train/") and name.endswith(".JPEG")]
    for name in train:
        if not (name.count("/") == 3 and "/images/" in name):
            raise DataError(f"{tree.label(name)} is misplaced, expected train/WNID/images/NAME.JPEG")
    classes = tuple(sorted({name.split("/")[1] for name in train}))
    if not classes:
        raise DataError(f"{tree.path} has no images train/WNID/images/NAME.JPEG")
    index = {wnid: label for label, wnid in enumerate(classes)}
    val = _annotations(tree, index)
    names = train + list(val)
    labels = [index[name.split("/")[1]] for name in train] + list(val.values())
    both = decode(tree, names, labels, rgb=True)
    return Dataset("tiny-imagenet", classes, both[: len(train)], both[len(train) :])


def _annotations(tree: Tree, index: dict[str, int]) -> dict[str, int]:
    """The label of each validation image, by name."""
    if ANNOTATIONS not in tree.names:
        raise DataError(f"{tree.path} has no {ANNOTATIONS}, which holds the labels of val/images")
    with tree.open() as read:
        lines = read(ANNOTATIONS).decode(errors="replace").splitlines()
    labels: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        image, wnid, *_ = (*line.split("\t"), "", "")
        if wnid not in index:
            raise DataError(f"line {number} of {tree.label(ANNOTATIONS)} has class {wnid!r}, which train/ lacks")
        labels[f"val/images/{image}"] = index[wnid]
    images = {name for name in tree.names if name.startswith("val/images/") and name.endswith(".JPEG")}
    if images != set(labels):
        missing, surplus = sorted(set(labels) - images), sorted(images - set(labels))
        raise DataError(
            f"{tree.path}: val/images and {ANNOTATIONS} differ: {len(missing)} images are missing {missing[:3]}, "
            f"{len(surplus)} have no label {surplus[:3]}"
        )
    if not labels:
        raise DataError(f"{tree.label(ANNOTATIONS)} is empty")
    return labels
