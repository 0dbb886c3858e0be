"""QONNX: float-typed ONNX whose values are the graph's integers, for tools that build hardware from it.

The tensors hold codes, exact in float32 below 2**24; docs/onnx.md says what is emitted.
"""

from pathlib import Path
from typing import Any

from maqd.errors import ExportError
from maqd.export.onnx.float_emitter import DOMAIN, Flavour, QonnxEmitter
from maqd.export.onnx.names import with_unique_names
from maqd.export.onnx.rules import activation, io, merging, pooling, shape, weighted
from maqd.export.onnx.writer import require_onnx
from maqd.graph import Graph
from maqd.graph.rules import Rules
from maqd.io.files import write_atomically

OPSET = 13
IR = 8
"""Versions that the tools for QONNX were written for."""

EXACT = 2**24
"""Integers below are exact in float32."""

QONNX = Rules(
    "the QONNX export", ExportError,
    io.QONNX, weighted.QONNX, activation.QONNX, pooling.QONNX, merging.QONNX, shape.QONNX,
)  # fmt: skip
"""What each kind of node becomes."""


def save_qonnx(graph: Graph, path: Path | str, flavour: Flavour) -> None:
    """Write a QONNX file; all of it or nothing.

    Raises:
        ExportError: The flavour cannot express the graph exactly.
        MissingDependencyError: onnx is not installed.
        OSError: The file cannot be written; one that was there is untouched.
    """
    write_atomically(Path(path), [qonnx_model(graph, flavour).SerializeToString(deterministic=True)])


def qonnx_model(graph: Graph, flavour: Flavour) -> Any:
    """The graph as an `onnx.ModelProto` for one sample: float32 of integer value, stored integers to logits.

    Args:
        graph: A valid graph.
        flavour: How activations are written.

    Raises:
        ExportError: The flavour cannot express the graph exactly.
        MissingDependencyError: onnx is not installed.
    """
    graph = with_unique_names(graph)
    emitter = QonnxEmitter(graph, flavour, require_onnx())
    for node in graph.nodes:
        grid = emitter.types[node.name].grid
        if grid.magnitude >= EXACT:
            raise ExportError(
                f"{node.operation} node {node.name!r} can reach {grid.low} .. {grid.high}, and QONNX computes in "
                "float32, which is exact below 2^24; use fewer states or export to ONNX"
            )
        emitter.begin(graph, node)
        QONNX.find(node, f"{node.operation} node {node.name!r}")(emitter, node)
    emitter.drop_copies()
    kinds = emitter.onnx.TensorProto
    return emitter.assemble(
        graph,
        inputs=[emitter.value(node.key, kinds.FLOAT, 1, node.shape) for node in graph.inputs],
        outputs=[emitter.value(node.key, kinds.FLOAT, 1, emitter.types[node.name].shape) for node in graph.outputs],
        opsets={"": OPSET, DOMAIN: 1},
        ir=IR,
    )
