"""An event in 32 bits: where and which polarity below, the time since the event before it above."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .recording import Events


@dataclass(frozen=True)
class Packing:
    """How events of a sensor are packed.

    The address is `(p * height + y) * width + x`, the index into a frame [2, height, width]. What of a long pause does
    not fit into the upper bits is kept apart, as a gap.

    Args:
        size: height and width of the sensor, pixels.
    """

    size: tuple[int, int]

    @property
    def addresses(self) -> int:
        """Number of addresses: two polarities of every pixel."""
        return 2 * self.size[0] * self.size[1]

    @property
    def address_bits(self) -> int:
        """Lower bits, that hold the address."""
        return (self.addresses - 1).bit_length()

    @property
    def longest(self) -> int:
        """The longest pause that the upper bits hold, microseconds."""
        return (1 << (32 - self.address_bits)) - 1

    def pack(self, events: Events) -> "Packed":
        """Packs a recording of this size, without loss."""
        height, width = self.size
        pause = np.diff(events.t, prepend=events.t[:1])
        long = np.flatnonzero(pause > self.longest)
        gaps = np.stack((long, pause[long] - self.longest), 1)
        pause[long] = self.longest
        address = (events.p.astype(np.uint32) * height + events.y) * np.uint32(width) + events.x
        packed = (pause.astype(np.uint32) << np.uint32(self.address_bits)) | address
        return Packed(packed, gaps, int(events.t[0]) if len(events) else 0)

    def unpack(self, packed: "Packed") -> Events:
        """The recording again, exactly."""
        height, width = self.size
        pause = (packed.events >> self.address_bits).astype(np.int64)
        pause[packed.gaps[:, 0]] += packed.gaps[:, 1]
        address = packed.events & np.uint32((1 << self.address_bits) - 1)
        p, pixel = np.divmod(address, height * width)
        y, x = np.divmod(pixel, width)
        columns = (x.astype(np.uint16), y.astype(np.uint16), p.astype(np.uint8))
        return Events(packed.start + np.cumsum(pause), *columns, self.size)


@dataclass(frozen=True, eq=False)
class Packed:
    """A packed recording of N events.

    Attributes:
        events: uint32 [N].
        gaps: int64 [G, 2]: index of an event, and how many microseconds its pause is longer than the bits can say.
        start: time of the first event, microseconds.
    """

    events: NDArray[np.uint32]
    gaps: NDArray[np.int64]
    start: int
