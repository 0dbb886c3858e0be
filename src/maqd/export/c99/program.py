"""From a plan to a program: how each tensor is stored, which kernel runs each step, and where everything lies.

Tensors of few states are packed as fields of words if all their readers and writers can handle that
(csrc/c99/packed.h). Convolutions visit only inputs that are not 0 ("events"); those with groups, or with numbers too
large for lanes, take the plain kernels of csrc/c99/kernels.h.
"""

import enum
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from maqd.export.c99.choices import MEASURED, Choices, Kernel, Layer
from maqd.export.c99.ends import Ends, Entry, image_storages, make_ends
from maqd.export.c99.memory import Memory, smallest
from maqd.export.c99.operations import (
    LANES,
    TRITS,
    WORD,
    Codes,
    EventConv,
    FieldConv,
    Operation,
    Pass,
    PixelConv,
    PixelSums,
    PlainConv,
    PlaneConv,
    RowFormat,
    channel_thresholds,
    in_rows,
    step_of,
    turned_signs,
)
from maqd.export.c99.targets import Target
from maqd.graph import Graph
from maqd.numerics.states import States
from maqd.plan import (
    Buffer,
    ConvStep,
    Element,
    Plan,
    PoolStep,
    Quantization,
    QuantizeStep,
    Step,
    SumStep,
    make_plan,
)

PLANE_TAPS = 49
"""Most positions of a window whose sum is written out."""


PIXEL_TAPS = 256
"""Most weights of an output in a first layer on pixels, which takes two bytes for each."""


class Strategy(enum.Enum):
    """What matters most."""

    SIZE = "size"
    """Layers of the same kind share code, and five weights of three states a byte."""
    BALANCED = "balanced"
    """Code made for each layer; codes packed."""
    FAST = "fast"
    """The fewest instructions: code of its own for each output of a layer."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Program:
    """A network, ready to be written down.

    Args:
        graph: What it computes.
        plan: The steps.
        ends: What it takes and gives.
        strategy: What matters most.
        operations: One for each step.
        memory: Where tensors and scratch memory lie, and which operations run while the input comes in.
        whole: The same if the input is there as a whole.
    """

    graph: Graph
    plan: Plan
    ends: Ends
    strategy: Strategy
    operations: tuple[Operation, ...]
    memory: Memory
    whole: Memory

    @property
    def arena(self) -> int:
        """Bytes of memory that a run needs, besides its arguments and the stack."""
        return max(self.memory.size, 4)

    @property
    def by_rows(self) -> bool:
        """Whether it takes its input row by row."""
        return self.memory.early > 0

    @property
    def handed(self) -> tuple[Entry, ...]:
        """The inputs that are handed to every layer: all, or none that come row by row."""
        return () if self.by_rows else self.ends.inputs

    def parameters(self, index: int) -> list[str]:
        """The parameters of a layer's function."""
        row = ["int32_t row"] if index < self.memory.early else []
        return [*(end.declaration for end in self.handed), "maqd_word *arena", *row]

    def stored(self, buffer: Buffer) -> Codes:
        """How a buffer, which may be a view of a storage, is stored."""
        found = self.memory.codes[buffer.storage]
        return replace(found, rows=buffer.rows, columns=buffer.columns, channels=buffer.channels)


def make_program(
    graph: Graph,
    strategy: Strategy,
    target: Target = Target.GENERIC,
    *,
    by_rows: bool = True,
    choices: Choices = MEASURED,
) -> Program:
    """Decide everything that the text of a program depends on.

    Args:
        graph: A valid graph.
        strategy: What matters most.
        target: Where it is to run.
        by_rows: Whether the program may take its input row by row, where that needs less memory.
        choices: What kernels cost.

    Raises:
        ExportError: The graph has a node that there is no kernel for.
        EngineError: An activation's input can reach the very largest int32.
    """
    plan = make_plan(graph)
    ends = make_ends(graph, plan)
    planes = choices.best(Layer.DEPTHWISE, target) is Kernel.PLANES
    fast = strategy is Strategy.FAST
    operations = tuple(_operation(step, trits=False, planes=planes, padded=fast) for step in plan.steps)
    if strategy is not Strategy.SIZE:
        operations = tuple(_first(one, image_storages(ends), target, choices) for one in operations)
    if strategy is Strategy.SIZE:
        smaller = tuple(_operation(step, trits=True, planes=planes, padded=False) for step in plan.steps)
        if _weight_bytes(smaller) + TRITS.nbytes < _weight_bytes(operations):
            operations = smaller
    while True:  # a kernel on planes needs fields on both sides, or another one takes its place
        stored = _storages(plan, operations)
        chosen = tuple(_on_fields(one, stored) for one in operations)
        if chosen == operations:
            break
        operations = chosen
    whole = smallest(plan, ends, operations, stored, most_rows=0)
    return Program(
        graph=graph,
        plan=plan,
        ends=ends,
        strategy=strategy,
        operations=operations,
        memory=smallest(plan, ends, operations, stored) if by_rows else whole,
        whole=whole,
    )


# ---- kernels ---------------------------------------------------------------------------------------------------------


def _weight_bytes(operations: tuple[Operation, ...]) -> int:
    return sum(one.weight_bytes for one in operations if isinstance(one, EventConv))


def _operation(step: Step, *, trits: bool, planes: bool, padded: bool) -> Operation:
    if not isinstance(step, ConvStep):
        return step
    return (_planes(step) if planes else None) or _by_events(step, trits=trits, padded=padded)


def _by_events(step: ConvStep, *, trits: bool, padded: bool = False) -> EventConv | PlainConv:
    rows = _row_format(step, trits=trits, padded=padded)
    if rows is None:
        return _plain_convolution(step)
    return _events(step, rows)


def _planes(step: ConvStep) -> PlaneConv | None:
    """A depthwise layer on planes; None if it is another one, or has numbers that planes cannot take."""
    x, q, weight = step.links.inputs[0], step.quantization, step.weight
    channels, inputs, high, wide = weight.shape
    if (
        inputs != 1
        or step.groups != channels
        or channels != x.channels
        or len(step.links.inputs) > 1
        or step.raw is not None
        or step.codes is None
        or q is None
        or not _plain(q)
        or x.zero != 0
        or x.lowest < 0
        or x.highest > 15
        or step.codes.highest > 15
        or _code_bits(x) != _code_bits(step.codes)
        or weight.states.high > 15
        or high * wide > PLANE_TAPS
    ):
        return None
    signs = q.signs.astype(np.int64)
    bias = 0 if step.bias is None else step.bias.astype(np.int64)
    thresholds = q.thresholds.T.astype(np.int64) - (signs * bias)[:, None]
    weights = weight.unpack().astype(np.int64)[:, 0] * signs[:, None, None]
    return PlaneConv(step=step, weights=weights, thresholds=thresholds)


def _first(operation: Operation, images: set[int], target: Target, choices: Choices) -> Operation:
    """The operation, or the kernel on pixels where that can compute it from the image."""
    if not isinstance(operation, EventConv) or operation.step.links.inputs[0].storage not in images:
        return operation
    step, q = operation.step, operation.step.quantization
    x, (outputs, inputs, high, wide) = step.links.inputs[0], step.weight.shape
    whole = (high, wide) == (x.rows, x.columns) and step.padding == (0, 0)
    fields = choices.best(Layer.IMAGE_DENSE, target) is Kernel.FIELDS
    if whole and fields and x.element is Element.U8 and step.weight.states.count <= 4 and len(step.links.inputs) == 1:
        return FieldConv(step=step, thresholds=channel_thresholds(q), signs=turned_signs(q))
    if (
        x.element is not Element.U8
        or len(step.links.inputs) > 1
        or step.dilation[1] != 1
        or operation.whole
        or choices.best(Layer.FIRST, target) is not Kernel.PIXELS
        or inputs * high * wide > PIXEL_TAPS
    ):
        return operation
    sums = _pixel_sums(step)
    if sums is None:
        return operation
    if step.raw is not None or step.codes is None or step.codes.highest > 15 or q is None or not _plain(q):
        return sums
    signs = q.signs.astype(np.int64)
    weights = in_rows(step) * signs[:, None, None]
    bias = 0 if step.bias is None else signs * step.bias
    thresholds = q.thresholds.T.astype(np.int64) - np.broadcast_to(bias, outputs)[:, None]
    return PixelConv(step=step, turned=weights, thresholds=thresholds + x.zero * weights.sum((1, 2))[:, None])


def _pixel_sums(step: ConvStep) -> PixelSums | None:
    """Sums of pixels, if they fit 16 bits."""
    q = step.quantization
    found = PixelSums(step=step, thresholds=channel_thresholds(q), signs=turned_signs(q))
    return found if found.highest < 2**16 else None


def _code_bits(buffer: Buffer) -> int:
    """Of a field that can hold a buffer's codes, which are not above 15."""
    return next(bits for bits in (1, 2, 4) if buffer.highest < 2**bits)


def _on_fields(operation: Operation, stored: list[Codes]) -> Operation:
    """The operation, or another kernel instead of one that needs fields where tensors are none."""
    match operation:
        case PlaneConv(step=step):
            links = step.links
            fits = all(stored[buffer.storage].packed for buffer in (*links.inputs, *links.outputs))
            return operation if fits else _plain_convolution(step)
        case PixelConv(step=step):
            fits = stored[step.links.outputs[0].storage].packed
            return operation if fits else _pixel_sums(step) or _by_events(step, trits=False)
    return operation


def _plain_convolution(step: ConvStep) -> PlainConv:
    q = step.quantization
    return PlainConv(step=step, thresholds=channel_thresholds(q), signs=turned_signs(q))


def _row_format(step: ConvStep, *, trits: bool, padded: bool) -> RowFormat | None:
    """How weights are stored for events, five a byte or padded if wanted; None where events cannot compute it."""
    x, states, shape = step.links.inputs[0], step.weight.states, step.weight.shape
    lowest = x.lowest - x.zero
    largest, most = max(x.highest - x.zero, -lowest), states.count - 1
    fan_in = shape[1] * shape[2] * shape[3]
    if step.groups > 1 or states.count > 256 or largest * most > LANES[16] or shape[1] * shape[2] > 2**16:
        return None
    bits = _field_bits(states)
    lane = 8 if bits < 8 and lowest >= 0 and 4 * largest * most <= LANES[8] and fan_in * largest * most < 2**16 else 16
    if lane == 16:
        bits = max(bits, 2)  # or a word would take more than eight registers
    return RowFormat(
        bits=bits,
        lane=lane,
        ones=lowest >= 0 and largest == 1,
        trits=trits and states.count == 3 and lane == 8,
        padded=padded,
        capacity=LANES[lane] // most,
        largest=max(largest, 1),
    )


def _field_bits(states: States) -> int:
    return next(bits for bits in (1, 2, 4, 8) if states.count <= 2**bits)


def _events(step: ConvStep, rows: RowFormat) -> EventConv:
    x, codes = step.links.inputs[0], step.weight.unpack().astype(np.int64)
    outputs, _, high, wide = codes.shape
    thresholds, signs, bias = channel_thresholds(step.quantization), turned_signs(step.quantization), step.bias
    flips = np.ones(outputs, np.int8)
    if step.raw is None and len(step.links.inputs) == 1 and thresholds is not None:
        # Not visible outside: the signs of these sums can be turned, and what is added taken off the thresholds.
        if signs is not None:
            flips, signs = signs, None
            codes = codes * flips[:, None, None, None]
        if bias is not None:
            # They are within the bounds of what they are compared with, and so fit after this as well.
            thresholds, bias = thresholds - (flips * bias.astype(np.int64))[:, None], None
    whole = (
        (high, wide) == (x.rows, x.columns) and high * wide > 1 and step.padding == (0, 0) and step.dilation == (1, 1)
    )
    states = step.weight.states
    index = (codes - states.low) // states.spacing
    # From O x I x rows x columns to columns x (rows x I) x O; a whole kernel is a row of columns, one for each pixel.
    if whole:
        index = index.transpose(2, 3, 1, 0).reshape(high * wide, -1, outputs)
    else:
        index = index.transpose(3, 2, 1, 0).reshape(wide, -1, outputs)
    return EventConv(
        step=step,
        whole=whole,
        rows=rows,
        passes=tuple(_passes(index, rows)),
        flips=flips,
        thresholds=thresholds,
        bias=bias,
        signs=signs,
        list_bytes=-(-index.shape[1] * (2 if rows.ones else 4) // WORD) * WORD,
    )


def _passes(index: NDArray[np.int64], rows: RowFormat) -> Iterator[Pass]:
    outputs = index.shape[-1]
    full, rest = divmod(outputs, rows.outputs)
    if full:
        parts = index[..., : full * rows.outputs].reshape(*index.shape[:2], full, rows.outputs)
        yield Pass(outputs=rows.outputs, data=_packed(np.moveaxis(parts, 2, 0), rows))
    if rest:
        yield Pass(outputs=rest, data=_packed(index[None, ..., -rest:], rows))


def _packed(index: NDArray[np.int64], rows: RowFormat) -> NDArray[np.uint8]:
    """Several indices a byte, the first one lowest, along the last dimension."""
    each, base = (5, 3) if rows.trits else (8 // rows.bits, 2**rows.bits)
    padded = np.pad(index, [(0, 0)] * (index.ndim - 1) + [(0, -index.shape[-1] % each)])
    digits = padded.reshape(*index.shape[:-1], -1, each) * base ** np.arange(each)
    found = digits.sum(-1).astype(np.uint8)
    if rows.padded and found.shape[-1] % WORD == WORD - 1:  # three bytes take five instructions more than a word
        found = np.pad(found, [(0, 0)] * (index.ndim - 1) + [(0, 1)])
    return np.ascontiguousarray(found)


# ---- tensors ---------------------------------------------------------------------------------------------------------


def _storages(plan: Plan, operations: tuple[Operation, ...]) -> list[Codes]:
    """How each storage is stored."""
    buffers: dict[int, list[Buffer]] = {buffer.storage: [buffer] for buffer in plan.inputs}
    for step in plan.steps:
        for buffer in (*step.links.inputs, *step.links.outputs):
            buffers.setdefault(buffer.storage, []).append(buffer)
    packed = _packable(plan, operations, buffers)
    found = []
    for storage in range(len(buffers)):
        buffer = buffers[storage][0]
        bits = {Element.U8: 8, Element.I16: 16, Element.I32: 32}[buffer.element]
        codes = Codes(
            rows=buffer.rows,
            columns=buffer.columns,
            channels=buffer.channels,
            bits=bits,
            zero=buffer.zero,
            offset=None,
        )
        if storage in packed:
            fields = replace(codes, bits=_code_bits(buffer))
            codes = fields if fields.size < codes.size else codes
        found.append(codes)
    return found


def _packable(plan: Plan, operations: tuple[Operation, ...], buffers: dict[int, list[Buffer]]) -> set[int]:
    """Storages that all readers and writers can handle as fields."""
    found = {
        storage
        for storage, views in buffers.items()
        if len({(view.rows, view.columns, view.channels) for view in views}) == 1
        and views[0].element is Element.U8
        and views[0].zero == 0
        and views[0].highest < 16
    }
    found -= {buffer.storage for buffer in (*plan.inputs, *plan.outputs)}
    while True:
        wrong = set()
        for operation in operations:
            links = step_of(operation).links
            reads, writes = {b.storage for b in links.inputs}, {b.storage for b in links.outputs}
            match operation:
                case PlaneConv() | PixelConv():
                    pass
                case EventConv(step=step) | PlainConv(step=step) | FieldConv(step=step) | PixelSums(step=step):
                    wrong |= set() if isinstance(operation, EventConv) else {links.inputs[0].storage}
                    fits = step.codes is not None and _plain(step.quantization)
                    wrong |= writes - ({step.codes.storage} if step.codes is not None and fits else set())
                case QuantizeStep(quantization=quantization, axis=axis):
                    wrong |= reads if axis.inner == 1 and _plain(quantization) else reads | writes
                case SumStep():
                    wrong |= writes
                case PoolStep(maximum=True):
                    if not reads | writes <= found:
                        wrong |= reads | writes
                case PoolStep(links=links):  # sums of up to 255, of fields to fields or bytes
                    y = links.outputs[0]
                    if y.element is not Element.U8 or y.zero != 0:
                        wrong |= reads | writes
                    elif not reads <= found:
                        wrong |= writes
                case _:
                    wrong |= reads | writes
        if not wrong & found:
            return found
        found -= wrong


def _plain(quantization: Quantization | None) -> bool:
    """Whether codes are the indices of their states."""
    return quantization is not None and quantization.spacing == 1 and quantization.base == 0
