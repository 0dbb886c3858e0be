"""From a graph to the steps that an engine takes: fused nodes, stored tensors and their places in memory.

A *buffer* is a tensor as it lies in memory: rows x columns x channels, channels innermost, in the narrowest of uint8,
int16 and int32. A convolution takes with it the addition and the activation that follow, so that its accumulators are
never stored unless another node reads them. A flatten disappears: a linear map after it becomes a convolution whose
kernel is the whole map. Nodes that only move elements become one step, or none.
"""

from bisect import bisect_right
from dataclasses import replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from maqd.errors import EngineError
from maqd.graph import Graph
from maqd.graph.rules import Rules
from maqd.plan.arena import Arena, Lifetime, place
from maqd.plan.builder import Builder
from maqd.plan.rules import activation, io, merging, pooling, shape, weighted
from maqd.plan.steps import STAGE_BYTES, Plan, Stage, Step

PLAN = Rules(
    "the planner of the native engine and of C programs", EngineError,
    io.PLAN, weighted.PLAN, activation.PLAN, pooling.PLAN, merging.PLAN, shape.PLAN,
)  # fmt: skip
"""What each kind of node becomes."""


def make_plan(graph: Graph, *, fuse: bool = True, keep: bool = False) -> Plan:
    """Plan a valid graph.

    Args:
        graph: What to compute.
        fuse: Whether convolutions take additions and activations with them.
        keep: Whether every storage lasts to the end, so that all tensors can be read afterwards.

    Raises:
        EngineError: An activation's input can reach the very largest int32.
    """
    b = Builder(graph, fuse=fuse)
    for node in graph.nodes:
        if node.name not in b.taken:
            PLAN.find(node, f"{node.operation} node {node.name!r}")(b, node)
    ends = [len(b.steps)] if keep else _stage_ends(b)
    stage_of = _stage_of(b, ends)
    lifetimes = _lifetimes(b, keep=keep)
    return Plan(
        inputs=tuple(b.buffers[node.name] for node in graph.inputs),
        outputs=tuple(b.buffers[node.name] for node in graph.outputs),
        steps=tuple(b.steps),
        stages=tuple(
            Stage(
                end=end,
                moves=max(map(_moves, b.steps[begin:end]), default=0),
                arena=_place(lifetimes, [one == at for one in stage_of]),
            )
            for at, (begin, end) in enumerate(zip([0, *ends], ends, strict=False))
        ),
        stage_of=tuple(stage_of),
        tensors={name: (buffer, b.types[name].shape) for name, buffer in b.buffers.items()},
    )


def channels_first(array: NDArray[np.int32], shape: tuple[int, ...]) -> NDArray[np.int32]:
    """N x elements as they are stored, channels last, in the shape of the graph."""
    if len(shape) == 1:
        return array
    if prod(shape[1:]) == 1 or shape[0] == 1:
        return array.reshape(len(array), *shape)
    return np.ascontiguousarray(np.moveaxis(array.reshape(len(array), *shape[1:], shape[0]), -1, 1))


def _stage_ends(b: Builder) -> list[int]:
    """Where stages end; none is empty unless there are no steps."""
    moves = [_moves(step) for step in b.steps]
    ends = {max((at + 1 for at, size in enumerate(moves) if size > limit), default=0) for limit in STAGE_BYTES}
    return sorted((ends - {0}) | {len(b.steps)})


def _stage_of(b: Builder, ends: list[int]) -> list[int]:
    """For each storage, the last stage that uses it; the last of all for what the caller gets."""
    stages = [0] * len(b.sizes)
    for at, step in enumerate(b.steps):
        for buffer in (*step.links.inputs, *step.links.outputs):
            stages[buffer.storage] = max(stages[buffer.storage], bisect_right(ends, at))
    for node in b.graph.outputs:
        stages[b.buffers[node.name].storage] = len(ends) - 1
    return stages


def _lifetimes(b: Builder, *, keep: bool) -> list[Lifetime]:
    end = len(b.steps)
    first, last = [end] * len(b.sizes), [0] * len(b.sizes)
    for node in b.graph.inputs:
        first[b.buffers[node.name].storage] = 0
    for at, step in enumerate(b.steps):
        for buffer in step.links.outputs:
            first[buffer.storage] = min(first[buffer.storage], at)
            last[buffer.storage] = max(last[buffer.storage], at)
        for buffer in step.links.inputs:
            last[buffer.storage] = max(last[buffer.storage], at)
    for node in b.graph.outputs:
        last[b.buffers[node.name].storage] = end
    return [
        Lifetime(size=size, first=min(first[s], end), last=end if keep else max(last[s], first[s]))
        for s, size in enumerate(b.sizes)
    ]


def _moves(step: Step) -> int:
    """Bytes of a sample that a step reads and writes."""
    return sum(buffer.size * buffer.element.size for buffer in (*step.links.inputs, *step.links.outputs))


def _place(lifetimes: list[Lifetime], here: list[bool]) -> Arena:
    """An arena for some of the storages."""
    return place([replace(one, size=one.size if mine else 0) for one, mine in zip(lifetimes, here, strict=True)])
