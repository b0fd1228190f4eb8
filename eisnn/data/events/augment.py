"""Random augmentation of event recordings, in batches on the device: the same for all frames of a recording.

Roll, rotation, shear and cutout are those of neuromorphic data augmentation (NDA, Li et al., ECCV 2022), which takes
one of them at a time.
"""

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor
from torch.nn.functional import affine_grid, grid_sample

from eisnn.data.augment import RandomTransform
from eisnn.data.augment.geometry import inside_boxes
from eisnn.data.augment.images import draw_boxes

from .frames import EventBatch, count_frames, crop_and_scale

Fraction = Annotated[float, Field(gt=0, le=1)]
Degrees = Annotated[float, Field(ge=0, lt=90)]


class EventAugmentation(RandomTransform):
    """What is done at random to training recordings, in this order: temporal deletion, resized crop, flip, and one of
    those of roll, rotation, shear and cutout that are on.

    Counts stay non-negative. With everything off, recordings just become frames.
    """

    temporal_deletion: int = Field(
        default=0, ge=0, description="Bin a recording to so many more than T frames, and drop random ones."
    )
    resized_crop: tuple[Fraction, Fraction] | None = Field(
        default=None,
        description="Range of the area of a random crop (aspect ratio 3/4 to 4/3) that is brought to the size of the "
        "frames, such as 0.7 1.0.",
    )
    flip: bool = Field(default=False, description="Mirror left to right with probability 0.5.")
    roll: int = Field(default=0, ge=0, description="Shift by up to so many pixels each way, around the border.")
    rotation: Degrees = Field(default=0.0, description="Turn about the centre by up to so many degrees each way.")
    shear: Degrees = Field(default=0.0, description="Shear along x by up to so many degrees each way.")
    cutout: int = Field(default=0, ge=0, description="Side of a zero square around any pixel, cut off at the border.")

    @model_validator(mode="after")
    def _check(self) -> "EventAugmentation":
        if self.resized_crop is not None and self.resized_crop[0] > self.resized_crop[1]:
            raise ValueError(f"resized_crop is {self.resized_crop}, expected the smaller area first")
        return self

    def draw(self, n: int, shape: Sequence[int], generator: Generator) -> dict[str, Tensor]:
        """Draws all random numbers for `n` recordings whose frames have `shape` [T, 2, H, W]; see `RandomTransform`."""
        steps, _, height, width = shape
        draws = {}
        if self.temporal_deletion:
            order = torch.rand(n, steps + self.temporal_deletion, generator=generator).argsort(1)
            draws["kept"] = order[:, :steps].sort(1).values
        if self.resized_crop is not None:
            draws["box"] = draw_boxes(n, height, width, self.resized_crop, generator)
        if self.flip:
            draws["flip"] = torch.rand(n, generator=generator) < 0.5
        if self._one_of:
            draws["operation"] = torch.randint(len(self._one_of), (n,), generator=generator)
            draws["amount"] = torch.rand(n, 2, generator=generator)
        return draws

    def apply(self, pixels: EventBatch, draws: dict[str, Tensor], size: int | None) -> Tensor:
        """Makes the frames of a batch and augments them.

        Args:
            pixels: the recordings.
            draws: of `draw`, the entries of these recordings, on their device.
            size: height and width of the frames, pixels; None keeps those of the sensor.

        Returns:
            float32 [T, B, 2, size, size], >= 0.
        """
        frames = count_frames(pixels, draws.get("kept"), pixels.time_steps + self.temporal_deletion)
        sensor = frames.shape[-2:]
        height, width = (size, size) if size is not None else sensor
        if "box" in draws or sensor != (height, width):
            whole = torch.tensor([0, 0, *sensor], device=frames.device).expand(len(pixels), 4)
            frames = crop_and_scale(frames, draws.get("box", whole), height, width, pixels.settings.scaling)
        if "flip" in draws:
            frames = torch.where(_by_recording(draws["flip"]), frames.flip(-1), frames)
        for k, operation in enumerate(self._one_of):
            changed = operation(frames, draws["amount"])
            frames = torch.where(_by_recording(draws["operation"] == k), changed, frames)
        return frames

    @property
    def _one_of(self) -> list:
        """Those operations that are on, of which each recording gets one."""
        limits = {self._roll: self.roll, self._rotate: self.rotation, self._shear: self.shear, self._cut: self.cutout}
        return [operation for operation, limit in limits.items() if limit]

    # Each takes frames [T, B, 2, H, W] and amounts [B, 2] in [0, 1).

    def _roll(self, frames: Tensor, amount: Tensor) -> Tensor:
        shift = (amount * (2 * self.roll + 1)).floor().long() - self.roll
        for axis, by in ((3, shift[:, 0]), (4, shift[:, 1])):
            length = frames.shape[axis]
            source = (torch.arange(length, device=frames.device) - by[:, None]) % length  # [B, length]
            shape = [1, len(by), 1, 1, 1]
            shape[axis] = length
            frames = frames.gather(axis, source.view(shape).expand_as(frames))
        return frames

    def _rotate(self, frames: Tensor, amount: Tensor) -> Tensor:
        angle = (2 * amount[:, 0] - 1) * math.radians(self.rotation)
        ratio = frames.shape[3] / frames.shape[4]  # the grid counts height and width from -1 to 1
        cos, sin = angle.cos(), angle.sin()
        return _warp(frames, torch.stack((cos, sin * ratio, -sin / ratio, cos), 1))

    def _shear(self, frames: Tensor, amount: Tensor) -> Tensor:
        slope = ((2 * amount[:, 0] - 1) * math.radians(self.shear)).tan()
        one, zero = torch.ones_like(slope), torch.zeros_like(slope)
        return _warp(frames, torch.stack((one, slope * frames.shape[3] / frames.shape[4], zero, one), 1))

    def _cut(self, frames: Tensor, amount: Tensor) -> Tensor:
        height, width = frames.shape[-2:]
        top = (amount[:, 0] * height).floor() - self.cutout // 2
        left = (amount[:, 1] * width).floor() - self.cutout // 2
        side = torch.full_like(top, self.cutout)
        return frames.masked_fill(inside_boxes(top, left, side, side, height, width), 0)


def _by_recording(values: Tensor) -> Tensor:
    """[B] to a shape that broadcasts over frames."""
    return values[None, :, None, None, None]


def _warp(frames: Tensor, matrix: Tensor) -> Tensor:
    """Moves each recording's frames by its matrix [B, 4] about the centre, bilinear; what comes from outside is 0."""
    steps, size, polarities, height, width = frames.shape
    theta = torch.cat((matrix.view(size, 2, 2), matrix.new_zeros(size, 2, 1)), 2)
    maps = frames.transpose(0, 1).reshape(size, steps * polarities, height, width)
    grid = affine_grid(theta, list(maps.shape), align_corners=False)
    moved = grid_sample(maps, grid, align_corners=False)
    return moved.view(size, steps, polarities, height, width).transpose(0, 1)
