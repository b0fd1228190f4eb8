"""`eisnn events simulate`: an image set as recordings of an event camera that were never filmed.

As CIFAR10-DVS was filmed from a screen (Li et al. 2017), each image moves along a closed, smooth, repeated path before
a sensor of 128 x 128 pixels, and a pixel sends an event whenever the logarithm of its intensity has changed by a
threshold since its last one. There is no noise but that thresholds differ from pixel to pixel. What is measured on such
recordings says nothing about CIFAR10-DVS or any other filmed data set, and they are never called by its name.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eisnn.data.errors import DataError
from eisnn.data.progress import track
from eisnn.files import require_writable, write_atomically

from .files import read, write
from .recording import Events

SENSOR = 128  # pixels, of a DVS128
DARK = 0.05  # added to intensities in [0, 1]: a black screen is not without light
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Camera:
    """How an image is filmed; seconds, pixels of the sensor, logarithms of intensity."""

    duration: float = 0.4
    """Of a recording, seconds."""
    loops: int = 2
    """Times that the image goes around its path."""
    amplitude: float = 4.0
    """Greatest way from the centre, pixels of the sensor."""
    threshold: float = 0.2
    """Change of the logarithm of the intensity that makes an event."""
    mismatch: float = 0.1
    """Standard deviation of the thresholds of different pixels, as a part of the threshold."""
    step: int = 2000
    """Time between two places of the moving image, us; events in between are interpolated."""

    def __post_init__(self) -> None:
        for name in ("duration", "loops", "threshold", "step"):
            if not getattr(self, name) > 0:
                raise DataError(f"{name} is {getattr(self, name)}, expected a number above 0")
        if not (0 <= self.mismatch <= 0.3 and self.amplitude >= 0):
            raise DataError(f"mismatch is {self.mismatch}, expected 0 to 0.3, or amplitude {self.amplitude} below 0")


def film(image: NDArray[np.uint8], camera: Camera, rng: np.random.Generator) -> Events:
    """A recording of one image [C, H, W] (C 1 or 3), which fills the sensor of 128 x 128 pixels.

    The path is an ellipse; where it begins, which way it goes and how flat it is are random.
    """
    intensity = np.tensordot(LUMINANCE, image / np.float32(255), 1) if len(image) == 3 else image[0] / np.float32(255)
    steps = round(camera.duration * 1e6 / camera.step)
    angle = rng.uniform(0, 2 * np.pi) + rng.choice((-1, 1)) * 2 * np.pi * camera.loops * np.arange(steps + 1) / steps
    flat = rng.uniform(0.5, 1, 2)
    x, y = camera.amplitude * flat[:, None] * np.stack((np.cos(angle), np.sin(angle)))
    rows, columns = _interpolation(y, image.shape[1]), _interpolation(x, image.shape[2])
    levels = np.log(rows @ intensity @ columns.mT + DARK)  # [steps + 1, SENSOR, SENSOR]
    threshold = camera.threshold * rng.normal(1, camera.mismatch, SENSOR * SENSOR).clip(0.1).astype(np.float32)
    return _events(levels.reshape(steps + 1, -1), threshold, camera.step)


def _interpolation(shift: NDArray, inputs: int) -> NDArray[np.float32]:
    """Weights [S, SENSOR, inputs] that enlarge a line of pixels to the sensor and move it, linearly; beyond the border
    its last pixel goes on."""
    centres = (np.arange(SENSOR) + 0.5 - shift[:, None]) * inputs / SENSOR - 0.5
    distance = abs(centres.clip(0, inputs - 1)[..., None] - np.arange(inputs))
    return (1 - distance).clip(0).astype(np.float32)


def _events(levels: NDArray[np.float32], threshold: NDArray[np.float32], step: int) -> Events:
    """The events of pixels whose log intensity is `levels` [S, pixels] at multiples of `step` us, straight between."""
    reference = levels[0].copy()  # what each pixel compares with: its level at its last event
    found: list[tuple[NDArray, ...]] = []
    for k, (before, after) in enumerate(pairwise(levels)):
        crossed = ((after - reference) / threshold).astype(np.int64)  # towards zero
        pixels = np.flatnonzero(crossed)
        many = abs(crossed[pixels])
        pixel = np.repeat(pixels, many)
        sign = np.sign(crossed[pixel])
        nth = np.arange(len(pixel)) - np.repeat(np.cumsum(many) - many, many) + 1
        level = reference[pixel] + sign * nth * threshold[pixel]
        part = ((level - before[pixel]) / (after[pixel] - before[pixel])).clip(0, 1)
        found.append((np.floor((k + part) * step).astype(np.int64), pixel, sign > 0))
        reference[pixels] += crossed[pixels] * threshold[pixels]
    t, pixel, p = (np.concatenate(columns) for columns in zip(*found, strict=True))
    order = np.argsort(t, kind="stable")
    y, x = np.divmod(pixel[order].astype(np.uint16), np.uint16(SENSOR))
    return Events(t[order], x, y, p[order].astype(np.uint8), (SENSOR, SENSOR), "simulated")


def simulate(
    output: Path,
    *,
    dataset: str = "cifar10",
    data_path: Path | None = None,
    download: bool = False,
    train: int | None = None,
    test: int | None = None,
    seed: int = 0,
    camera: Camera = Camera(),
) -> None:
    """Turn an image set into recordings of a simulated event camera, OUTPUT/SPLIT/CLASS/NUMBER.aedat (AEDAT 2.0).

    What is there already is not made again, so a stopped simulation goes on. The recordings are a data set
    (`--dataset event-folder --data-path OUTPUT`); call it simulated, whatever images it is made of.

    Args:
        output: Folder to write.
        dataset: Image set, see `eisnn list`.
        data_path: Its archive or folder; None looks in the data folder.
        download: Fetch it if it is not there.
        train: Training images, as many of each class; None takes all.
        test: Test images, likewise.
        seed: Of the choice of images, their paths and the pixels' thresholds.
        camera: How the images are filmed.
    """
    from eisnn.data import Images, load

    images = load(dataset, data_path, download=download).subset(train, test, seed)
    if not (isinstance(images.train, Images) and isinstance(images.test, Images)):
        raise DataError(f"the data set {dataset!r} holds no images")
    about = {"simulated": True, "images": dataset, "seed": seed, "train": train, "test": test, "camera": asdict(camera)}
    note = output / "simulated.json"
    if note.exists() and json.loads(note.read_text()) != about:
        raise DataError(f"{note} tells of another simulation; give the same options, or another folder")
    require_writable(note)
    write_atomically(note, (json.dumps(about, indent=2) + "\n").encode())
    for number, (split, part) in enumerate((("train", images.train), ("test", images.test))):
        names = [images.classes[label] for label in part.labels.tolist()]
        make = partial(_make, part.pixels.numpy(), names, camera, (seed, number), output / split)
        with ThreadPoolExecutor() as pool:
            futures = [pool.submit(make, k) for k in range(len(part))]
            counts = [future.result() for future in track(futures, f"Simulating {split}")]
        still = counts.count(0)
        print(
            f"{output / split}: {len(counts) - still:,} recordings"
            + (f"; {still:,} images without any event have none" if still else "")
        )


def _make(
    pixels: NDArray[np.uint8], names: list[str], camera: Camera, seed: tuple[int, int], folder: Path, k: int
) -> int:
    """Films image k, if there is no recording of it yet; returns how many events it has."""
    path = folder / names[k] / f"{k:05}.aedat"
    if path.exists():
        return len(read(path))
    events = film(pixels[k], camera, np.random.default_rng((*seed, k)))
    if len(events):
        write(events, path)
    return len(events)
