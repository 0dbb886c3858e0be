"""Convolutions and linear maps."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from maqd.errors import ExportError
from maqd.export.onnx.emitter import IntegerEmitter, Profile
from maqd.export.onnx.float_emitter import QonnxEmitter
from maqd.graph import Conv, Linear, Weighted
from maqd.graph.rules import Table
from maqd.numerics.bounds import byte_zero


def conv(e: IntegerEmitter, node: Conv) -> None:
    """Sums of products over windows."""
    _weighted(e, node, "ConvInteger", **geometry(node))


def linear(e: IntegerEmitter, node: Linear) -> None:
    """Sums of products along the last dimension."""
    _weighted(e, node, "MatMulInteger")


def qonnx_conv(e: QonnxEmitter, node: Conv) -> None:
    """Sums of products over windows."""
    _qonnx_biased(e, node, "Conv", **geometry(node))


def qonnx_linear(e: QonnxEmitter, node: Linear) -> None:
    """Sums of products along the last dimension."""
    _qonnx_biased(e, node, "MatMul")


def geometry(node: Conv) -> dict[str, Any]:
    """The operator's attributes."""
    g = node.geometry
    pads = [*g.padding, *g.trailing]
    return {
        "kernel_shape": g.kernel, "strides": g.stride, "pads": pads, "dilations": g.dilation, "group": node.groups
    }  # fmt: skip


def _weight(e: IntegerEmitter, node: Weighted) -> tuple[str, str]:
    """The weight and its zero point, uint8: int8 weights are not exact in every runtime.

    (On x86 without VNNI, ONNX Runtime adds products of uint8 and int8 in pairs with 16-bit saturation.)
    """
    states, name = node.weight.states, f"{node.name}.weight"
    if byte_zero(states.low, states.high) is None:
        raise ExportError(
            f"{node.operation} node {node.name!r}: codes {states.low} .. {states.high} of {states.count} weight "
            "states do not fit 8 bits, which ONNX's integer operators take; use at most 128 or 255 states"
        )
    index = (node.weight.unpack().astype(np.int16) - states.low) // states.spacing
    if isinstance(node, Linear):
        index = index.T
    zero = e.constant(-states.low, np.uint8, f"{name}/zero")
    bits = 2 if states.count <= 4 else 4 if states.count <= 16 else 8
    if e.profile is Profile.COMPATIBLE or bits == 8:
        return e.constant(index * states.spacing, np.uint8, name), zero
    kinds = e.onnx.TensorProto
    e.constants[name] = e.onnx.helper.make_tensor(
        name, kinds.UINT2 if bits == 2 else kinds.UINT4, index.shape, _pack_bits(index, bits), raw=True
    )
    wide = e.to_uint8(name, f"{name}/uint8")
    if states.spacing > 1:
        spacing = e.constant(states.spacing, np.uint8, f"{name}/spacing")
        wide = e.emit("Mul", [wide, spacing], f"{name}/codes")
    return wide, zero


def _weighted(e: IntegerEmitter, node: Weighted, operator: str, **attributes: Any) -> None:
    """Sums of products, a byte of the input at a time, and the bias."""
    weight, zero = _weight(e, node)
    total = ""
    for part in e.as_bytes(node.inputs[0]):
        place = f"{node.name}/times{part.factor}"
        point = e.constant(part.zero, np.uint8, f"{place}/zero")
        source, options = part.name, attributes
        if isinstance(node, Conv) and _misses(node, e.types[node.inputs[0]].shape, e.types[node.name].shape):
            source = e.padded(source, f"{place}/padded", node.geometry, part.zero, np.uint8)
            options = {**attributes, "pads": [0] * len(attributes["pads"])}
        product = e.emit(operator, [source, weight, point, zero], f"{place}/products", **options)
        if part.factor > 1:
            factor = e.constant(part.factor, np.int32, f"{place}/factor")
            product = e.emit("Mul", [product, factor], place)
        total = e.emit("Add", [total, product], f"{place}/sum") if total else product
    if node.bias is not None:
        space = len(node.weight.shape) - 2 if isinstance(node, Conv) else 0
        bias = e.constant(node.bias.reshape(-1, *[1] * space), np.int32, f"{node.name}.bias")
        total = e.emit("Add", [total, bias], f"{node.name}/biased")
    e.words[node.name] = total


def _misses(node: Conv, given: tuple[int, ...], made: tuple[int, ...]) -> bool:
    """Whether a window lies in the padding altogether, which onnx's reference (1.22) refuses.

    Args:
        node: The convolution.
        given, made: Shapes of its input and of its result, C x space.
    """
    g = node.geometry
    return any(
        front > (k - 1) * d or (count - 1) * s - front >= size
        for front, k, d, s, size, count in zip(
            g.padding, g.kernel, g.dilation, g.stride, given[1:], made[1:], strict=True
        )
    )


def _pack_bits(index: NDArray[np.integer], bits: int) -> bytes:
    """Indices in 2 or 4 bits each, the first in the lowest bits of a byte, as ONNX stores them."""
    each = 8 // bits
    flat = index.reshape(-1).astype(np.uint8)
    rows = np.pad(flat, (0, -len(flat) % each)).reshape(-1, each)
    shifts = np.arange(each, dtype=np.uint8) * bits
    return np.bitwise_or.reduce(rows << shifts, axis=1).astype(np.uint8).tobytes()


def _qonnx_weight(e: QonnxEmitter, node: Weighted) -> str:
    """The weight: narrow integers in the file, cast, and declared with a Quant node."""
    states, name = node.weight.states, f"{node.name}.weight"
    codes = node.weight.unpack()
    if isinstance(node, Linear):
        codes = codes.T
    stored = e.constant(codes, np.int8 if states.high <= 127 else np.int16, name)
    wide = e.emit("Cast", [stored], f"{name}/float", to=e.onnx.TensorProto.FLOAT)
    return e.quant(wide, f"{name}/quant", states.high.bit_length() + 1, signed=True, narrow=True)


def _qonnx_biased(e: QonnxEmitter, node: Weighted, operator: str, **attributes: Any) -> None:
    """Sums of products and the bias."""
    weight = _qonnx_weight(e, node)
    if node.bias is None:
        e.emit(operator, [*node.inputs, weight], node.name, **attributes)
        return
    products = e.emit(operator, [*node.inputs, weight], f"{node.name}/products", **attributes)
    space = len(node.weight.shape) - 2 if isinstance(node, Conv) else 0
    bias = e.float_constant(node.bias.reshape(-1, *[1] * space), f"{node.name}.bias")
    e.emit("Add", [products, bias], node.name)


ONNX: Table = {Conv: conv, Linear: linear}
QONNX: Table = {Conv: qonnx_conv, Linear: qonnx_linear}
