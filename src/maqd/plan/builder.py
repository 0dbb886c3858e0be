"""What the planner's rules build: steps, buffers, and where the tensors of the graph lie."""

from dataclasses import dataclass, replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from maqd.graph import Graph, Node, TensorType
from maqd.numerics.bounds import byte_zero
from maqd.plan.steps import Axis, Buffer, Element, Links, Step


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """A tensor whose elements lie elsewhere in memory: no step has moved them yet.

    Args:
        base: Where they lie.
        index: int64, in the tensor's shape: which stored element of `base` each is; -1 for `fill`.
        fill: A code.
    """

    base: Buffer
    index: NDArray[np.int64]
    fill: int = 0


class Builder:
    """Grows a plan step by step.

    Args:
        graph: A valid graph.
        fuse: Whether convolutions take additions and activations with them, and moves each other.
    """

    def __init__(self, graph: Graph, *, fuse: bool) -> None:
        self.graph = graph
        self.fuse = fuse
        self.types = graph.types
        self.nodes = {node.name: node for node in graph.nodes}
        self.sizes: list[int] = []
        """Bytes of each storage."""
        self.steps: list[Step] = []
        self.buffers: dict[str, Buffer] = {}
        self.views: dict[str, View] = {}
        self.taken: set[str] = set()
        """Nodes that another one takes with it."""

    def buffer(self, name: str) -> Buffer:
        """A new buffer for a tensor of the graph, remembered under its name."""
        made = self.stored(self.types[name], extent(self.types[name].shape))
        self.buffers[name] = made
        return made

    def stored(self, kind: TensorType, extent: tuple[int, int, int], *, zero: int | None = None) -> Buffer:
        """A new buffer for a tensor's values in another shape; bytes with this zero, if one is given."""
        low, high = kind.interval.lowest, kind.interval.highest
        if zero is not None or (zero := byte_zero(low, high)) is not None:
            element = Element.U8
        else:
            element, zero = (Element.I16 if low >= -(2**15) and high < 2**15 else Element.I32), 0
        rows, columns, channels = extent
        self.sizes.append(rows * columns * channels * element.size)
        return Buffer(
            storage=len(self.sizes) - 1,
            rows=rows,
            columns=columns,
            channels=channels,
            element=element,
            zero=zero,
            lowest=low + zero,
            highest=high + zero,
        )

    def like(self, x: Buffer, kind: TensorType, extent: tuple[int, int, int]) -> Buffer:
        """A new buffer for codes that mostly come from another one: of its type, if that holds all of them."""
        low, high = kind.interval.lowest, kind.interval.highest
        limits = np.iinfo(x.element.dtype)
        if not limits.min <= low + x.zero <= high + x.zero <= limits.max:
            return self.stored(kind, extent)
        rows, columns, channels = extent
        self.sizes.append(rows * columns * channels * x.element.size)
        return Buffer(
            storage=len(self.sizes) - 1,
            rows=rows,
            columns=columns,
            channels=channels,
            element=x.element,
            zero=x.zero,
            lowest=low + x.zero,
            highest=high + x.zero,
        )

    def only_reader(self, name: str) -> Node | None:
        """The node that reads a tensor, if there is one alone."""
        found = self.graph.readers[name]
        return found[0] if len(found) == 1 else None

    def single(self, name: str, *inputs: Buffer) -> tuple[Links, Buffer]:
        """The links of a step that computes one node, and its output."""
        output = self.buffer(name)
        return Links(nodes=(name,), inputs=inputs, outputs=(output,)), output

    def view(self, name: str) -> View:
        """The elements of a tensor where they lie now."""
        if name in self.views:
            return self.views[name]
        x, shape = self.buffers[name], self.types[name].shape
        channels, *space = shape
        return View(base=x, index=np.moveaxis(np.arange(x.size).reshape(*space, channels), -1, 0))


def extent(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Rows, columns and channels of a shape with the channels first."""
    channels, *space = shape
    return (prod(space[:-1]), space[-1], channels) if space else (1, 1, channels)


def axis_of(shape: tuple[int, ...], axis: int) -> Axis:
    """A dimension of a shape with the channels first, in memory, where they are last."""
    stored = (*shape[1:], shape[0])
    place = len(shape) - 1 if axis == 0 else axis - 1
    return Axis(outer=prod(stored[:place]), channels=stored[place], inner=prod(stored[place + 1 :]))


def alias(x: Buffer, kind: TensorType) -> Buffer:
    """The same memory as a tensor of another shape with as many elements."""
    rows, columns, channels = extent(kind.shape)
    low, high = kind.interval.lowest + x.zero, kind.interval.highest + x.zero
    return replace(x, rows=rows, columns=columns, channels=channels, lowest=low, highest=high)
