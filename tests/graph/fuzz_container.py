"""A coverage-guided fuzzer of the file loader; `make fuzz` runs it.

Every input is read as it is and once more with a digest that fits, since hardly any change of a file would come past
that otherwise. Whatever is read as a graph is planned, built and, if it is small, run in the native engine and compared
with the interpreter. Anything but a `FormatError` of the loader is a finding.
"""

import json
import struct
import sys
import tempfile
from pathlib import Path
from types import FunctionType

import atheris
import numpy as np

from maqd.errors import EngineError, FormatError
from maqd.graph import Graph, Weighted, container, envelope, file_codes
from maqd.graph import graph as graph_module
from maqd.graph.nodes import activation, base, io, merging, pooling, shape, weighted
from maqd.numerics import bounds, packing, states
from maqd.plan import builder, make_plan, moves, planner
from maqd.runtime.native import NativeEngine
from maqd.runtime.numpy import NumpyEngine

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from graphs import every_node

SMALL = 10**6
"""Multiplications of a graph that is run."""


def instrument() -> None:
    """Makes the fuzzer see which code an input reaches; its import hook does not work with editable installations."""
    for module in (
        bounds,
        container,
        envelope,
        file_codes,
        graph_module,
        packing,
        planner,
        builder,
        moves,
        states,
        activation,
        base,
        io,
        merging,
        pooling,
        shape,
        weighted,
    ):
        for owner in (module, *(value for value in vars(module).values() if isinstance(value, type))):
            for value in vars(owner).values():
                for function in (value, *(getattr(value, name, None) for name in ("__func__", "func", "fget"))):
                    if isinstance(function, FunctionType) and function.__module__ == module.__name__:
                        atheris.instrument_func(function)


def signed(data: bytes) -> bytes | None:
    """The file with a digest that fits what it describes, or None if nothing can be made of it."""
    try:
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        document = json.loads(header["__metadata__"][envelope.KEY])
        document.pop("digest", None)
        body = memoryview(data)[8 + length :]
        tensors = {
            name: envelope.Part(
                dtype=entry["dtype"], shape=tuple(entry["shape"]), data=body[slice(*entry["data_offsets"])]
            )
            for name, entry in header.items()
            if name != "__metadata__"
        }
        digest = envelope.digest_of(document, tensors)
        header["__metadata__"] = {envelope.KEY: envelope.canonical({**document, "digest": digest})}
        text = json.dumps(header, separators=(",", ":")).encode()
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
        struct.error,
        OverflowError,
        BufferError,
    ):
        return None
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(body)


def use(graph: Graph) -> None:
    """Everything that can be done with a graph from a file."""
    work = sum(n.multiplications * graph.types[n.name].size for n in graph.nodes if isinstance(n, Weighted))
    if work + sum(kind.size for kind in graph.types.values()) > SMALL:
        return
    if sum(stage.arena.size for stage in make_plan(graph).stages) > SMALL:
        return
    images = np.random.default_rng(0).integers(0, 256, (2, *graph.input.shape), dtype=np.uint8)
    assert np.array_equal(NativeEngine(graph).run(images), NumpyEngine(graph).run(images))


def one_input(data: bytes) -> None:
    """What the fuzzer calls."""
    for file in (data, signed(data)):
        if file is None:
            continue
        try:
            graph = container.from_bytes(file)
        except FormatError:
            continue
        try:
            use(graph)
        except EngineError as error:
            assert "numpy engine" in str(error)  # noqa: PT017


def main() -> None:
    """Runs until an option of libFuzzer says stop."""
    instrument()
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(4):
            whole = container.to_bytes(every_node(seed))
            assert signed(whole) == whole  # else it would sign nothing, and get nowhere without a word
            (Path(folder) / f"graph{seed}").write_bytes(whole)
        atheris.Setup([*sys.argv, "-max_len=65536", "-rss_limit_mb=2048", "-timeout=20", folder], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
