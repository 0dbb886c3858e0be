"""Steps that move elements: from an index of every element to the few tables that nested loops need."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from maqd.graph import Geometry
from maqd.plan.builder import Builder, View
from maqd.plan.steps import Buffer, Links, MoveStep

Index = NDArray[np.int64]

SMALL = 64
"""A table of this many entries is not worth another loop."""


def moved(b: Builder, view: View, target: Buffer, *nodes: str) -> Buffer:
    """Append the step that stores a view's elements.

    Args:
        b: The plan.
        view: The elements, channels first.
        target: Where they go; its rows x columns x channels are the view's elements.
        nodes: Names of the graph's nodes that this computes.
    """
    links = Links(nodes=nodes, inputs=(view.base,), outputs=(target,))
    index = np.moveaxis(view.index, 0, -1).reshape(target.rows, target.columns, target.channels)
    b.steps.append(MoveStep(links=links, tables=tables(index), fill=view.fill))
    return target


def positions(geometry: Geometry, space: tuple[int, ...], windows: tuple[int, ...]) -> list[Index]:
    """For each dimension, the input position of each window and place of the kernel, -1 in the padding."""
    found = []
    for axis, (size, count) in enumerate(zip(space, windows, strict=True)):
        begin = np.arange(count)[:, None] * geometry.stride[axis] - geometry.padding[axis]
        at = begin + np.arange(geometry.kernel[axis]) * geometry.dilation[axis]
        at[(at < 0) | (at >= size)] = -1
        found.append(at)
    return found


def tables(index: Index) -> tuple[NDArray[np.int32], ...]:
    """Tables whose sums are the index: index[i, j, ..] = tables[0][i'] + tables[1][j'] + ..., or -1 if any entry is -1.

    The product of their lengths is the number of elements; the last one belongs to the innermost loop.

    Args:
        index: Of any shape, each entry -1 or more; the last dimension is the innermost.
    """
    found: list[Index] = []
    rest: NDArray[Any] = index.reshape([size for size in index.shape if size > 1] or [1])
    while rest.ndim > 1:
        apart = _separate(rest.reshape(rest.shape[0], -1))
        if apart is None:  # no table for the first dimension alone: the first two have one in common, if any
            rest = rest.reshape(rest.shape[0] * rest.shape[1], *rest.shape[2:])
            continue
        found += _refined(apart[0])
        rest = apart[1].reshape(rest.shape[1:])
    found += _refined(rest)
    return tuple(table.astype(np.int32) for table in found)


def _refined(table: Index) -> list[Index]:
    """A long table as two short ones, where it is their sum."""
    size = len(table)
    if size <= SMALL:
        return [table]
    widths = sorted((width for width in range(2, size) if size % width == 0), key=lambda width: size // width + width)
    for width in widths:
        apart = _separate(table.reshape(-1, width))
        if apart is not None:
            return [*_refined(apart[0]), *_refined(apart[1])]
    return [table]


def _separate(index: Index) -> tuple[Index, Index] | None:
    """A table of rows and one of columns whose sums are the index; None if there are none."""
    hidden = index < 0
    rows, columns = np.logical_and.reduce(hidden, 1), np.logical_and.reduce(hidden, 0)
    if rows.all():
        return np.full(len(rows), -1), np.zeros(len(columns), np.int64)
    if (hidden != (rows[:, None] | columns)).any():
        return None
    column = int(np.flatnonzero(~columns)[0])
    first = np.where(rows, np.iinfo(np.int64).max, index[:, column])
    outer = np.where(rows, -1, first - first.min())
    inner = np.where(columns, -1, index[int(first.argmin())])
    same = (outer[:, None] + inner == index) | hidden
    return (outer, inner) if same.all() else None
