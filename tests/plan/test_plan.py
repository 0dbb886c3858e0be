"""Arenas and plans: tensors that live together never overlap, and every node is computed once."""

from itertools import pairwise

import numpy as np
import pytest
from effort import examples
from graphs import every_node
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_graphs import random_graph

from maqd.graph import Add, Conv, Flatten, Gather, Input, Linear, Output, Permute, Reshape
from maqd.plan import ConvStep, Element, TransposeStep, make_plan
from maqd.plan.arena import ALIGNMENT, Arena, Lifetime, place

MOVES = Input | Output | Flatten | Reshape | Permute | Gather
"""Nodes that need no step of their own."""
ELEMENTS = {Element.U8: np.uint8, Element.I16: np.int16, Element.I32: np.int32}

lifetimes = st.builds(
    lambda size, first, length: Lifetime(size=size, first=first, last=first + length),
    st.integers(1, 5000),
    st.integers(0, 12),
    st.integers(0, 6),
)


def check_arena(arena: Arena, requests: list[Lifetime]) -> None:
    for i, (mine, offset) in enumerate(zip(requests, arena.offsets, strict=True)):
        assert offset % ALIGNMENT == 0
        assert offset + mine.size <= arena.size
        for other, place_of_other in list(zip(requests, arena.offsets, strict=True))[:i]:
            if mine.overlaps(other):
                assert offset + mine.size <= place_of_other or place_of_other + other.size <= offset


@settings(derandomize=True, deadline=None)
@given(st.lists(lifetimes, max_size=25))
def test_tensors_that_live_together_never_overlap(requests: list[Lifetime]):
    arena = place(requests)
    check_arena(arena, requests)
    rounded = [-(-request.size // ALIGNMENT) * ALIGNMENT for request in requests]
    assert arena.size <= sum(rounded)
    for step in range(20):
        assert arena.size >= sum(r for r, q in zip(rounded, requests, strict=True) if q.first <= step <= q.last)


def test_memory_is_used_again():
    requests = [Lifetime(size=100, first=step, last=step + 1) for step in range(10)]
    assert place(requests).size == 2 * 128
    assert place([]).size == 0


@pytest.mark.parametrize("fuse", [True, False])
@settings(
    max_examples=examples(100),
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_every_node_is_computed_once_before_it_is_read(fuse: bool, data: st.DataObject):
    graph = random_graph(data)
    plan = make_plan(graph, fuse=fuse)
    computed = [name for step in plan.steps for name in step.links.nodes]
    assert len(computed) == len(set(computed))
    free = {node.name for node in graph.nodes if isinstance(node, MOVES)}
    assert {node.name for node in graph.nodes} - set(computed) <= free
    written = {buffer.storage for buffer in plan.inputs}
    for step in plan.steps:
        assert all(buffer.storage in written for buffer in step.links.inputs)
        written.update(buffer.storage for buffer in step.links.outputs)
    assert all(buffer.storage in written for buffer in plan.outputs)
    for name, (buffer, shape) in plan.tensors.items():
        assert buffer.size == graph.types[name].size
        assert shape == graph.types[name].shape
        assert buffer.zero == 0 or buffer.element is Element.U8
        interval, limits = graph.types[name].interval, np.iinfo(ELEMENTS[buffer.element])
        assert (buffer.lowest, buffer.highest) == (interval.lowest + buffer.zero, interval.highest + buffer.zero)
        assert limits.min <= buffer.lowest <= buffer.highest <= limits.max
    if not fuse:
        assert set(plan.tensors) == {node.name for node in graph.nodes}


def test_convolutions_take_additions_and_activations_with_them():
    graph = every_node()
    steps = make_plan(graph).steps
    fused = {step.links.nodes for step in steps if isinstance(step, ConvStep)}
    assert ("stem", "stem.act") in fused
    assert any(len(names) > 1 and isinstance(graph[names[1]], Add) for names in fused)
    assert all(isinstance(graph[names[0]], Conv | Linear) for names in fused)
    assert not any(isinstance(step, TransposeStep) for step in steps)
    apart = make_plan(graph, fuse=False).steps
    assert all(len(step.links.nodes) == 1 for step in apart)
    assert len(apart) > len(steps)


def test_all_tensors_can_be_kept():
    graph = every_node()
    kept, reused = make_plan(graph, keep=True), make_plan(graph)
    assert sum(stage.arena.size for stage in kept.stages) > sum(stage.arena.size for stage in reused.stages)
    assert len(kept.stages) == 1
    spans = sorted({(kept.offset(b), b.size * b.element.size) for b, _ in kept.tensors.values()})
    assert all(a + size <= b for (a, size), (b, _) in pairwise(spans))
