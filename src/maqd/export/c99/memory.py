"""Where everything lies: tensors, scratch memory, and what is kept between rows of an input that comes in."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from maqd.export.c99.ends import Ends, direct
from maqd.export.c99.operations import (
    WORD,
    Codes,
    EventConv,
    FieldConv,
    Operation,
    Pixels,
    PlainConv,
    PlaneConv,
    step_of,
)
from maqd.export.c99.rows import keep, most
from maqd.plan import AddStep, ConcatStep, FixedPointStep, MultiplyStep, Plan, PoolStep, QuantizeStep, SumStep
from maqd.plan.arena import Lifetime, place
from maqd.plan.stages import lifetimes


@dataclass(frozen=True, kw_only=True)
class Memory:
    """A program's memory.

    Args:
        codes: How each storage is stored, by its number; views of it differ in shape only.
        scratch: Where each operation's scratch memory begins, in bytes.
        early: How many operations, from the first one on, run row by row while the input comes in; 0 if it is there
            as a whole.
        counts: Where the numbers of rows that are there begin, in bytes: the input's, then those operations'.
        size: Bytes.
        given: Bytes of the input that the caller holds at once.
    """

    codes: tuple[Codes, ...]
    scratch: tuple[int, ...]
    early: int
    counts: int
    size: int
    given: int


def smallest(
    plan: Plan, ends: Ends, operations: Sequence[Operation], stored: Sequence[Codes], *, most_rows: int | None = None
) -> Memory:
    """The memory that is smallest, together with what the caller holds of the input, or within a sixteenth of that.

    Every operation that runs row by row needs code for it, so of memories that hardly differ it is the one with fewest.

    Args:
        plan: The steps.
        ends: What the program takes and gives.
        operations: One for each step.
        stored: How each storage is stored.
        most_rows: How many operations may run row by row; as many as can by default.
    """
    limit = most(plan, operations, stored) if most_rows is None else most_rows
    found = [_memory(plan, ends, operations, stored, early) for early in range(limit + 1)]
    least = min(one.size + one.given for one in found)
    return next(one for one in found if 16 * (one.size + one.given) <= 17 * least)


def _memory(plan: Plan, ends: Ends, operations: Sequence[Operation], stored: Sequence[Codes], early: int) -> Memory:
    """Places of all tensors and scratch memory, if that many operations run row by row: those all at one time."""
    kept = keep(plan, operations, early) if early else {}
    stored = [
        replace(codes, kept=kept[place]) if kept.get(place, codes.rows) < codes.rows else codes
        for place, codes in enumerate(stored)
    ]
    callers = direct(ends) if early == 0 else {}
    times = [max(0, at - early + 1) if early else at for at in range(len(operations))]
    end = times[-1] + 1 if times else 0
    alone = [
        Lifetime(size=one.size, first=[*times, end][one.first], last=[*times, end][one.last])
        for one in lifetimes(plan.steps, plan.inputs, plan.outputs, [one.size for one in stored])
    ]
    # A layer on planes may write where its input lies: the ring holds the rows that it still needs.
    under, inputs = list(range(len(stored))), {buffer.storage for buffer in plan.inputs}
    for at, one in list(zip(times, operations, strict=True))[early:]:
        if isinstance(one, PlaneConv):
            x, y = one.step.links.inputs[0].storage, one.step.links.outputs[0].storage
            if alone[x].last == at and x not in inputs and one.follows(stored[x], stored[y]):
                under[y] = under[x]
    wanted = []
    for s in range(len(stored)):
        mine = [one for one, root in enumerate(under) if root == under[s]]
        size = 0 if s in callers or under[s] != s else max(stored[one].size for one in mine)
        begin, finish = min(alone[one].first for one in mine), max(alone[one].last for one in mine)
        wanted.append(Lifetime(size=size, first=begin, last=finish))
    # Of operations that run row by row, those that keep something have memory of their own, and the others share some.
    shared = [at for at, one in enumerate(operations[:early]) if not isinstance(one, PlaneConv | Pixels | SumStep)]
    owner = {at: max(shared, key=lambda other: _scratch(operations[other])) for at in shared}
    wanted += [
        Lifetime(size=_scratch(one) if owner.get(at, at) == at else 0, first=time, last=time)
        for at, (time, one) in enumerate(zip(times, operations, strict=True))
    ]
    wanted.append(Lifetime(size=(early + 1) * WORD if early else 0, first=0, last=end))
    arena = place(wanted, WORD)
    offsets, tensors = arena.offsets, len(stored)
    held = sum(
        buffer.size * end.dtype.itemsize // (buffer.rows if early else 1)
        for buffer, end in zip(plan.inputs, ends.inputs, strict=True)
    )
    return Memory(
        codes=tuple(
            replace(codes, offset=None, caller=callers[at])
            if at in callers
            else replace(codes, offset=offsets[under[at]])
            for at, codes in enumerate(stored)
        ),
        scratch=tuple(offsets[tensors + owner.get(at, at)] for at in range(len(operations))),
        early=early,
        counts=offsets[-1],
        size=arena.size,
        given=held,
    )


def _scratch(operation: Operation) -> int:
    """Bytes of an operation's scratch memory."""
    match operation:
        case EventConv() | PlainConv() | PlaneConv() | Pixels() | FieldConv():
            return operation.scratch
        case QuantizeStep(axis=axis):
            length = axis.channels * axis.inner
            return length * 4 + -(-length // WORD) * WORD
        case FixedPointStep(axis=axis):
            return axis.channels * axis.inner * 4
        case PoolStep() | SumStep() | AddStep():
            out = step_of(operation).links.outputs[0]
            return out.columns * out.channels * 4
        case ConcatStep(axes=axes):
            return max(axis.channels * axis.inner for axis in axes) * 4
        case MultiplyStep():
            out = step_of(operation).links.outputs[0]
            return 2 * out.columns * out.channels * 4
        case _:
            return 0
