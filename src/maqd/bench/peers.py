"""Runtimes of others with a conventional network, to compare the engine's speed with."""

import enum
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maqd.bench.conventional import Precision, conventional_model
from maqd.graph import Graph
from maqd.numerics.states import PIXELS
from maqd.optional import require
from maqd.runtime.onnxruntime import session


class Runtime(enum.Enum):
    """Whose engine."""

    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"


class Peer(ABC):
    """A conventional network in the runtime of another project, for one batch size.

    Args:
        graph: A valid graph; the network has its shapes.
        precision: Its numbers.
        threads: Threads of a call.
        batch: Images of a call.

    Raises:
        MissingDependencyError: The runtime or onnx is not installed.
        ExportError: The graph has no conventional counterpart.
    """

    runtime: Runtime

    def __init__(self, graph: Graph, precision: Precision, *, threads: int, batch: int) -> None:
        self.precision = precision
        self.threads = threads
        self.key = graph.input.key
        self.shape = (batch, *graph.input.shape)
        self._module: Any = require(self.runtime.value, "this peer")
        self._open(conventional_model(graph, precision).SerializeToString())

    @property
    def name(self) -> str:
        """Runtime and numbers, for tables."""
        return f"{self.runtime.value} {self.precision.value}"

    @property
    def version(self) -> str:
        """Of the runtime."""
        return str(self._module.__version__)

    def input(self, images: NDArray[np.uint8]) -> NDArray[np.generic]:
        """What the network takes for these images; made beforehand, not measured."""
        if self.precision is Precision.INT8:
            return images
        return (images.astype(np.float32) + PIXELS.low) * np.float32(PIXELS.unit)

    @abstractmethod
    def _open(self, model: bytes) -> None: ...

    @abstractmethod
    def run(self, images: NDArray[np.generic]) -> object:
        """One call."""


class OnnxRuntimePeer(Peer):
    """ONNX Runtime on the CPU."""

    runtime = Runtime.ONNXRUNTIME

    def _open(self, model: bytes) -> None:
        self._session = session(model, self.threads)

    def run(self, images: NDArray[np.generic]) -> object:
        return self._session.run(None, {self.key: images})


class OpenVinoPeer(Peer):
    """OpenVINO on the CPU; the environment variable ONEDNN_MAX_CPU_ISA limits its instruction set."""

    runtime = Runtime.OPENVINO

    def _open(self, model: bytes) -> None:
        core = self._module.Core()
        network = core.read_model(model)
        network.reshape({self.key: list(self.shape)})
        settings = {"INFERENCE_NUM_THREADS": self.threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        self._request: Any = core.compile_model(network, "CPU", settings).create_infer_request()

    def run(self, images: NDArray[np.generic]) -> object:
        return self._request.infer({0: self._module.Tensor(images, shared_memory=True)})


PEERS: tuple[type[Peer], ...] = (OpenVinoPeer, OnnxRuntimePeer)
"""All of them."""
