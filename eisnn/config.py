"""What the parts of a configuration share: each is a small class beside the functions that take it."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

Positive = Annotated[int, Field(ge=1)]


class Config(BaseModel):
    """A part of a configuration: typed, validated, and fixed once it is made.

    Raises: pydantic.ValidationError naming the field, the value and what would be right.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


def require_known(**names: tuple[str | None, list[str]]) -> None:
    """ValueError if a field's name, given with those that are known, is none of them (nor None)."""
    for field, (name, known) in names.items():
        if name is not None and name not in known:
            raise ValueError(f"{field} is {name!r}; known: {', '.join(sorted(known))}")


def problems(error: ValidationError) -> list[str]:
    """One line for each of pydantic's errors: field, what would be right, and the value; our own name all three."""
    return [_told(each) for each in error.errors()]


def _told(error: ErrorDetails) -> str:
    field, said = ".".join(map(str, error["loc"])), error["msg"]
    if error["type"] == "value_error":
        return said.removeprefix("Value error, ")
    if error["type"] == "missing":
        return f"{field} is missing"
    if said.startswith("Input should"):
        return f"{field} {said.replace('Input should', 'must', 1)}, got {error['input']!r:.200}"
    return f"{field}: {said}, got {error['input']!r:.200}"
