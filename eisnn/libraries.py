"""Libraries that belong to an extra and are imported where they are used."""

from importlib import import_module
from typing import Any


def library(module: str, extra: str) -> Any:
    """The module; ImportError that names the extra which brings it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f"this needs the package {module.split('.')[0]}: pip install 'eisnn[{extra}]'") from error
