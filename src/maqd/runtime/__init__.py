"""Engines that run a graph."""

import warnings
from pathlib import Path

from maqd.graph import container
from maqd.graph.envelope import LANGUAGE, open_reader
from maqd.language.file import model_of
from maqd.runtime.engine import ENGINES, BaseEngine, Class, Engine, Entry, check_threads, find_engine
from maqd.runtime.language import LanguageEngine
from maqd.runtime.native import NativeEngine, native_module
from maqd.runtime.numpy import NumpyEngine
from maqd.runtime.session import Session

__all__ = [
    "ENGINES",
    "BaseEngine",
    "Class",
    "Engine",
    "LanguageEngine",
    "NativeEngine",
    "NumpyEngine",
    "Session",
    "default_engine",
    "find_engine",
    "load",
]


def load(path: Path | str, *, threads: int = 1, engine: str | None = None) -> BaseEngine | LanguageEngine:
    """An engine for the graph or the language model in a .maqd file.

    Args:
        path: The file.
        threads: Threads of the native engine and of ONNX Runtime; the others ignore it.
        engine: One of `ENGINES`. By default the native one, or NumPy, with a warning, where that was not built.

    Raises:
        FormatError: The file is missing, damaged, malformed or of another schema.
        EngineError: There is no such engine, or it cannot run the graph.
        MissingDependencyError: The engine is asked for and what it needs is not installed.
    """
    check_threads(threads)
    reader = open_reader(path)
    if reader.content() == LANGUAGE:
        return LanguageEngine(model_of(reader), engine=engine, threads=threads)
    entry = default_engine() if engine is None else find_engine(engine)
    graph = container.graph_of(reader)
    made = entry.make(graph, threads=threads)
    if isinstance(made, NativeEngine):
        container.release(graph)  # the engine has its own forms of the weights
    return made


def default_engine() -> Entry:
    """The native engine, or NumPy's, with a warning, where that was not built."""
    if native_module() is not None:
        return ENGINES["native"]
    warnings.warn(
        "maqd was installed without a C++ compiler: graphs run in NumPy, much slower than in the native engine",
        RuntimeWarning,
        stacklevel=3,
    )
    return ENGINES["numpy"]
