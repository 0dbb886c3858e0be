"""Thresholds and fixed-point maps."""

import numpy as np
from numpy.typing import NDArray

from maqd.errors import ExportError
from maqd.export.onnx.emitter import Bytes, IntegerEmitter
from maqd.export.onnx.float_emitter import DOMAIN, Flavour, QonnxEmitter
from maqd.graph import Activation, FixedPoint, Thresholds, channel_interval
from maqd.graph.rules import Table
from maqd.numerics.bounds import Interval, byte_zero
from maqd.numerics.fixedpoint import FixedAffine
from maqd.numerics.limits import INT32_LIMIT
from maqd.numerics.states import FEW_STATES

CHUNK = 16
"""Thresholds that are compared at once: the comparisons of all of them are in memory together."""


def thresholds(e: IntegerEmitter, node: Thresholds) -> None:
    """How many thresholds each code reaches, int32: comparisons and a sum over them."""
    name, column = node.name, e.column(node, node.axis)
    x = e.int32(node.inputs[0])
    if (node.signs < 0).any():
        signs = e.constant(node.signs.reshape(column), np.int32, f"{name}.signs")
        x = e.emit("Mul", [x, signs], f"{name}/signed")
    axis = e.constant([1], np.int64, f"{name}/axis")
    x = e.emit("Unsqueeze", [x, axis], f"{name}/unsqueezed")
    total = ""
    for place, start in enumerate(range(0, len(node.thresholds), CHUNK)):
        cuts = node.thresholds[start : start + CHUNK]
        constant = e.constant(cuts.reshape(len(cuts), *column[1:]), np.int32, f"{name}.thresholds{place}")
        reached = e.emit("GreaterOrEqual", [x, constant], f"{name}/reached{place}")
        ones = e.emit("Cast", [reached], f"{name}/ones{place}", to=e.onnx.TensorProto.INT32)
        count = e.emit("ReduceSum", [ones, axis], f"{name}/count{place}", keepdims=0)
        total = e.emit("Add", [total, count], f"{name}/total{place}") if total else count
    _settle(e, node, total)


def fixed_point(e: IntegerEmitter, node: FixedPoint) -> None:
    """clip(floor((A x + B) / 2^K), 0, M-1), int32.

    ONNX's Div truncates, so what it would truncate is subtracted before. The clip is in int32: on x86, ONNX
    Runtime's Clip, Max and Min of int64 compare by the low halves alone (seen in versions up to 1.31).
    """
    name, column = node.name, e.column(node, node.axis)
    reach = (node.reach(e.types[node.inputs[0]]) >> node.shift) + 1
    if reach > INT32_LIMIT:
        remedy = "lower the network with --affine thresholds" if node.states.few else "use a larger step"
        raise ExportError(
            f"{node.operation} node {name!r}: (A x + B) / 2^{node.shift} can reach {reach}, which does not fit 32 "
            f"bits; {remedy}"
        )
    wide = e.emit("Cast", [e.int32(node.inputs[0])], f"{name}/int64", to=e.onnx.TensorProto.INT64)
    a = e.constant(node.multiplier.reshape(column), np.int64, f"{name}.multiplier")
    b = e.constant(node.offset.reshape(column), np.int64, f"{name}.offset")
    numerator = e.emit("Add", [e.emit("Mul", [wide, a], f"{name}/product"), b], f"{name}/numerator")
    divisor = e.constant(1 << node.shift, np.int64, f"{name}/divisor")
    rest = e.emit("Mod", [numerator, divisor], f"{name}/rest")  # of the divisor's sign, so never negative
    even = e.emit("Sub", [numerator, rest], f"{name}/even")
    quotient = e.emit("Div", [even, divisor], f"{name}/quotient")
    word = e.emit("Cast", [quotient], f"{name}/quotient/int32", to=e.onnx.TensorProto.INT32)
    bounds = [
        e.constant(value, np.int32, f"{name}/{what}") for what, value in (("low", 0), ("high", node.states.count - 1))
    ]
    _settle(e, node, e.emit("Clip", [word, *bounds], f"{name}/index"))


def _settle(e: IntegerEmitter, node: Activation, index: str) -> None:
    """Codes from the index of the state, int32."""
    states, name = node.states, node.name
    if byte_zero(states.low, states.high) is not None:
        value = e.to_uint8(index, f"{name}/index/uint8")
        if states.spacing > 1:
            spacing = e.constant(states.spacing, np.uint8, f"{name}/spacing")
            value = e.emit("Mul", [value, spacing], f"{name}/bytes")
        e.bytes[name] = Bytes(value, -states.low)
        return
    spacing = e.constant(states.spacing, np.int32, f"{name}/spacing")
    scaled = e.emit("Mul", [index, spacing], f"{name}/scaled")
    lowest = e.constant(states.low, np.int32, f"{name}/lowest")
    e.words[name] = e.emit("Add", [scaled, lowest], f"{name}/codes")


def qonnx_activation(e: QonnxEmitter, node: Activation) -> None:
    """As the flavour says."""
    if e.flavour is Flavour.MULTITHRESHOLD:
        _multi_threshold(e, node)
    else:
        _scaled(e, node)


def _column(e: QonnxEmitter, node: Activation) -> tuple[int, ...]:
    """Shape of one value a channel that can be broadcast to a batch; hls4ml takes it without the batch."""
    return tuple(-1 if d == node.axis else 1 for d in range(len(e.types[node.name].shape)))


def _codes(e: QonnxEmitter, node: Activation, index: str) -> None:
    """Codes from the index of the state."""
    states, name = node.states, node.name
    if states.spacing > 1:
        spacing = e.float_constant(states.spacing, f"{name}/spacing")
        index = e.emit("Mul", [index, spacing], f"{name}/spaced")
    if states.low:
        index = e.emit("Add", [index, e.float_constant(states.low, f"{name}/low")], f"{name}/codes")
    e.emit("Identity", [index], name)


def _multi_threshold(e: QonnxEmitter, node: Activation) -> None:
    """Signs, then a count of thresholds."""
    if not node.states.few:
        raise ExportError(
            f"{node.operation} node {node.name!r} has {node.states.count} states, and a MultiThreshold node would need "
            f"as many thresholds for each channel; use at most {FEW_STATES} states, or --flavour quant"
        )
    name = node.name
    cuts, signs = node.cuts(channel_interval(e.types[node.inputs[0]], node.axis))
    (source,) = node.inputs
    if (signs < 0).any():
        source = e.emit(
            "Mul",
            [source, e.float_constant(signs.reshape(_column(e, node)), f"{name}.signs")],
            f"{name}/signed",
        )
    layout = ["N", *"DHW"[3 - (len(e.types[name].shape) - 1) :]]
    layout.insert(node.axis + 1, "C")
    states, bits = node.states, max(1, (node.states.count - 1).bit_length())
    kind = f"INT{states.high.bit_length() + 1}" if states.signed else "BINARY" if bits == 1 else f"UINT{bits}"
    e.emit(
        "MultiThreshold",
        [source, e.float_constant(cuts.T, f"{name}.thresholds")],
        name,
        domain=DOMAIN,
        out_dtype=kind,
        out_scale=float(states.spacing),
        out_bias=float(states.low),
        data_layout="".join(layout),
    )


def _scaled(e: QonnxEmitter, node: Activation) -> None:
    """round(clip(A 2^-K x + B' , 0, M-1)), if float32 gets that right for every x.

    B' = B 2^-K - 1/2 + 2^-(K+1) lies half a step of 2^-K from where floor would step: no value is a half, which tools
    round in different ways.
    """
    name, interval = node.name, channel_interval(e.types[node.inputs[0]], node.axis)
    affine = node.affine(interval)
    if affine is None or not _right_in_float32(node, affine, interval):
        remedy = "export with --flavour multithreshold"
        if not node.states.few:
            remedy = f"use at most {FEW_STATES} states, or QuantActivation, whose scale is a power of two"
        raise ExportError(
            f"{node.operation} node {name!r}: float32 has too few bits for a scale and an offset that give the "
            f"same codes for every accumulator value; {remedy}"
        )
    column, last = _column(e, node), node.states.count - 1
    scale = e.float_constant(_float32(affine.multiplier, affine.shift).reshape(column), f"{name}.scale")
    offset = e.float_constant(_float32(*_centred(affine)).reshape(column), f"{name}.offset")
    scaled = e.emit("Mul", [*node.inputs, scale], f"{name}/scaled")
    real = e.emit("Add", [scaled, offset], f"{name}/real")
    bits = max(1, last.bit_length())
    narrow = last == 2**bits - 2
    if last < 2**bits - 2:  # the Quant node clips to 2^bits or 2^bits - 1 states
        ends = [e.float_constant(0, "/zero"), e.float_constant(last, f"{name}/last")]
        real = e.emit("Clip", [real, *ends], f"{name}/clipped")
    _codes(e, node, e.quant(real, f"{name}/quant", bits, signed=False, narrow=narrow))


def _centred(affine: FixedAffine) -> tuple[NDArray[np.int64], int]:
    """Offsets of a rounding to the nearest integer in place of the next lower one, and their shift."""
    return 2 * affine.offset - 2**affine.shift + 1, affine.shift + 1


def _float32(values: NDArray[np.int64], shift: int) -> NDArray[np.float32]:
    return np.ldexp(values.astype(np.float64), -shift).astype(np.float32)


def _right_in_float32(node: Activation, affine: FixedAffine, interval: Interval) -> bool:
    """Whether the multiplication and addition in float32, fused or not, give the node's index for every integer."""
    scale, offset = _float32(affine.multiplier, affine.shift), _float32(*_centred(affine))
    last = node.states.count - 1
    for channel in range(len(scale)):
        x = np.arange(interval.low[channel], interval.high[channel] + 1)
        wanted = node.index(x[None], slice(channel, channel + 1))[0]
        apart = x.astype(np.float32) * scale[channel] + offset[channel]
        fused = (x * scale[channel].astype(np.float64) + offset[channel].astype(np.float64)).astype(np.float32)
        for value in (apart, fused):
            if not np.array_equal(np.rint(np.clip(value, 0, last)), wanted):
                return False
    return True


ONNX: Table = {Thresholds: thresholds, FixedPoint: fixed_point}
QONNX: Table = {Activation: qonnx_activation}
