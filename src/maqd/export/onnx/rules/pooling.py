"""Maxima and sums over windows."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from maqd.export.onnx.emitter import IntegerEmitter
from maqd.export.onnx.float_emitter import QonnxEmitter
from maqd.graph import GlobalSum, MaxPool, Node, SumPool, Window
from maqd.graph.rules import Table

LOWEST = int(np.iinfo(np.int32).min)


def geometry(node: Window) -> dict[str, Any]:
    """The operator's attributes; dilations where there are any, since ONNX Runtime's averages of bytes take none."""
    g = node.geometry
    pads = [*g.padding, *g.trailing]
    attributes = {"kernel_shape": g.kernel, "strides": g.stride, "pads": pads}
    return attributes if set(g.dilation) == {1} else {**attributes, "dilations": g.dilation}


def max_pool(e: IntegerEmitter, node: MaxPool) -> None:
    """The operator on bytes; it does not take int32, so there maxima of shifted views."""
    (source,) = node.inputs
    if source in e.bytes and len(node.kernel) <= 2:
        e.same(node, lambda x, y: _max_of_bytes(e, node, x, y))
        return
    views = _views(e, node, LOWEST)
    e.words[node.name] = e.emit("Max", views, f"{node.name}/codes") if len(views) > 1 else views[0]


def _max_of_bytes(e: IntegerEmitter, node: MaxPool, source: str, output: str) -> str:
    """The operator, behind one of its own that pads where onnx's reference (1.22) takes pads in another order."""
    g, attributes = node.geometry, geometry(node)
    plain = max(*g.stride, *g.dilation) == 1
    if plain and max(attributes["pads"]) and (len(g.kernel) == 1 or len(set(attributes["pads"])) > 1):
        # Bytes of 0, the lowest, win in no window: each has a position of the input.
        source = e.padded(source, f"{node.name}/padded", g, 0, np.uint8)
        attributes["pads"] = [0] * len(attributes["pads"])
    return e.emit("MaxPool", [source], output, **attributes)


def sum_pool(e: IntegerEmitter, node: SumPool) -> None:
    """Sums of shifted views, or over all positions."""
    space = e.types[node.inputs[0]].shape[1:]
    if (
        node.kernel == space
        and node.geometry.shape(node, e.types[node.inputs[0]]) == (1,) * len(space)
        and not any(node.geometry.padding)
    ):
        _sums(e, node, range(2, len(space) + 2), keep=True)
        return
    first, *others = _views(e, node, 0)
    for place, other in enumerate(others):
        first = e.emit("Add", [first, other], f"{node.name}/sum{place}")
    e.words[node.name] = first


def global_sum(e: IntegerEmitter, node: GlobalSum) -> None:
    """A sum over all positions."""
    _sums(e, node, range(2, len(e.types[node.inputs[0]].shape) + 1), keep=False)


def _sums(e: IntegerEmitter, node: Node, axes: Sequence[int], *, keep: bool) -> None:
    dimensions = e.constant(list(axes), np.int64, f"{node.name}/axes")
    e.words[node.name] = e.emit(
        "ReduceSum", [e.int32(node.inputs[0]), dimensions], f"{node.name}/codes", keepdims=int(keep)
    )


def _views(e: IntegerEmitter, node: MaxPool | SumPool, fill: int) -> list[str]:
    """For each position of the window, what all windows have there, int32."""
    name, rank, g = node.name, len(node.kernel), node.geometry
    source = e.int32(node.inputs[0])
    if any(g.padding) or any(g.trailing):
        source = e.padded(source, f"{name}/padded", g, fill, np.int32)
    space = e.types[name].shape[1:]
    axes = e.constant(list(range(2, rank + 2)), np.int64, f"{name}/axes")
    steps = e.constant(list(node.stride), np.int64, f"{name}/steps")
    found = []
    for place, position in enumerate(np.ndindex(*g.kernel)):
        offset = [at * d for at, d in zip(position, g.dilation, strict=True)]
        ends = [o + (n - 1) * s + 1 for o, n, s in zip(offset, space, node.stride, strict=True)]
        bounds = [
            e.constant(list(offset), np.int64, f"{name}/starts{place}"),
            e.constant(ends, np.int64, f"{name}/ends{place}"),
        ]
        found.append(e.emit("Slice", [source, *bounds, axes, steps], f"{name}/view{place}"))
    return found


def qonnx_max_pool(e: QonnxEmitter, node: MaxPool) -> None:
    """The operator."""
    e.emit("MaxPool", node.inputs, node.name, **geometry(node))


def qonnx_sum_pool(e: QonnxEmitter, node: SumPool) -> None:
    """A convolution of each channel with ones."""
    channels, name = e.types[node.inputs[0]].shape[0], node.name
    ones = e.constant(np.ones((channels, 1, *node.kernel)), np.int8, f"{name}.ones")
    weight = e.emit("Cast", [ones], f"{name}.ones/float", to=e.onnx.TensorProto.FLOAT)
    # qonnx asks every convolution for its dilations.
    e.emit(
        "Conv",
        [*node.inputs, weight],
        name,
        group=channels,
        **{**geometry(node), "dilations": node.geometry.dilation},
    )


def qonnx_global_sum(e: QonnxEmitter, node: GlobalSum) -> None:
    """A sum over all positions."""
    axes = e.constant(range(2, len(e.types[node.inputs[0]].shape) + 1), np.int64, f"{node.name}/axes")
    e.emit("ReduceSum", [*node.inputs, axes], node.name, keepdims=0)


ONNX: Table = {MaxPool: max_pool, SumPool: sum_pool, GlobalSum: global_sum}
QONNX: Table = {MaxPool: qonnx_max_pool, SumPool: qonnx_sum_pool, GlobalSum: qonnx_global_sum}
