"""eisnn: deep excitatory-inhibitory spiking networks that train without batch normalization.

Everything public is imported on first use (PEP 562), so that `import eisnn` and the command line stay quick.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "EIConv2d": "eisnn.nn",
    "EILinear": "eisnn.nn",
    "EIReadout": "eisnn.nn",
    "LIF": "eisnn.nn",
    "check": "eisnn.diagnosis",
    "convert": "eisnn.interop.convert",
    "create_model": "eisnn.models",
    "dale_violations": "eisnn.nn",
    "ei_init_": "eisnn.init",
    "enforce_dale": "eisnn.nn",
    "fit": "eisnn.train",
    "fold": "eisnn.nn",
    "list_models": "eisnn.models",
    "load": "eisnn.interop.shared",
    "plus_optimizer": "eisnn.train",
    "PLUS": "eisnn.nn",
    "publish": "eisnn.interop.hub",
}
_SUBMODULES = (
    "analysis",
    "bench",
    "cortex",
    "data",
    "deploy",
    "functional",
    "init",
    "interop",
    "methods",
    "models",
    "nn",
    "ops",
    "train",
)

__all__ = [*_EXPORTS, *_SUBMODULES]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    if name in _SUBMODULES:
        return importlib.import_module(f"eisnn.{name}")
    raise AttributeError(f"module 'eisnn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
