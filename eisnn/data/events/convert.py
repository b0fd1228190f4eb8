"""`eisnn events convert`: a recording from one format to another."""

from pathlib import Path

from ..errors import DataError
from .files import read, write


def convert(source: Path, target: Path, *, size: tuple[int, int] | None = None, repair: bool = False) -> None:
    """Convert a recording of an event camera to the format of the target's ending: .aedat, .bin, .dat or .npz.

    Args:
        source: The recording, in any format.
        target: The file to write: .aedat is AEDAT 2.0 of a DVS128, .bin N-MNIST's format.
        size: Height and width of the sensor, pixels, where the format does not say it.
        repair: Drop what is damaged, and say how much, rather than stop.
    """
    events = read(source, size=size, repair=repair)
    write(events, target)
    mended = "".join(f"; {what}: {count:,}" for what, count in events.repairs.items())
    print(f"{target}: {len(events):,} events of {events.format}{mended}")
    try:
        found = read(target).size
    except DataError as error:  # of few events in a format without a header
        print(f"it cannot be read back: {error}")
        return
    if found != events.size:
        print(
            f"{target}: its format does not hold the size of the sensor, {events.size}; without one given it is read "
            f"with {found} (.npz holds it)"
        )
