"""The exported C99 program as an engine, compiled for this computer."""

import ctypes
import math
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maqd.errors import EngineError, MissingDependencyError
from maqd.export.c99 import Strategy, export_c99
from maqd.export.c99.ends import Ends, Entry
from maqd.export.c99.quantize import quantizer
from maqd.graph import Graph
from maqd.plan import channels_first
from maqd.runtime.engine import BaseEngine, Codes
from maqd.runtime.inputs import Prepared, Samples

PREFIX = "maqd"

WARNINGS = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-Wconversion", "-Wsign-conversion", "-Wshadow")
"""What exported programs are compiled with."""


def _shim(ends: Ends) -> str:
    """Code that runs a sample and keeps its tensors: tensor t goes to tensors[t]."""
    pointers = [f"inputs[{place}]" for place in range(len(ends.inputs))]
    pointers += [f"outputs[{place}]" for place in range(len(ends.outputs))]
    return f"""#include "{PREFIX}_model.h"

static int32_t *places[TENSORS + 1];

void {PREFIX}_trace(int32_t tensor, const int32_t *values, int32_t count) {{
    for (int32_t i = 0; i < count; i++) *places[tensor]++ = values[i];
}}

int maqd_traced(const void *const *inputs, int32_t *const *outputs, int32_t *const *tensors);
int maqd_traced(const void *const *inputs, int32_t *const *outputs, int32_t *const *tensors) {{
    for (int32_t i = 0; i < TENSORS; i++) places[i] = tensors[i];
    return {PREFIX}_run({", ".join(pointers)});
}}
"""


class CEngine(BaseEngine):
    """A graph as `maqd export --to c99` writes it.

    Args:
        graph: A valid graph.
        strategy: Of the export.
        compiler: Command of a C compiler; cc or gcc or clang, whichever there is, by default.
        flags: Its options, besides warnings.

    Raises:
        MissingDependencyError: There is no compiler.
        ExportError: The graph cannot be exported.
        EngineError: The compiler does not take the program.
    """

    name = "c99"

    def __init__(
        self,
        graph: Graph,
        *,
        strategy: Strategy = Strategy.BALANCED,
        compiler: str | None = None,
        flags: tuple[str, ...] = ("-O2",),
    ) -> None:
        found = next(
            (path for name in ([compiler] if compiler else ["cc", "gcc", "clang"]) if (path := shutil.which(name))),
            None,
        )
        if found is None:
            raise MissingDependencyError(
                f"the C program needs a compiler ({compiler or 'cc, gcc or clang'}); install one, for example gcc"
            )
        super().__init__(graph)
        self._options = {"strategy": strategy, "compiler": compiler, "flags": flags}
        self._exported = export_c99(graph, strategy=strategy, prefix=PREFIX)
        self._command = (found, *WARNINGS, *flags)

    def options(self) -> dict[str, Any]:
        return self._options

    def compute(self, prepared: Prepared) -> tuple[Codes, ...]:
        return tuple(self._run(prepared)[0])

    def tensors(self, prepared: Prepared) -> Iterator[tuple[str, NDArray[np.int64]]]:
        outputs, tensors = self._run(prepared)
        traced = self._exported.source.traced
        for one, tensor in zip(traced, tensors, strict=True):
            yield one.name, one.as_in_graph(tensor.astype(np.int64))
        names = {one.name for one in traced}
        for node, codes in zip(self.graph.outputs, outputs, strict=True):
            if node.name not in names:
                yield node.name, codes.astype(np.int64)

    def _run(self, prepared: Prepared) -> tuple[list[Codes], list[Codes]]:
        """Outputs and traced tensors, in the graph's shapes; the latter as the program has them."""
        ends, traced, count = self._exported.program.ends, self._exported.source.traced, prepared.count
        inputs = [self._integers(end, samples) for end, samples in zip(ends.inputs, prepared.samples, strict=True)]
        shapes = [
            self.graph.types[name].shape for name in (*(e.node.name for e in ends.outputs), *(t.name for t in traced))
        ]
        results = [np.empty((count, prod(shape)), np.int32) for shape in shapes]
        split = len(ends.outputs)
        for index in range(count):
            lists = (inputs, results[:split], results[split:])
            given = [
                (ctypes.c_void_p * max(len(each), 1))(*(array[index].ctypes.data for array in each)) for each in lists
            ]
            if self._library.maqd_traced(*given):
                raise EngineError("the C program did not take its arguments")
        found = [channels_first(result, shape) for result, shape in zip(results, shapes, strict=True)]
        return found[:split], found[split:]

    def _integers(self, end: Entry, samples: Samples) -> NDArray[np.generic]:
        """What the program takes: N x elements, the channels innermost; floats go through its own quantizer."""
        given = np.ascontiguousarray(np.moveaxis(samples.array, 1, -1)).reshape(
            len(samples.array), math.prod(end.node.shape)
        )
        if end.node.border is None:
            return given
        made = np.empty(given.shape, end.dtype)
        quantize = getattr(self._library, quantizer(end, PREFIX))
        quantize.argtypes, quantize.restype = [ctypes.c_void_p, ctypes.c_void_p], None
        for numbers, integers in zip(given, made, strict=True):
            quantize(numbers.ctypes.data, integers.ctypes.data)
        return made

    @cached_property
    def _library(self) -> ctypes.CDLL:
        """The program, compiled and loaded."""
        with tempfile.TemporaryDirectory(prefix="maqd-c99-") as folder:
            root = Path(folder)
            for name, text in self._exported.files.items():
                (root / name).write_text(text)
            (root / "shim.c").write_text(_shim(self._exported.program.ends))
            sources = [name for name in self._exported.files if name.endswith(".c") and "selftest" not in name]
            command = [
                *self._command,
                "-DMAQD_TRACE",
                f"-DTENSORS={len(self._exported.source.traced)}",
                "-shared",
                "-fPIC",
                "shim.c",
                *sources,
                "-o",
                "model.so",
            ]
            done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
            if done.returncode:
                raise EngineError(f"{self._command[0]} does not take the C program:\n{done.stderr[:2000]}")
            library = ctypes.CDLL(str(root / "model.so"))  # outlives its file
        library.maqd_traced.argtypes = [ctypes.c_void_p] * 3
        library.maqd_traced.restype = ctypes.c_int
        return library
