"""From a graph to the steps that an engine takes: fused nodes, stored tensors and their places in memory.

A *buffer* is a tensor as it lies in memory: rows x columns x channels, channels innermost, in the narrowest of uint8,
int16 and int32. A convolution takes with it the addition and the activation that follow, so that its accumulators are
never stored unless another node reads them. A flatten disappears: a linear map after it becomes a convolution whose
kernel is the whole map. Nodes that only move elements become one step, or none.
"""

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
from maqd.plan.stages import is_large, lifetimes, stage_ends, stages_of
from maqd.plan.steps import Plan, Stage

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
    inputs, outputs = (tuple(b.buffers[node.name] for node in nodes) for nodes in (graph.inputs, graph.outputs))
    times = lifetimes(b.steps, inputs, outputs, b.sizes)
    ends = [len(b.steps)] if keep else stage_ends(b.steps)
    stage_of = stages_of(times, ends)
    if keep:
        times = [replace(one, last=len(b.steps)) for one in times]
    return Plan(
        inputs=inputs,
        outputs=outputs,
        steps=tuple(b.steps),
        stages=tuple(
            Stage(
                end=end,
                large=any(map(is_large, b.steps[begin:end])),
                arena=_place(times, [one == at for one in stage_of]),
            )
            for at, (begin, end) in enumerate(zip([0, *ends], ends, strict=False))
        ),
        stage_of=stage_of,
        tensors={name: (buffer, b.types[name].shape) for name, buffer in b.buffers.items()},
    )


def channels_first(array: NDArray[np.int32], shape: tuple[int, ...]) -> NDArray[np.int32]:
    """N x elements as they are stored, channels last, in the shape of the graph."""
    if len(shape) == 1:
        return array
    if prod(shape[1:]) == 1 or shape[0] == 1:
        return array.reshape(len(array), *shape)
    return np.ascontiguousarray(np.moveaxis(array.reshape(len(array), *shape[1:], shape[0]), -1, 1))


def _place(times: list[Lifetime], here: list[bool]) -> Arena:
    """An arena for some of the storages."""
    return place([replace(one, size=one.size if mine else 0) for one, mine in zip(times, here, strict=True)])
