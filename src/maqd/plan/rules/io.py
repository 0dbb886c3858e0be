"""Inputs and outputs."""

from maqd.graph import Input, Output, Storage
from maqd.graph.rules import Table
from maqd.plan.builder import Builder, extent


def enter(b: Builder, node: Input) -> None:
    """A buffer that the engine fills; bytes stay as they come."""
    kind = b.types[node.name]
    zero = node.zero if node.storage is Storage.U8 else None
    b.buffers[node.name] = b.stored(kind, extent(kind.shape), zero=zero)


def leave(b: Builder, node: Output) -> None:
    """The buffer that is read."""
    b.buffers[node.name] = b.buffers[node.inputs[0]]


PLAN: Table = {Input: enter, Output: leave}
