"""Several tensors in one: sums, products and concatenations."""

import math

import numpy as np

from maqd.export.onnx.emitter import IntegerEmitter
from maqd.export.onnx.float_emitter import QonnxEmitter
from maqd.graph import Add, Aligned, Concat, Multiply
from maqd.graph.rules import Table


def add(e: IntegerEmitter, node: Add) -> None:
    """Sums, two at a time."""
    first, *others = _aligned(e, node)
    for place, other in enumerate(others):
        first = e.emit("Add", [first, other], f"{node.name}/sum{place}")
    e.words[node.name] = first


def concat(e: IntegerEmitter, node: Concat) -> None:
    """Tensors side by side."""
    e.words[node.name] = e.emit("Concat", _aligned(e, node), f"{node.name}/joined", axis=node.axis + 1)


def multiply(e: IntegerEmitter, node: Multiply) -> None:
    """A product; the operator repeats dimensions of 1."""
    e.words[node.name] = e.emit("Mul", [e.int32(name) for name in node.inputs], f"{node.name}/codes")


def _aligned(e: IntegerEmitter, node: Aligned) -> list[str]:
    """The inputs as int32, shifted to one unit."""
    words = []
    for place, (source, shift) in enumerate(zip(node.inputs, node.shifts, strict=True)):
        word = e.int32(source)
        if shift:
            factor = e.constant(1 << shift, np.int32, f"{node.name}/factor{place}")
            word = e.emit("Mul", [word, factor], f"{node.name}/shifted{place}")
        words.append(word)
    return words


def qonnx_add(e: QonnxEmitter, node: Add) -> None:
    """Sums, two at a time."""
    first, *others = _qonnx_aligned(e, node)
    for place, other in enumerate(others):
        last = place == len(others) - 1
        first = e.emit("Add", [first, other], node.name if last else f"{node.name}/sum{place}")


def qonnx_concat(e: QonnxEmitter, node: Concat) -> None:
    """Tensors side by side."""
    e.emit("Concat", _qonnx_aligned(e, node), node.name, axis=node.axis + 1)


def qonnx_multiply(e: QonnxEmitter, node: Multiply) -> None:
    """A product; the operator repeats dimensions of 1."""
    e.emit("Mul", node.inputs, node.name)


def _qonnx_aligned(e: QonnxEmitter, node: Aligned) -> list[str]:
    """The inputs, shifted to one unit."""
    found = []
    for place, (source, shift) in enumerate(zip(node.inputs, node.shifts, strict=True)):
        factor = e.float_constant(math.ldexp(1, shift), f"/two{shift}")
        found.append(e.emit("Mul", [source, factor], f"{node.name}/shifted{place}") if shift else source)
    return found


ONNX: Table = {Add: add, Concat: concat, Multiply: multiply}
QONNX: Table = {Add: qonnx_add, Concat: qonnx_concat, Multiply: qonnx_multiply}
