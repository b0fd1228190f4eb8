"""What a person sees while a run goes on, and how Ctrl-C reaches the loop."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class ProgressBar:
    """One bar for the whole run: epoch, loss, accuracy, firing rate, samples a second, time left.

    Without a terminal there is no bar, and only what is printed appears.

    Args:
        total: steps of the whole run.
        done: steps before this session.
        enabled: False (other processes, quiet use) shows nothing.
        kind: what the samples are called.
    """

    def __init__(self, total: int, done: int, enabled: bool, kind: str) -> None:
        self.kind = kind
        self.console = Console(quiet=not enabled)
        shown = enabled and self.console.is_terminal
        columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[numbers]}")
        self._progress = Progress(
            *columns, TimeRemainingColumn(compact=True), console=self.console, disable=not shown, transient=True
        )
        self._task = self._progress.add_task("starting", total=total, completed=done, numbers="")

    def __enter__(self) -> "ProgressBar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, epoch: str, done: int, train: dict[str, float], images_per_second: float) -> None:
        numbers = (
            f"loss {train['loss']:.3f}  acc {train['accuracy']:.1f} %  {train['firing_rate']:.3f} spikes/step  "
            f"{images_per_second:.0f} {self.kind}/s"
        )
        self._progress.update(self._task, description=epoch, completed=done, numbers=numbers)

    def print(self, line: str) -> None:
        self.console.print(line, highlight=False, soft_wrap=True)  # a line of the log stays one line


class Stopwatch:
    """Images a second and seconds of this session."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.images = 0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start

    @property
    def images_per_second(self) -> float:
        return self.images / max(self.seconds, 1e-9)


class Interrupt:
    """Whether somebody asked the run to stop."""

    requested = False


@contextmanager
def catch_interrupt() -> Iterator[Interrupt]:
    """The first Ctrl-C (or SIGTERM) only sets a flag, so that the loop can save and leave; a second one interrupts."""
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

    def request(number: int, frame: Any) -> None:
        interrupt.requested = True
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, request)
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
