"""Engines that run a graph."""

import warnings
from pathlib import Path
from typing import Literal

from maqd.errors import EngineError
from maqd.graph import container
from maqd.runtime.native import NativeEngine, native_module
from maqd.runtime.numpy import NumpyEngine

__all__ = ["NativeEngine", "NumpyEngine", "load"]


def load(
    path: Path | str, *, threads: int = 1, engine: Literal["native", "numpy"] | None = None
) -> NativeEngine | NumpyEngine:
    """An engine for the graph in a .maqd file.

    Args:
        path: The file.
        threads: Threads of the native engine; NumPy uses its own.
        engine: Which engine. By default the native one, or NumPy, with a warning, where that was not built.

    Raises:
        FormatError: The file is missing, damaged, malformed or of another schema.
        EngineError: There is no such engine, or it cannot run the graph.
        MissingDependencyError: The native engine is asked for and was not built.
    """
    if engine not in (None, "native", "numpy"):
        raise EngineError(f'engine must be "native" or "numpy", got {engine!r}')
    graph = container.load(path)
    if engine == "numpy":
        return NumpyEngine(graph)
    if engine is None and native_module() is None:
        warnings.warn(
            "maqd was installed without a C++ compiler: graphs run in NumPy, much slower than in the native engine",
            RuntimeWarning,
            stacklevel=2,
        )
        return NumpyEngine(graph)
    native = NativeEngine(graph, threads=threads)
    container.discard(graph)  # the engine has its own forms of the weights
    return native
