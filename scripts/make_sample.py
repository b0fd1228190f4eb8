"""Makes the bundled sample of CIFAR-10: `eisnn/data/sample/{train,test}/CLASS.webp`.

    python scripts/make_sample.py PATH_TO_CIFAR10

PATH_TO_CIFAR10 is anything `eisnn.data.load("cifar10", path)` reads. The choice of images depends on the
seed and on the order of the images in the source, so another source gives another, equally valid sample.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image

from eisnn.data import Images, load
from eisnn.data.images.mosaic import COLUMNS, tile

LIMIT = 10 * 1024 * 1024  # bytes: what the package is willing to weigh
TARGET = Path(__file__).resolve().parents[1] / "eisnn" / "data" / "sample"


def choose(images: Images, label: int, count: int, generator: torch.Generator) -> torch.Tensor:
    """A random choice of the images of one class, in the order of the source: uint8 [count, 3, 32, 32]."""
    members = (images.labels == label).nonzero().flatten()
    chosen = torch.randperm(len(members), generator=generator)[:count]
    return images.pixels[members[chosen.sort().values]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--train", type=int, default=500, help="training images a class, a multiple of 50")
    parser.add_argument("--test", type=int, default=100, help="test images a class, a multiple of 25")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    dataset = load("cifar10", arguments.path, cache=False)
    generator = torch.Generator().manual_seed(arguments.seed)
    total = 0
    for split, images, count in [("train", dataset.train, arguments.train), ("test", dataset.test, arguments.test)]:
        (TARGET / split).mkdir(parents=True, exist_ok=True)
        for label, name in enumerate(dataset.classes):
            mosaic = tile(choose(images, label, count, generator), COLUMNS[split])
            file = TARGET / split / f"{name}.webp"
            Image.fromarray(mosaic.numpy()).save(file, lossless=True, quality=100, method=6)
            total += file.stat().st_size
    print(f"{total:,} bytes in {TARGET}")
    if total > LIMIT:
        raise SystemExit(f"the sample has {total:,} bytes, {LIMIT:,} are allowed: choose fewer images")


if __name__ == "__main__":
    main()
