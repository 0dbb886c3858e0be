"""ONNX Runtime as an engine."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maqd.export.onnx.integer import Profile, onnx_model
from maqd.graph import Graph
from maqd.optional import require
from maqd.runtime.engine import BaseEngine, Codes, check_threads
from maqd.runtime.inputs import Prepared


class OnnxRuntime(BaseEngine):
    """A graph in ONNX Runtime, on the CPU.

    Args:
        graph: A valid graph.
        profile: Which ONNX it is exported to.
        threads: Threads of an operator.

    Raises:
        ExportError: ONNX cannot express the graph.
        MissingDependencyError: onnx or onnxruntime is not installed.
    """

    name = "onnxruntime"

    def __init__(self, graph: Graph, *, profile: Profile = Profile.COMPATIBLE, threads: int = 1) -> None:
        super().__init__(graph)
        self.profile = profile
        self.threads = check_threads(threads)
        require("onnxruntime", "this engine")

    @cached_property
    def _result(self) -> Any:
        return session(onnx_model(self.graph, self.profile).SerializeToString(), self.threads)

    @cached_property
    def _layers(self) -> Any:
        return session(onnx_model(self.graph, self.profile, layers=True).SerializeToString(), self.threads)

    def options(self) -> dict[str, Any]:
        return {"profile": self.profile, "threads": self.threads}

    def compute(self, prepared: Prepared) -> tuple[Codes, ...]:
        return tuple(self._result.run(None, _feed(prepared)))

    def tensors(self, prepared: Prepared) -> Iterator[tuple[str, NDArray[np.int64]]]:
        found = self._layers.run(None, _feed(prepared))
        for node, codes in zip(self.graph.nodes, found, strict=True):
            yield node.name, codes.astype(np.int64)


def session(model: bytes, threads: int) -> Any:
    """A session of ONNX Runtime on the CPU that is quiet, and takes no more threads than it is given."""
    runtime: Any = require("onnxruntime", "this engine")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _feed(prepared: Prepared) -> dict[str, NDArray[np.generic]]:
    return {one.input.key: one.array for one in prepared.samples}
