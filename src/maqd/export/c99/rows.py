"""Computing row by row: which operations can, in which order, and how many rows of each tensor that keeps.

The first operations of a program may run while the input comes in: as soon as a row of it is there, every operation
that has the rows it reads computes one of its own, the last operation first. Tensors between them are then never there
as a whole. The order follows from the shapes alone, so the rows that must be kept are counted here, once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from maqd.export.c99.operations import Codes, EventConv, Operation, Pixels, PlaneConv, step_of
from maqd.plan import AddStep, Buffer, ConcatStep, MultiplyStep, Plan, PoolStep, QuantizeStep, SumStep


@dataclass(frozen=True, kw_only=True)
class Reach:
    """Which rows of a tensor an operation reads: `span` of them from row * stride - padding on.

    Args:
        buffer: The tensor.
        stride, padding, span: Rows.
        copied: Whether the operation keeps what it has read in memory of its own.
    """

    buffer: Buffer
    stride: int = 1
    padding: int = 0
    span: int = 1
    copied: bool = False

    def needed(self, row: int) -> int:
        """How many rows must be there to compute an output row."""
        return min(max(row * self.stride - self.padding + self.span, 0), self.buffer.rows)

    def lowest(self, row: int) -> int:
        """The lowest row that is read for an output row and those after it."""
        if self.copied:
            return self.needed(row - 1) if row > 0 else 0
        return min(max(row * self.stride - self.padding, 0), self.buffer.rows)


def reaches(operation: Operation) -> tuple[Reach, ...] | None:
    """What an operation reads for a row of its result; None if it cannot compute row by row."""
    links = step_of(operation).links
    match operation:
        case EventConv(step=step, whole=False) | Pixels(step=step) | PlaneConv(step=step):
            first = Reach(
                buffer=links.inputs[0],
                stride=step.stride[0],
                padding=step.padding[0],
                span=(step.weight.shape[2] - 1) * step.dilation[0] + 1,
                copied=not isinstance(operation, EventConv),
            )
            return (first, *(Reach(buffer=addend) for addend in links.inputs[1:]))
        case PoolStep(kernel=kernel, stride=stride, padding=padding):
            return (Reach(buffer=links.inputs[0], stride=stride[0], padding=padding[0], span=kernel[0]),)
        case QuantizeStep(axis=axis):
            x, y = links.inputs[0], links.outputs[0]
            by_pixel = axis.inner == 1 and axis.outer == x.rows * x.columns == y.rows * y.columns
            return (Reach(buffer=x),) if by_pixel and x.rows == y.rows else None
        case AddStep() | SumStep():
            return tuple(Reach(buffer=x) for x in links.inputs)
        case ConcatStep(axes=axes):
            y = links.outputs[0]
            alike = all((x.rows, x.columns) == (y.rows, y.columns) for x in links.inputs)
            by_pixel = all(axis.inner == 1 and axis.outer == y.rows * y.columns for axis in axes)
            return tuple(Reach(buffer=x) for x in links.inputs) if alike and by_pixel else None
        case MultiplyStep():
            alike = len({(x.rows, x.columns) for x in links.inputs}) == 1
            return tuple(Reach(buffer=x) for x in links.inputs) if alike else None
    return None


def turns(operation: Operation) -> int:
    """How often an operation that computes row by row is called: for each row of its result, or that it sums up."""
    links = step_of(operation).links
    return (links.inputs if isinstance(operation, SumStep) else links.outputs)[0].rows


def most(plan: Plan, operations: Sequence[Operation], stored: Sequence[Codes]) -> int:
    """How many operations, from the first one on, can run while the one input comes in.

    Args:
        plan: The steps.
        operations: One for each step.
        stored: How each storage is stored.
    """
    if len(plan.inputs) != 1:
        return 0
    source = plan.inputs[0]
    shapes: dict[int, set[tuple[int, int, int]]] = {source.storage: {(source.rows, source.columns, source.channels)}}
    for step in plan.steps:
        for one in (*step.links.inputs, *step.links.outputs):
            shapes.setdefault(one.storage, set()).add((one.rows, one.columns, one.channels))
    written = {buffer.storage for buffer in plan.outputs}
    count = 0
    for operation in operations:
        links = step_of(operation).links
        found = reaches(operation)
        pool = isinstance(operation, PoolStep) and not stored[links.inputs[0].storage].packed
        views = any(len(shapes[one.storage]) > 1 for one in (*links.inputs, *links.outputs))
        if found is None or pool or views or source.rows < 2:
            break
        count += 1
    late = [one.storage for operation in operations[count:] for one in step_of(operation).links.inputs]
    return 0 if source.storage in {*late, *written} else count


def keep(plan: Plan, operations: Sequence[Operation], count: int) -> dict[int, int]:
    """Rows that each storage must keep while the first `count` operations run row by row.

    Storages that other operations read, and those of the program's results, are not among them: they are there as a
    whole. The input of a kernel on pixels takes no memory, for that keeps its own rows.
    """
    front, source = operations[:count], plan.inputs[0]
    inputs = [reaches(operation) or () for operation in front]
    rows = [turns(operation) for operation in front]
    whole = {one.storage for operation in operations[count:] for one in step_of(operation).links.inputs}
    whole |= {buffer.storage for buffer in plan.outputs}
    outputs = [[one.storage for one in step_of(operation).links.outputs] for operation in front]
    there = dict.fromkeys((source.storage, *(one for side in outputs for one in side)), 0)
    kept = dict.fromkeys(there, 0)
    done = [0] * count

    def wrote(storage: int) -> None:
        there[storage] += 1
        readers = [
            reach.lowest(done[place]) if done[place] < rows[place] else there[storage]
            for place, mine in enumerate(inputs)
            for reach in mine
            if reach.buffer.storage == storage
        ]
        kept[storage] = max(kept[storage], there[storage] - min(readers, default=there[storage] - 1), 1)

    for _ in range(source.rows):
        wrote(source.storage)
        while True:
            ready = [
                place
                for place in range(count)
                if done[place] < rows[place]
                and all(there[reach.buffer.storage] >= reach.needed(done[place]) for reach in inputs[place])
            ]
            if not ready:
                break
            last = ready[-1]
            if not isinstance(front[last], SumStep) or done[last] == rows[last] - 1:
                for storage in outputs[last]:
                    wrote(storage)
            done[last] += 1
    if count and isinstance(front[0], Pixels) and _readers(inputs, source.storage) == 1:
        kept[source.storage] = 0
    return {storage: number for storage, number in kept.items() if storage not in whole}


def _readers(inputs: Sequence[Sequence[Reach]], storage: int) -> int:
    return sum(reach.buffer.storage == storage for mine in inputs for reach in mine)
