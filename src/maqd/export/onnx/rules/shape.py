"""The same codes in another shape, order or place."""

import numpy as np

from maqd.export.onnx.emitter import IntegerEmitter
from maqd.export.onnx.float_emitter import QonnxEmitter
from maqd.graph import Flatten, Gather, Permute, Reshape
from maqd.graph.rules import Table


def flatten(e: IntegerEmitter, node: Flatten) -> None:
    """The operator."""
    e.same(node, lambda x, y: e.emit("Flatten", [x], y, axis=1))


def reshape(e: IntegerEmitter, node: Reshape) -> None:
    """The operator."""
    e.same(node, lambda x, y: e.reshaped(node, x, y))


def permute(e: IntegerEmitter, node: Permute) -> None:
    """A transposition."""
    e.same(node, lambda x, y: e.permuted(node, x, y))


def gather(e: IntegerEmitter, node: Gather) -> None:
    """Slices, padding or indices; on bytes where the constant code is one."""
    source, shape = node.inputs[0], e.types[node.inputs[0]].shape
    zero = e.bytes[source].zero if source in e.bytes else 0
    if source in e.bytes and 0 <= node.fill + zero <= 255:
        e.same(node, lambda x, y: e.gathered(node, x, y, shape, node.fill + zero, np.uint8))
    else:
        codes = e.gathered(node, e.int32(source), f"{node.name}/codes", shape, node.fill, np.int32)
        e.words[node.name] = codes


def qonnx_flatten(e: QonnxEmitter, node: Flatten) -> None:
    """The operator."""
    e.emit("Flatten", node.inputs, node.name, axis=1)


def qonnx_reshape(e: QonnxEmitter, node: Reshape) -> None:
    """The operator."""
    e.reshaped(node, node.inputs[0], node.name)


def qonnx_permute(e: QonnxEmitter, node: Permute) -> None:
    """A transposition."""
    e.permuted(node, node.inputs[0], node.name)


def qonnx_gather(e: QonnxEmitter, node: Gather) -> None:
    """Slices, padding or indices."""
    source = node.inputs[0]
    e.gathered(node, source, node.name, e.types[source].shape, node.fill, np.float32)


ONNX: Table = {Flatten: flatten, Reshape: reshape, Permute: permute, Gather: gather}
QONNX: Table = {Flatten: qonnx_flatten, Reshape: qonnx_reshape, Permute: qonnx_permute, Gather: qonnx_gather}
