"""Maxima and sums over windows."""

from collections.abc import Sequence
from math import prod

import numpy as np

from maqd.graph import GlobalSum, MaxPool, Window
from maqd.graph.rules import Table
from maqd.plan.builder import Builder, View
from maqd.plan.moves import moved, positions
from maqd.plan.steps import PoolStep, SumStep


def pool(b: Builder, node: Window) -> None:
    """Windows over rows and columns; the kernels take no dilation and no third dimension."""
    g = node.geometry
    maximum = isinstance(node, MaxPool)
    if len(g.kernel) == 3 or set(g.dilation) != {1}:
        _apart(b, node, maximum=maximum)
        return
    links, _ = b.single(node.name, b.buffers[node.inputs[0]])
    b.steps.append(
        PoolStep(
            links=links,
            maximum=maximum,
            kernel=pair(g.kernel, 1),
            stride=pair(g.stride, 1),
            padding=pair(g.padding, 0),
        )
    )


def _apart(b: Builder, node: Window, *, maximum: bool) -> None:
    """Windows side by side in memory, each position as often as windows have it, and pooling without overlap."""
    g, kind = node.geometry, b.types[node.inputs[0]]
    space = b.types[node.name].shape[1:]
    rank = len(space)
    view = b.view(node.inputs[0])
    places = positions(g, kind.shape[1:], space)  # windows x kernel of each dimension
    index = view.index
    for axis in range(rank):
        flat = places[axis].reshape(-1)
        index = np.where(
            (flat < 0).reshape(-1, *[1] * (rank - 1 - axis)), -1, index.take(np.maximum(flat, 0), axis + 1)
        )
    # From C x (windows x kernel) of each dimension to C x windows, kernel (but of the last one), windows, kernel.
    index = index.reshape(kind.shape[0], *(n for pair in zip(space, g.kernel, strict=True) for n in pair))
    order = [0, *range(1, 2 * rank - 2, 2), *range(2, 2 * rank - 1, 2), 2 * rank - 1, 2 * rank]
    rows, height = prod(space[:-1]), prod(g.kernel[:-1])
    index = index.transpose(order).reshape(kind.shape[0], rows * height, space[-1] * g.kernel[-1])
    fill = kind.interval.lowest if maximum else 0
    target = b.like(view.base, kind, (rows * height, space[-1] * g.kernel[-1], kind.shape[0]))
    side = moved(b, View(base=view.base, index=index, fill=fill), target)
    links, _ = b.single(node.name, side)
    window = (height, g.kernel[-1])
    b.steps.append(PoolStep(links=links, maximum=maximum, kernel=window, stride=window, padding=(0, 0)))


def global_sum(b: Builder, node: GlobalSum) -> None:
    """Sums over all rows and columns."""
    links, _ = b.single(node.name, b.buffers[node.inputs[0]])
    b.steps.append(SumStep(links=links))


def pair(values: Sequence[int], missing: int) -> tuple[int, int]:
    """Rows and columns of one or two dimensions."""
    return (values[0], values[1]) if len(values) == 2 else (missing, values[0])


PLAN: Table = {Window: pool, GlobalSum: global_sum}
