"""`eisnn events show`: what a recording holds, in words and pictures."""

from pathlib import Path

from eisnn.data.errors import DataError
from eisnn.files import require_writable

from .draw import write_movie, write_sheet
from .files import read
from .recording import Events


def show(
    file: Path, *, output: Path | None = None, size: tuple[int, int] | None = None, repair: bool = False
) -> tuple[Path, Path]:
    """Print what a recording of an event camera holds; write pictures of it, ON in orange and OFF in blue.

    Args:
        file: The recording, in any format.
        output: Where to write: the name without its ending; None is the name of the recording, in this folder.
        size: Height and width of the sensor, pixels, where the format does not say it.
        repair: Drop what is damaged, and say how much, rather than stop.
    Returns: the picture (PNG) and the movie (GIF).
    """
    events = read(file, size=size, repair=repair)
    for name, value in describe(events).items():
        print(f"{name:10} {value}")
    base = output or Path(Path(file).name)
    picture, movie = (base.with_name(f"{base.name}{end}") for end in (".png", ".gif"))
    if Path(file).resolve() in (picture.resolve(), movie.resolve()):
        raise DataError(f"{file} would be overwritten; give another name (--output)")
    for path, draw in ((picture, write_sheet), (movie, write_movie)):
        require_writable(path)
        draw(events, path)
        print(f"written    {path}")
    return picture, movie


def describe(events: Events) -> dict[str, str]:
    """Format, sensor, events, duration, rate, polarity share and repairs, in words."""
    height, width = events.size
    seconds = events.duration / 1e6
    rate = f"{len(events) / seconds:,.0f} events a second" if seconds else "all at once"
    return {
        "format": events.format,
        "sensor": f"{width} x {height} pixels" + ("" if events.size_known else ", as far as events lie"),
        "events": f"{len(events):,}",
        "duration": f"{seconds:.6f} s, from {events.t[0] / 1e6:.6f} s on",
        "rate": rate,
        "polarity": f"{events.p.mean():.1%} ON",
        "repairs": ", ".join(f"{what}: {count:,}" for what, count in events.repairs.items()) or "none",
    }
