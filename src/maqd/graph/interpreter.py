"""The graph in NumPy: clear rather than fast, the oracle that every engine is compared with.

All tensors are int64, samples first.
"""

from collections.abc import Iterator
from math import prod

import numpy as np
from numpy.typing import NDArray

from maqd.graph import (
    Activation,
    Add,
    Aligned,
    Concat,
    Conv,
    Flatten,
    GlobalSum,
    Graph,
    Input,
    Linear,
    MaxPool,
    Node,
    Output,
    SumPool,
)
from maqd.numerics.packing import PackedCodes

Codes = NDArray[np.int64]


def layers(graph: Graph, *codes: Codes) -> Iterator[tuple[str, Codes]]:
    """Every tensor of the graph as it is computed.

    Args:
        graph: A valid graph.
        codes: One array an input, int64, N x its shape, as `maqd.runtime.inputs.prepare` makes them.

    Yields:
        Name and codes, int64, N x the tensor's shape.
    """
    last_use = {name: node.name for node in graph.nodes for name in node.inputs}
    values: dict[str, Codes] = {}
    given = iter(codes)
    for node in graph.nodes:
        value = next(given) if isinstance(node, Input) else compute(node, [values[name] for name in node.inputs])
        yield node.name, value
        values[node.name] = value
        for name in node.inputs:
            if last_use[name] == node.name:
                values.pop(name, None)


def run(graph: Graph, *codes: Codes) -> tuple[Codes, ...]:
    """The codes of each output, int64, N x its shape; arguments as in `layers`."""
    wanted = {node.name for node in graph.outputs}
    found = {name: value for name, value in layers(graph, *codes) if name in wanted}
    return tuple(found[node.name] for node in graph.outputs)


def compute(node: Node, inputs: list[Codes]) -> Codes:
    """The output of a node other than an input, for N samples."""
    x = inputs[0]
    match node:
        case Conv():
            return _bias(_convolve(x, node), node.bias, x.ndim - 2)
        case Linear():
            return _bias(_exact(x @ _weight(node.weight).T), node.bias, 0)
        case Activation():
            channels_first = np.moveaxis(x, node.axis + 1, 0)
            return np.moveaxis(node.codes(channels_first), 0, node.axis + 1).astype(np.int64)
        case MaxPool():
            return _windows(x, node, np.iinfo(np.int64).min).max(tuple(range(-len(node.kernel), 0)))
        case SumPool():
            return _windows(x, node, 0).sum(tuple(range(-len(node.kernel), 0)))
        case GlobalSum():
            return x.sum(tuple(range(2, x.ndim)))
        case Add():
            return sum(_aligned(node, inputs), np.zeros((), np.int64))
        case Concat():
            return np.concatenate(_aligned(node, inputs), node.axis + 1)
        case Flatten():
            return x.reshape(len(x), prod(x.shape[1:]))
        case Output():
            return x
    raise NotImplementedError(f"the interpreter does not know {node.operation} nodes")


def _aligned(node: Aligned, inputs: list[Codes]) -> list[Codes]:
    return [x << shift for x, shift in zip(inputs, node.shifts, strict=True)]


def _weight(weight: PackedCodes) -> NDArray[np.float64]:
    # Matrices of float64 multiply many times faster than int64 ones. Their products and sums here are integers below
    # 2**32, and float64 holds those up to 2**53: the results are exact in any order.
    return weight.unpack().astype(np.float64)


def _exact(sums: NDArray[np.float64]) -> Codes:
    return sums.astype(np.int64)


def _bias(sums: Codes, bias: NDArray[np.integer] | None, space: int) -> Codes:
    return sums if bias is None else sums + bias.astype(np.int64).reshape(-1, *[1] * space)


def _padded(x: Codes, padding: tuple[int, ...], value: int) -> Codes:
    return np.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)], constant_values=value)


def _windows(x: Codes, node: MaxPool | SumPool, fill: int) -> Codes:
    """N x C x windows x positions of each."""
    space = tuple(range(2, x.ndim))
    views = np.lib.stride_tricks.sliding_window_view(_padded(x, node.padding, fill), node.kernel, axis=space)
    return views[:, :, *(slice(None, None, stride) for stride in node.stride)]


def _convolve(x: Codes, node: Conv) -> Codes:
    """One matrix product for each position of the kernel."""
    outputs, fan_in, *kernel = node.weight.shape
    weight = _weight(node.weight).reshape(node.groups, outputs // node.groups, fan_in, *kernel)
    padded = _padded(x, node.padding, 0).astype(np.float64)
    geometry = list(zip(padded.shape[2:], kernel, node.stride, node.dilation, strict=True))
    space = [(size - d * (k - 1) - 1) // s + 1 for size, k, s, d in geometry]
    sums = np.zeros((len(x), node.groups, outputs // node.groups, prod(space)))
    for place in np.ndindex(*kernel):
        reach = [
            slice(at * d, at * d + (n - 1) * s + 1, s)
            for at, n, (_, _, s, d) in zip(place, space, geometry, strict=True)
        ]
        seen = padded[:, :, *reach].reshape(len(x), node.groups, fan_in, prod(space))
        sums += weight[:, :, :, *place] @ seen
    return _exact(sums).reshape(len(x), outputs, *space)
