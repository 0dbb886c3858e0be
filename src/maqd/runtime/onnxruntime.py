"""ONNX Runtime as an engine: the peer that everybody has."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maqd.export.onnx.integer import INPUT, Profile, onnx_model
from maqd.graph import Graph
from maqd.graph.interpreter import check_images
from maqd.optional import require


class OnnxRuntime:
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
        self.graph = graph
        self.profile = profile
        self.threads = threads
        self._runtime: Any = require("onnxruntime", "this engine")

    def _session(self, model: Any) -> Any:
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        return self._runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    @cached_property
    def _result(self) -> Any:
        return self._session(onnx_model(self.graph, self.profile))

    @cached_property
    def _layers(self) -> Any:
        return self._session(onnx_model(self.graph, self.profile, layers=True))

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.int32]:
        """The logits.

        Args:
            images: uint8, N x the input's shape.

        Returns:
            int32, N x classes.

        Raises:
            EngineError: The images have another type or shape.
        """
        return self._result.run(None, {INPUT: check_images(self.graph, images)})[0]

    def layers(self, images: NDArray[np.uint8]) -> Iterator[tuple[str, NDArray[np.int64]]]:
        """Every tensor of the graph: name and codes, int64, N x the tensor's shape; arguments as in `run`."""
        found = self._layers.run(None, {INPUT: check_images(self.graph, images)})
        for node, codes in zip(self.graph.nodes, found, strict=True):
            yield node.name, codes.astype(np.int64)
