"""The same codes in another shape, order or place."""

import numpy as np

from maqd.graph import Flatten, Gather, Linear, Node, Permute, Reshape
from maqd.graph.rules import Table
from maqd.plan.builder import Builder, View, alias, extent
from maqd.plan.moves import moved
from maqd.plan.steps import TransposeStep


def flatten(b: Builder, node: Flatten) -> None:
    """Order of the elements changes only if there are several channels at several positions."""
    source, kind = node.inputs[0], b.types[node.name]
    if source in b.views:
        view = b.view(source)
        _settle(b, node, View(base=view.base, index=view.index.reshape(-1), fill=view.fill))
        return
    x = b.buffers[source]
    if x.channels == 1 or x.rows * x.columns == 1:
        b.buffers[node.name] = alias(x, kind)
        return
    reader = b.only_reader(node.name)
    if b.fuse and isinstance(reader, Linear) and len(b.types[source].shape) <= 3:
        return  # the linear map reads the input of the flatten
    links, _ = b.single(node.name, x)
    b.steps.append(TransposeStep(links=links, height=x.rows * x.columns, width=x.channels))


def reshape(b: Builder, node: Reshape) -> None:
    """The same order of the graph's indices."""
    view = b.view(node.inputs[0])
    _settle(b, node, View(base=view.base, index=view.index.reshape(node.shape), fill=view.fill))


def permute(b: Builder, node: Permute) -> None:
    """Dimensions in another order."""
    view = b.view(node.inputs[0])
    _settle(b, node, View(base=view.base, index=view.index.transpose(node.order), fill=view.fill))


def gather(b: Builder, node: Gather) -> None:
    """Elements by their indices."""
    view = b.view(node.inputs[0])
    fill = view.fill
    if node.filled:
        if node.fill != fill and (view.index < 0).any():  # of two constants the first one has to be in memory
            _store(b, node.inputs[0], view)
            view = b.view(node.inputs[0])
        fill = node.fill
    column = (-1, *[1] * (view.index.ndim - node.axis - 1))
    taken = view.index.take(np.maximum(node.indices, 0), node.axis)
    index = np.where(node.indices.reshape(column) < 0, -1, taken)
    _settle(b, node, View(base=view.base, index=index, fill=fill))


def _settle(b: Builder, node: Node, view: View) -> None:
    """A step that moves the elements, unless only other moves read the node: then they are moved once, by the last."""
    readers = b.graph.readers[node.name]
    if b.fuse and readers and all(isinstance(reader, Flatten | Reshape | Permute | Gather) for reader in readers):
        b.views[node.name] = view
    else:
        _store(b, node.name, view)


def _store(b: Builder, name: str, view: View) -> None:
    """The elements in memory; no step where they lie in order already."""
    b.views.pop(name, None)
    kind = b.types[name]
    order = np.moveaxis(view.index, 0, -1).reshape(-1)
    if np.array_equal(order, np.arange(view.base.size)):
        b.buffers[name] = alias(view.base, kind)
    else:
        b.buffers[name] = moved(b, view, b.like(view.base, kind, extent(kind.shape)), name)


PLAN: Table = {Flatten: flatten, Reshape: reshape, Permute: permute, Gather: gather}
