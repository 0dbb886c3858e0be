"""Inputs and outputs."""

import numpy as np

from maqd.errors import ExportError
from maqd.export.onnx.emitter import Bytes, IntegerEmitter
from maqd.export.onnx.float_emitter import QonnxEmitter
from maqd.graph import Input, Output, Storage
from maqd.graph.rules import Table


def enter(e: IntegerEmitter, node: Input) -> None:
    """The codes of an input: its bytes as they are, other integers less zero, floats quantized in double."""
    name, kinds = node.name, e.onnx.TensorProto
    if node.storage is Storage.U8 and node.zero >= 0:
        e.bytes[name] = Bytes(node.key, node.zero)
    elif node.border is None:
        wide = e.emit("Cast", [node.key], f"{name}/stored", to=kinds.INT32)
        zero = e.constant(node.zero, np.int32, f"{name}/zero")
        e.words[name] = e.emit("Sub", [wide, zero], f"{name}/codes")
    else:
        border, column = node.border, [-1 if d == node.border.axis else 1 for d in range(len(node.shape))]
        double = e.emit("Cast", [node.key], f"{name}/double", to=kinds.DOUBLE)
        factors = border.multiplier.astype(np.float64) * 2.0**-border.shift
        factor = e.constant(factors.reshape(column), np.float64, f"{name}/factor")
        half = e.constant(0.5, np.float64, f"{name}/half")
        offset = e.constant(border.offset.astype(np.float64).reshape(column), np.float64, f"{name}/offset")
        ends = [
            e.constant(float(end), np.float64, f"{name}/{what}")
            for what, end in (("lowest", node.grid.low), ("highest", node.grid.high))
        ]
        scaled = e.emit("Mul", [double, factor], f"{name}/scaled")
        # The product is exact: a runtime that contracts it with the sum gives the same.
        floor = e.emit("Floor", [e.emit("Add", [scaled, half], f"{name}/raised")], f"{name}/floor")
        moved = e.emit("Add", [floor, offset], f"{name}/moved")
        # Not-a-number compares as false: it becomes the lowest code.
        number = e.emit("GreaterOrEqual", [moved, ends[0]], f"{name}/number")
        whole = e.emit("Where", [number, moved, ends[0]], f"{name}/whole")
        inside = e.emit("Min", [whole, ends[1]], f"{name}/inside")
        e.words[name] = e.emit("Cast", [inside], f"{name}/codes", to=kinds.INT32)


def leave(e: IntegerEmitter, node: Output) -> None:
    """The codes, which the model's output copies."""
    e.words[node.name] = e.int32(node.inputs[0])


def qonnx_enter(e: QonnxEmitter, node: Input) -> None:
    """The codes of an input: its integers, float32 by type and declared by a Quant node, less zero."""
    if node.border is not None:
        raise ExportError(
            f"input node {node.name!r} takes floats, and QONNX has no exact rule for them; export to ONNX"
        )
    limits = np.iinfo(node.storage.value)
    stored = e.quant(node.key, f"{node.name}/stored", limits.bits, signed=limits.min < 0, narrow=False)
    if node.zero:
        e.emit("Add", [stored, e.float_constant(-node.zero, f"{node.name}/zero")], node.name)
    else:
        e.emit("Identity", [stored], node.name)


def qonnx_leave(e: QonnxEmitter, node: Output) -> None:
    """The model's output under its key."""
    e.emit("Identity", node.inputs, node.key)


ONNX: Table = {Input: enter, Output: leave}
QONNX: Table = {Input: qonnx_enter, Output: qonnx_leave}
