"""When steps run for many samples at once, and in which steps a storage must exist."""

from bisect import bisect_right
from collections.abc import Sequence

from maqd.plan.arena import Lifetime
from maqd.plan.steps import Buffer, Step

STAGE_BYTES = (98304, 49152)
"""A stage ends after the last step that reads and writes more bytes of a sample; the last stage has all others."""


def moves(step: Step) -> int:
    """Bytes of a sample that a step reads and writes."""
    return sum(buffer.size * buffer.element.size for buffer in (*step.links.inputs, *step.links.outputs))


def is_large(step: Step) -> bool:
    """Whether a step belongs before the last stage."""
    return moves(step) > STAGE_BYTES[-1]


def stage_ends(steps: Sequence[Step]) -> list[int]:
    """Where stages end; none is empty unless there are no steps."""
    sizes = [moves(step) for step in steps]
    ends = {max((at + 1 for at, size in enumerate(sizes) if size > limit), default=0) for limit in STAGE_BYTES}
    return sorted((ends - {0}) | {len(steps)})


def stages_of(lifetimes: Sequence[Lifetime], ends: Sequence[int]) -> tuple[int, ...]:
    """For each storage, the last stage that uses it."""
    return tuple(min(bisect_right(ends, one.last), len(ends) - 1) for one in lifetimes)


def lifetimes(
    steps: Sequence[Step], inputs: Sequence[Buffer], outputs: Sequence[Buffer], sizes: Sequence[int]
) -> list[Lifetime]:
    """In which steps each storage must exist: inputs from the first on, outputs to after the last.

    Args:
        steps: In order.
        inputs, outputs: Where the graph's inputs and outputs lie.
        sizes: Bytes of each storage.
    """
    end = len(steps)
    first, last = [end] * len(sizes), [0] * len(sizes)
    for at, step in enumerate(steps):
        for buffer in step.links.outputs:
            first[buffer.storage] = min(first[buffer.storage], at)
        for buffer in (*step.links.inputs, *step.links.outputs):
            last[buffer.storage] = max(last[buffer.storage], at)
    for buffer in inputs:
        first[buffer.storage] = 0
    for buffer in outputs:
        last[buffer.storage] = end
    return [Lifetime(size=size, first=first[s], last=max(last[s], first[s])) for s, size in enumerate(sizes)]
