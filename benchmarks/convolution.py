"""Convolutions of small maps: torch's operator beside products of matrices, in processor time.

python benchmarks/convolution.py --output runs/convolution.json
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from eisnn.bench import FORMATS
from eisnn.functional import Conv
from eisnn.ops.conv2d.cpu import backward_by_products, by_products
from eisnn.process import keep_memory
from eisnn.provenance import provenance, write_result

# Side of the input, channels in and out, stride; 3x3 kernels, padded by one.
SHAPES = (
    (2, 512, 640, 1),
    (4, 256, 640, 1),
    (4, 512, 640, 1),
    (8, 256, 640, 2),
    (8, 256, 320, 1),
    (8, 128, 320, 1),
    (4, 64, 160, 1),
)


def ways(x: Tensor, weight: Tensor, stride: int) -> dict[str, Callable[[], Any]]:
    """Forward and backward pass by torch's operator and by products."""
    geometry = Conv((stride, stride), (1, 1))
    grad = torch.randn_like(F.conv2d(x, weight, None, geometry.stride, geometry.padding))
    lists = [list(pair) for pair in (geometry.stride, geometry.padding, geometry.dilation)]
    return {
        "stock forward": lambda: F.conv2d(x, weight, None, geometry.stride, geometry.padding),
        "products forward": lambda: by_products(x, weight, geometry),
        "stock backward": lambda: torch.ops.aten.convolution_backward(
            grad, x, weight, None, *lists, False, [0, 0], 1, [True, True, False]
        ),
        "products backward": lambda: backward_by_products(grad, x, weight, geometry, True),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[64, 128], help="images times steps")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    keep_memory()
    torch.set_num_threads(args.threads)
    rows = []
    for size, channels, n, stride in SHAPES:
        for images in args.images:
            for name, memory_format in FORMATS.items():
                x = (torch.rand(images, channels, size, size) < 0.2).float().contiguous(memory_format=memory_format)
                weight = torch.randn(n, channels, 3, 3).contiguous(memory_format=memory_format)
                calls = ways(x, weight, stride)
                seconds: dict[str, list[float]] = {way: [] for way in calls}
                for repeat in range(args.repeats + 2):
                    for way, call in calls.items():
                        start = time.process_time()
                        call()
                        if repeat > 1:
                            seconds[way].append(time.process_time() - start)
                medians = {way: statistics.median(values) for way, values in seconds.items()}
                shape = {"size": size, "channels": channels, "n": n, "stride": stride, "images": images}
                rows.append({**shape, "memory_format": name, "seconds": medians})
                times = "  ".join(f"{way} {1000 * t:6.1f}" for way, t in medians.items())
                print(f"{size}x{size} {channels} to {n}, stride {stride}, {images} images, {name}: {times} ms")
    if args.output:
        write_result(args.output, {**provenance(), "repeats": args.repeats, "threads": args.threads, "rows": rows})


if __name__ == "__main__":
    main()
