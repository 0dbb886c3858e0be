"""The exported C99 program as an engine, compiled for this computer."""

import ctypes
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
from maqd.graph import Graph
from maqd.plan import channels_first
from maqd.runtime.engine import BaseEngine, Codes
from maqd.runtime.inputs import Prepared

PREFIX = "maqd"

WARNINGS = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-Wconversion", "-Wsign-conversion", "-Wshadow")
"""What exported programs are compiled with."""

SHIM = f"""#include "{PREFIX}_model.h"

static int32_t *places[TENSORS + 1];

void {PREFIX}_trace(int32_t tensor, const int32_t *values, int32_t count) {{
    for (int32_t i = 0; i < count; i++) *places[tensor]++ = values[i];
}}

/* Runs an image; tensor t goes to tensors[t]. */
int maqd_traced(const uint8_t *image, int32_t *logits, int32_t *const *tensors);
int maqd_traced(const uint8_t *image, int32_t *logits, int32_t *const *tensors) {{
    for (int32_t i = 0; i < TENSORS; i++) places[i] = tensors[i];
    return {PREFIX}_run(image, logits);
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
        return (dict(self.tensors(prepared))[self.graph.output.name].astype(np.int32),)

    def tensors(self, prepared: Prepared) -> Iterator[tuple[str, NDArray[np.int64]]]:
        images = prepared.samples[0].array
        traced = self._exported.source.traced
        shapes = [self.graph.types[one.name].shape for one in traced]
        results = [np.empty((len(images), prod(shape)), np.int32) for shape in shapes]
        result_shape = self.graph.types[self.graph.output.name].shape
        logits = np.empty((len(images), prod(result_shape)), np.int32)
        channels_last = np.ascontiguousarray(np.moveaxis(images, 1, -1))
        pointers = (ctypes.c_void_p * max(len(results), 1))()
        for index, image in enumerate(channels_last):
            for place, result in enumerate(results):
                pointers[place] = result[index].ctypes.data
            if self._traced(image.ctypes.data, logits[index].ctypes.data, pointers):
                raise EngineError("the C program did not take its arguments")
        for one, shape, result in zip(traced, shapes, results, strict=True):
            yield one.name, one.as_in_graph(channels_first(result, shape).astype(np.int64))
        if all(one.name != self.graph.output.name for one in traced):
            yield self.graph.output.name, channels_first(logits, result_shape).astype(np.int64)

    @cached_property
    def _traced(self):
        with tempfile.TemporaryDirectory(prefix="maqd-c99-") as folder:
            root = Path(folder)
            for name, text in self._exported.files.items():
                (root / name).write_text(text)
            (root / "shim.c").write_text(SHIM)
            command = [
                *self._command,
                "-DMAQD_TRACE",
                f"-DTENSORS={len(self._exported.source.traced)}",
                "-shared",
                "-fPIC",
                "shim.c",
                f"{PREFIX}_model.c",
                "-o",
                "model.so",
            ]
            done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
            if done.returncode:
                raise EngineError(f"{self._command[0]} does not take the C program:\n{done.stderr[:2000]}")
            # A loaded library outlives its file.
            function = ctypes.CDLL(str(root / "model.so")).maqd_traced
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
        function.restype = ctypes.c_int
        return function
