"""Pictures of events: polarity in colour, a time bar below."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .recording import Events

if TYPE_CHECKING:
    from PIL.Image import Image

BACKGROUND, INK, RAIL = (255, 255, 255), (40, 40, 40), (215, 215, 215)
ON, OFF = (200, 60, 0), (0, 90, 180)  # told apart by every kind of eye
WIDTH = 384  # of a picture, pixels, at least
SHEET, MOVIE = 8, 40  # pictures of a sheet and of a movie
EXPOSURE = 40_000  # us of a picture at most: what moves for longer smears both polarities over each other
MARGIN = 16


def frame(events: Events, begin: float, end: float) -> NDArray[np.int64]:
    """Counts [2, H, W] (OFF, ON) of the events from `begin` on, before `end`, microseconds."""
    low, high = np.searchsorted(events.t, (begin, end))
    height, width = events.size
    part = events[int(low) : int(high)]
    index = (part.p.astype(np.int64) * height + part.y) * width + part.x
    return np.bincount(index, minlength=2 * height * width).reshape(2, height, width)


def colours(counts: NDArray, full: float) -> NDArray[np.uint8]:
    """RGB [..., H, W, 3] of counts [2, ..., H, W]; `full` events of a pixel are its full colour, polarities mix."""
    off, on = np.minimum(counts / full, 1)
    total = np.maximum(on + off, 1)
    alpha_on, alpha_off = (on / total)[..., None], (off / total)[..., None]
    mixed = alpha_on * ON + alpha_off * OFF + (1 - alpha_on - alpha_off) * BACKGROUND
    return mixed.round().astype(np.uint8)


def exposures(events: Events, count: int) -> list[tuple[float, float]]:
    """The beginnings of `count` parts that divide the recording's time equally, of `EXPOSURE` at most."""
    begins = np.linspace(events.t[0], events.t[-1] + 1, count, endpoint=False)
    length = min(EXPOSURE, (events.duration + 1) / count)
    return [(begin, begin + length) for begin in begins.tolist()]


def pictures(events: Events, count: int) -> list["Image"]:
    """A picture of each of `count` exposures, with its time and a bar that says which part of the recording it is."""
    from PIL import Image, ImageDraw

    spans = exposures(events, count)
    frames = [frame(events, *span) for span in spans]
    busy = np.concatenate([counts[counts > 0] for counts in frames])
    full = max(1.0, float(np.percentile(busy, 90)))
    height, width = events.size
    zoom = max(1, -(-WIDTH // width))
    drawn = []
    for counts, (begin, end) in zip(frames, spans, strict=True):
        picture = Image.new("RGB", (zoom * width, zoom * height + 40), BACKGROUND)
        image = Image.fromarray(colours(counts, full))
        picture.paste(image.resize((zoom * width, zoom * height), Image.Resampling.NEAREST))
        draw = ImageDraw.Draw(picture)
        top, span = zoom * height, picture.width - 2 * MARGIN
        left, right = ((t - events.t[0]) / max(events.duration + 1, 1) * span + MARGIN for t in (begin, end))
        draw.rectangle((0, 0, picture.width - 1, top - 1), outline=RAIL)
        draw.rectangle((MARGIN, top + 8, picture.width - MARGIN, top + 13), fill=RAIL)
        draw.rectangle((left, top + 8, max(right, left + 1), top + 13), fill=INK)
        seconds = f"{(begin - events.t[0]) / 1e6:.3f} s, {(end - begin) / 1e3:.1f} ms"
        _legend(draw, seconds, MARGIN, top + 19, picture.width - MARGIN)
        drawn.append(picture)
    return drawn


def _legend(draw: Any, text: str, left: int, top: int, right: int) -> None:
    from PIL import ImageFont

    font = ImageFont.load_default(13)
    draw.text((left, top), text, INK, font)
    for name, colour, at in (("ON", ON, right - 88), ("OFF", OFF, right - 42)):
        draw.rectangle((at, top + 3, at + 10, top + 13), fill=colour)
        draw.text((at + 15, top), name, INK, font)


def write_sheet(events: Events, path: Path, count: int = SHEET) -> None:
    """A PNG of `count` exposures, four in a row."""
    from PIL import Image

    drawn = pictures(events, count)
    columns = min(4, count)
    rows = -(-count // columns)
    width, height = drawn[0].size
    sheet = Image.new("RGB", (columns * (width + 8) - 8, rows * (height + 8) - 8), BACKGROUND)
    for k, picture in enumerate(drawn):
        sheet.paste(picture, (k % columns * (width + 8), k // columns * (height + 8)))
    sheet.save(path, "PNG")


def write_movie(events: Events, path: Path, count: int = MOVIE) -> None:
    """A GIF of `count` exposures that plays at the recording's own speed, or in two seconds if that is slower."""
    first, *others = (picture.quantize(64) for picture in pictures(events, count))
    each = max(events.duration / 1e3, 2000) / count
    first.save(path, "GIF", save_all=True, append_images=others, duration=round(each), loop=0)
