"""ONNX with standard integer operators only: floats at float inputs alone, so no runtime has a rounding to choose.

docs/onnx.md says what is emitted.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maqd.errors import ExportError
from maqd.export.onnx.emitter import IntegerEmitter, Profile
from maqd.export.onnx.names import with_unique_names
from maqd.export.onnx.rules import activation, io, merging, pooling, shape, weighted
from maqd.export.onnx.writer import require_onnx
from maqd.graph import Graph
from maqd.graph.rules import Rules
from maqd.io.files import write_atomically


@dataclass(frozen=True, kw_only=True)
class Versions:
    """Versions that a model declares."""

    opset: int
    ir: int


VERSIONS = {Profile.COMPATIBLE: Versions(opset=21, ir=10), Profile.COMPACT: Versions(opset=25, ir=13)}
"""Opset 21 came with IR version 10; 2-bit integers came with opset 25 and IR version 13."""

ONNX = Rules(
    "the ONNX export", ExportError,
    io.ONNX, weighted.ONNX, activation.ONNX, pooling.ONNX, merging.ONNX, shape.ONNX,
)  # fmt: skip
"""What each kind of node becomes."""


def save_onnx(graph: Graph, path: Path | str, profile: Profile = Profile.COMPATIBLE) -> None:
    """Write an ONNX file; all of it or nothing.

    Raises:
        ExportError: The graph has something that the profile cannot express.
        MissingDependencyError: onnx is not installed.
        OSError: The file cannot be written; one that was there is untouched.
    """
    write_atomically(Path(path), [onnx_model(graph, profile).SerializeToString(deterministic=True)])


def onnx_model(graph: Graph, profile: Profile = Profile.COMPATIBLE, *, layers: bool = False) -> Any:
    """The graph as an `onnx.ModelProto`.

    Args:
        graph: A valid graph.
        profile: Which ONNX it may use.
        layers: Whether every tensor of the graph is an output as well, int32 codes under its node's name.

    Raises:
        ExportError: The graph has something that the profile cannot express.
        MissingDependencyError: onnx is not installed.
    """
    graph = with_unique_names(graph)
    emitter = IntegerEmitter(graph, profile, require_onnx())
    for node in graph.nodes:
        emitter.begin(graph, node)
        ONNX.find(node, f"{node.operation} node {node.name!r}")(emitter, node)
    results = {node.name: node.key for node in graph.outputs}
    if layers:
        results = {node.name: f"{node.name}/layer" for node in graph.nodes}
    for name, result in results.items():
        emitter.emit("Identity", [emitter.int32(name)], result)
    kinds, versions = emitter.onnx.TensorProto, VERSIONS[emitter.profile]
    return emitter.assemble(
        graph,
        inputs=[emitter.value(node.key, emitter.element(node), "N", node.shape) for node in graph.inputs],
        outputs=[
            emitter.value(result, kinds.INT32, "N", emitter.types[name].shape) for name, result in results.items()
        ],
        opsets={"": versions.opset},
        ir=versions.ir,
    )
