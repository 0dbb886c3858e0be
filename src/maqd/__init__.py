"""maqd: very low-bit neural networks, trained in PyTorch and run as the same integers everywhere.

`import maqd` needs NumPy only. What needs PyTorch lives below `maqd.nn`, `maqd.models`, `maqd.data`, `maqd.training`,
`maqd.lowering` and `maqd.convert`, and is imported when it is asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

from maqd.errors import MaqdError
from maqd.numerics.states import Grid, States

if TYPE_CHECKING:
    from maqd.convert import convert
    from maqd.graph.container import save
    from maqd.lowering import check, lower
    from maqd.runtime import load
    from maqd.training.runs import open_run

__version__ = "0.1.0"

__all__ = ["Grid", "MaqdError", "States", "__version__", "check", "convert", "load", "lower", "open_run", "save"]

_HOMES = {
    "check": "maqd.lowering",
    "convert": "maqd.convert",
    "load": "maqd.runtime",
    "lower": "maqd.lowering",
    "open_run": "maqd.training.runs",
    "save": "maqd.graph.container",
}
"""Functions that are imported when they are first used."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'maqd' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
