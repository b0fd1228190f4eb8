"""What a network sees and says, in the terminal, while events come in."""

import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from eisnn.data import DataError
from eisnn.data.events import EventAugmentation, Events, read
from eisnn.data.events.draw import colours
from eisnn.data.events.recordings import Recordings
from eisnn.live import Step, from_pipe, watch, windows

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

WIDTH = 48  # characters that a frame takes at most
BAR = 30


def live(
    run: Path,
    source: str | None = None,
    *,
    data_path: Path | None = None,
    window: int | None = None,
    size: tuple[int, int] | None = None,
    speed: float = 1.0,
    recordings: int = 10,
) -> None:
    """Watch a network that has been trained on events while it watches events: its frames, and what it says.

    Args:
        run: The run's folder, a checkpoint, or a name that `eisnn.load` knows, such as nmnist-demo.
        source: A recording in any format, or - for a pipe that carries DAT; None shows recordings of the run's own
            evaluation split, one after the other, each from rest.
        data_path: Where the data set is, if not where it was at training.
        window: Time of a step, us; None divides the length of a recording of the training by its time steps. With it
            and a source, the data set need not be there.
        size: Height and width of the sensor, pixels, where the source does not say it.
        speed: 1 plays at the recording's own speed, 2 twice as fast, 0 as fast as possible.
        recordings: How many of the evaluation split to show.
    """
    from rich.console import Console
    from rich.live import Live

    from eisnn.interop.shared import About, load

    model = load(run)
    about: About = model.about  # type: ignore[assignment]
    data = about.config.data
    if not isinstance(data.augmentation, EventAugmentation):
        raise ValueError(f"{run} was trained on {data.dataset}, which holds no recordings of events")
    if source is not None and window is not None:
        sensor, steps, streams = None, window, _source(source, size)
    else:
        split = _recordings(run, data_path)
        sensor, steps = split.recording(0).size, window or _step(split)
        streams = _drawn(split, recordings) if source is None else _source(source, size)
    frame_size, settings = data.image_size, data.frames
    x, y, p = np.zeros(1, np.uint16), np.zeros(1, np.uint16), np.zeros(1, np.uint8)
    one = Events(np.zeros(1, np.int64), x, y, p, (frame_size, frame_size))
    next(watch(model, [one], size=frame_size, settings=settings))  # compiles, before it counts
    shown = View(about.classes)
    with Live(console=Console(), auto_refresh=False, transient=False) as terminal:
        for name, stream in streams:
            paced = pace(noted(windows(stream, steps), sensor), speed)
            for step in watch(model, paced, size=frame_size, settings=settings):
                terminal.update(shown.drawn(name, step), refresh=True)
            shown.end()
    print(f"\n{shown.summary()}")


def _recordings(run: Path, data_path: Path | None) -> Recordings:
    """The evaluation split of the run's data set."""
    from eisnn.interop import load_trained

    try:
        split = load_trained(run, data_path=None if data_path is None else str(data_path)).dataset.test
    except DataError as error:
        raise DataError(
            f"{error}. With --source and --window, the time of a step in us, no data set is needed"
        ) from error
    assert isinstance(split, Recordings)
    return split


def _step(split: Recordings) -> int:
    """The time of a recording of a data set, divided by its time steps, us; the median of up to a hundred."""
    lengths = [split.recording(k).duration + 1 for k in range(min(len(split), 100))]
    return max(1, -(-int(np.median(lengths)) // split.time_steps))


def _source(source: str, size: tuple[int, int] | None) -> Iterator[tuple[str, Iterable[Events]]]:
    """What to watch, and what to call it."""
    if source == "-":
        yield "the pipe", from_pipe(sys.stdin.buffer, size)  # type: ignore[arg-type]
    else:
        yield source, [read(source, size=size)]


def _drawn(split: Recordings, count: int) -> Iterator[tuple[str, Iterable[Events]]]:
    """Recordings of a data set, at random, and what to call them."""
    for k in torch.randperm(len(split), generator=torch.Generator().manual_seed(0))[:count].tolist():
        yield f"recording {k}, class {int(split.labels[k])}", [split.recording(k)]


def noted(stream: Iterable[Events], size: tuple[int, int] | None) -> Iterator[Events]:
    """The same windows, with a warning if they are of a sensor of another size than `size`, that of the training where
    it is known."""
    for k, events in enumerate(stream):
        if k == 0 and size is not None and events.size != size:
            seen, known = (f"{height} x {width}" for height, width in (events.size, size))
            warnings.warn(
                f"the recording is of a sensor of {seen} pixels, the network was trained on {known}: what it sees is "
                "scaled to the same frame, so shapes are larger, smaller or squashed",
                stacklevel=2,
            )
        yield events


def pace(stream: Iterable[Events], speed: float) -> Iterator[Events]:
    """Holds windows back until their time has come, at `speed` times the speed of the recording; 0 does not."""
    began = first = None
    for events in stream:
        if speed and len(events):
            now = time.monotonic()
            if began is None or first is None:
                began, first = now, events.t[0]
            time.sleep(max(0.0, began + (events.t[-1] - first) / 1e6 / speed - now))
        yield events


class View:
    """The screen: the frame, a bar for each class, and how fast it goes; and what was measured in all.

    Args:
        classes: names.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = classes
        self.seconds: list[float] = []
        self.events = 0
        self.answers: list[str] = []
        self.last = ""

    def drawn(self, name: str, step: Step) -> "RenderableType":
        """The screen after one more step."""
        from rich.columns import Columns
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        self.seconds.append(step.seconds)
        self.events += len(step.events)
        chance = step.mean.softmax(0).tolist()
        best = max(range(len(chance)), key=chance.__getitem__)
        self.last = self.classes[best]
        bars = Table.grid(padding=(0, 1))
        for k, share in enumerate(chance):
            bar = Text("█" * round(BAR * share) or "▏", "green" if k == best else "dim")
            bars.add_row(Text(self.classes[k], "bold" if k == best else ""), bar, f"{share:.0%}")
        pace = f"{len(step.events):,} events in {1e3 * step.seconds:.1f} ms: {step.rate:,.0f} events a second"
        answers = Text("so far: " + (" ".join(self.answers) or "none"), "dim")
        return Group(Text(name, "bold"), Columns([picture(step.frame), bars]), Text(pace), answers)

    def end(self) -> None:
        """Notes what the network says at the end of a recording."""
        self.answers.append(self.last)

    def summary(self) -> str:
        """Latency of the steps, and events a second over all of them."""
        times = np.array(self.seconds)
        return (
            f"{len(times)} steps: median {1e3 * np.median(times):.1f} ms, 95 % within "
            f"{1e3 * np.percentile(times, 95):.1f} ms, {self.events / times.sum():,.0f} events a second"
        )


def picture(frame: Tensor) -> "Text":
    """A frame [2, H, W] in characters, two pixels one above the other in each; ON and OFF in colour."""
    from rich.color import Color
    from rich.style import Style
    from rich.text import Text

    counts = frame.cpu().numpy()
    scale = -(-counts.shape[2] // WIDTH)
    height, width = (length // scale * scale for length in counts.shape[1:])
    counts = counts[:, :height, :width].reshape(2, height // scale, scale, width // scale, scale).sum((2, 4))
    counts = np.pad(counts, ((0, 0), (0, counts.shape[1] % 2), (0, 0)))
    rgb = colours(counts, max(1.0, float(np.percentile(counts[counts > 0], 90))) if counts.any() else 1.0)
    text = Text()
    for upper, lower in zip(rgb[::2], rgb[1::2], strict=True):
        for above, below in zip(upper.tolist(), lower.tolist(), strict=True):
            text.append("▀", Style(color=Color.from_rgb(*above), bgcolor=Color.from_rgb(*below)))
        text.append("\n")
    return text
