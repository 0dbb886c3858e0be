"""Convolutions and linear maps, with what follows them."""

import numpy as np
from numpy.typing import NDArray

from maqd.graph import Activation, Add, Conv, Linear, Node, TensorType, Weighted
from maqd.graph.rules import Table
from maqd.numerics.bounds import byte_zero
from maqd.numerics.packing import PackedCodes
from maqd.plan.builder import Builder, View
from maqd.plan.moves import moved, positions
from maqd.plan.rules.activation import quantization
from maqd.plan.rules.pooling import pair
from maqd.plan.steps import Buffer, ConvStep, Links, TransposeStep


def conv(b: Builder, node: Conv) -> None:
    """A convolution over rows and columns."""
    if len(node.geometry.kernel) == 3:
        _in_depth(b, node)
        return
    shape = node.weight.shape if len(node.weight.shape) == 4 else (*node.weight.shape[:2], 1, node.weight.shape[2])
    weight = node.weight.reshaped(*shape)
    _convolution(b, node, b.buffers[node.inputs[0]], weight, ones=False)


def linear(b: Builder, node: Linear) -> None:
    source = node.inputs[0]
    if source not in b.buffers:  # a flatten
        before = b.nodes[source].inputs[0]
        x = b.buffers[before]
        weight = node.weight.reshaped(node.weight.shape[0], x.channels, x.rows, x.columns)
        _convolution(b, node, x, weight, ones=True)
        return
    kind, x = b.types[source], b.buffers[source]
    outputs, inputs = node.weight.shape
    weight = node.weight.reshaped(outputs, inputs, 1, 1)
    if len(kind.shape) == 1:
        _convolution(b, node, x, weight, ones=True)
        return
    # The last dimension of the graph must become the innermost one, and the first one again afterwards.
    turned = b.stored(kind, (1, kind.size // inputs, inputs))
    _turn(b, x, turned, kind.size // kind.shape[0])
    out = b.types[node.name]
    product = b.stored(out, (1, out.size // outputs, outputs))
    b.steps.append(
        ConvStep(
            links=Links(nodes=(node.name,), inputs=(turned,), outputs=(product,)),
            weight=weight,
            bias=_bias(node),
            stride=(1, 1),
            padding=(0, 0),
            dilation=(1, 1),
            groups=1,
            reach=_reach(out),
            raw=product,
        )
    )
    _turn(b, product, b.buffer(node.name), kind.shape[0])


def _in_depth(b: Builder, node: Conv) -> None:
    """A convolution in three dimensions: the planes that a kernel sees become channels, the depth becomes rows.

    Each depth of the output has its own block of rows, as many as a multiple of the stride, so that none of its
    windows sees the next one; windows between blocks are left out afterwards.
    """
    g, kind, out = node.geometry, b.types[node.inputs[0]], b.types[node.name]
    channels, (depth, height, width) = kind.shape[0], out.shape[1:]
    view = b.view(node.inputs[0])
    planes = positions(g, kind.shape[1:], out.shape[1:])[0]
    tight = (height - 1) * g.stride[1] + g.dilation[1] * (g.kernel[1] - 1) + 1
    block = -(-tight // g.stride[1]) * g.stride[1]
    inside = np.arange(block) - g.padding[1]
    inside[(inside < 0) | (inside >= kind.shape[2])] = -1
    index = view.index.take(np.maximum(planes, 0).reshape(-1), 1).take(np.maximum(inside, 0), 2)
    hidden = (planes.reshape(-1) < 0)[:, None, None] | (inside < 0)[:, None]
    index = np.where(hidden, -1, index).reshape(channels, depth, g.kernel[0], block, kind.shape[3])
    index = index.transpose(0, 2, 1, 3, 4).reshape(channels * g.kernel[0], depth * block, kind.shape[3])
    index = index[:, : (depth - 1) * block + tight]
    target = b.like(view.base, kind, (index.shape[1], index.shape[2], index.shape[0]))
    stacked = moved(b, View(base=view.base, index=index), target)
    outputs, inputs = node.weight.shape[:2]
    weight = node.weight.reshaped(outputs, inputs * g.kernel[0], *g.kernel[1:])
    found = (stacked.rows - g.dilation[1] * (g.kernel[1] - 1) - 1) // g.stride[1] + 1
    product = b.stored(out, (found, width, out.shape[0])) if depth > 1 else b.buffer(node.name)
    b.steps.append(
        ConvStep(
            links=Links(nodes=(node.name,), inputs=(stacked,), outputs=(product,)),
            weight=weight,
            bias=_bias(node),
            stride=(g.stride[1], g.stride[2]),
            padding=(0, g.padding[2]),
            dilation=(g.dilation[1], g.dilation[2]),
            groups=node.groups,
            reach=_reach(out),
            raw=product,
        )
    )
    if depth > 1:
        each = block // g.stride[1]
        kept = (np.arange(depth)[:, None] * each + np.arange(height)).reshape(-1)
        places = np.arange(product.size).reshape(found, width, out.shape[0])[kept]
        moved(b, View(base=product, index=np.moveaxis(places, -1, 0)), b.buffer(node.name))


def _turn(b: Builder, x: Buffer, output: Buffer, height: int) -> None:
    """Transpose a matrix of `height` rows into a buffer."""
    links = Links(nodes=(), inputs=(x,), outputs=(output,))
    b.steps.append(TransposeStep(links=links, height=height, width=x.size // height))


def _convolution(b: Builder, node: Conv | Linear, x: Buffer, weight: PackedCodes, *, ones: bool) -> None:
    """A convolution with what follows it."""
    result: Node = node
    inputs, shift, addend_shift = [x], 0, 0
    following = b.only_reader(node.name) if b.fuse else None
    if isinstance(following, Add) and len(following.inputs) == 2 and _completes(b, following, node.name):
        mine = following.inputs.index(node.name)
        inputs.append(b.buffers[following.inputs[1 - mine]])
        shift, addend_shift = following.shifts[mine], following.shifts[1 - mine]
        result = following
    readers = b.graph.readers[result.name]
    act = next((r for r in readers if isinstance(r, Activation) and r.axis == 0 and _byte(r)), None)
    if not b.fuse:
        act = None
    raw = b.buffer(result.name) if act is None or len(readers) > 1 else None
    codes = None if act is None else b.buffer(act.name)
    names = tuple(dict.fromkeys(n.name for n in (node, result, act) if n is not None))
    b.taken.update(names)
    conv = node if isinstance(node, Conv) and not ones else None
    b.steps.append(
        ConvStep(
            links=Links(
                nodes=names, inputs=tuple(inputs), outputs=tuple(one for one in (raw, codes) if one is not None)
            ),
            weight=weight,
            bias=_bias(node),
            stride=(1, 1) if conv is None else pair(conv.stride, 1),
            padding=(0, 0) if conv is None else pair(conv.padding, 0),
            dilation=(1, 1) if conv is None else pair(conv.dilation, 1),
            groups=1 if conv is None else conv.groups,
            reach=_reach(b.types[result.name]),
            shift=shift,
            addend_shift=addend_shift,
            raw=raw,
            codes=codes,
            quantization=None if act is None or codes is None else quantization(b, act, codes),
        )
    )


def _completes(b: Builder, add: Add, name: str) -> bool:
    """Whether the other term of the sum is there before."""
    first, second = add.inputs
    other = second if first == name else first
    return other != name and other in b.buffers


def _byte(node: Activation) -> bool:
    """Whether codes are stored as bytes."""
    return byte_zero(node.states.low, node.states.high) is not None


def _reach(kind: TensorType) -> int:
    return kind.interval.magnitude


def _bias(node: Weighted) -> NDArray[np.int32] | None:
    return None if node.bias is None else np.ascontiguousarray(node.bias, np.int32)


PLAN: Table = {Conv: conv, Linear: linear}
