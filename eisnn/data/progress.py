"""Progress on standard error for what takes long; silent where nobody watches (not a terminal)."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")
WORTH_SHOWING = 5_000  # items: fewer are done before one could read the line
_open: list["Progress"] = []  # what is on the screen; it can hold only one at a time


def track(items: Sequence[T], description: str, least: int = WORTH_SHOWING) -> Iterable[T]:
    """Iterates over `items` under a progress bar, if there are at least `least`."""
    return _tracked(items, description) if len(items) >= least else items


def _tracked(items: Sequence[T], description: str) -> Iterator[T]:
    from rich.progress import Progress

    if _open:  # a bar within a bar
        progress = _open[-1]
        task = progress.add_task(description, total=len(items))
        yield from progress.track(items, task_id=task)
        progress.remove_task(task)
        return
    with Progress(**_console()) as progress:
        _open.append(progress)
        try:
            yield from progress.track(items, description=description)
        finally:
            _open.remove(progress)


@contextmanager
def byte_bar(description: str) -> Iterator["Progress"]:
    """A progress bar that counts bytes; add tasks to it."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, **_console()) as progress:
        progress.add_task(description, total=None)
        yield progress


def _console() -> dict:
    from rich.console import Console

    console = Console(stderr=True)
    return {"console": console, "transient": True, "disable": not console.is_terminal}
