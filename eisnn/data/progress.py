"""Progress on standard error for what takes long; silent where nobody watches (not a terminal)."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")
WORTH_SHOWING = 5_000  # items: fewer are done before one could read the line


def track(items: Sequence[T], description: str) -> Iterable[T]:
    """Iterates over `items` under a progress bar."""
    if len(items) < WORTH_SHOWING:
        return items
    return _tracked(items, description)


def _tracked(items: Sequence[T], description: str) -> Iterator[T]:
    from rich.progress import Progress

    with Progress(**_console()) as progress:
        yield from progress.track(items, description=description)


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
