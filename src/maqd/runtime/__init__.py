"""Engines that run a graph."""

from pathlib import Path

from maqd import container
from maqd.runtime.numpy import NumpyEngine

__all__ = ["NumpyEngine", "load"]


def load(path: Path | str) -> NumpyEngine:
    """An engine for the graph in a .maqd file.

    Raises:
        FormatError: The file is missing, damaged, malformed or of another schema.
    """
    return NumpyEngine(container.load(path))
