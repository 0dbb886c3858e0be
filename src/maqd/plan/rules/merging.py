"""Several tensors in one: sums, products and concatenations."""

import numpy as np

from maqd.graph import Add, Concat, Multiply
from maqd.graph.rules import Table
from maqd.plan.builder import Builder, View, axis_of, extent
from maqd.plan.moves import moved
from maqd.plan.steps import AddStep, Buffer, ConcatStep, MultiplyStep


def add(b: Builder, node: Add) -> None:
    """A sum that no convolution takes with it."""
    links, _ = b.single(node.name, *(b.buffers[name] for name in node.inputs))
    b.steps.append(AddStep(links=links, shifts=node.shifts))


def concat(b: Builder, node: Concat) -> None:
    """Tensors side by side."""
    links, _ = b.single(node.name, *(b.buffers[name] for name in node.inputs))
    axes = tuple(axis_of(b.types[name].shape, node.axis) for name in node.inputs)
    b.steps.append(ConcatStep(links=links, shifts=node.shifts, axes=axes))


def multiply(b: Builder, node: Multiply) -> None:
    """A product: the first tensor whole, the second whole or one code a channel; others are repeated in memory."""
    shape = b.types[node.name].shape
    first, second = node.inputs
    if b.types[first].shape != shape:
        first, second = second, first
    gate = (shape[0], *[1] * (len(shape) - 1))
    x, y = (
        b.buffers[name] if b.types[name].shape in accepted else _repeated(b, name, shape)
        for name, accepted in ((first, {shape}), (second, {shape, gate}))
    )
    links, _ = b.single(node.name, x, y)
    b.steps.append(MultiplyStep(links=links))


def _repeated(b: Builder, name: str, shape: tuple[int, ...]) -> Buffer:
    """A tensor with its dimensions of size 1 repeated."""
    view, kind = b.view(name), b.types[name]
    index = np.broadcast_to(view.index, shape)
    return moved(b, View(base=view.base, index=index), b.like(view.base, kind, extent(shape)))


PLAN: Table = {Add: add, Concat: concat, Multiply: multiply}
