"""Names that are not known, and which one was meant."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`did you mean 'demo-plus'? ` for the nearest name; empty if none is near."""
    near = get_close_matches(name, list(known), 1)
    return f"did you mean {near[0]!r}? " if near else ""
