"""From a graph to the steps that an engine takes: fused nodes, stored tensors and their places in memory.

A *buffer* is a tensor as it lies in memory: rows x columns x channels, channels innermost, in the narrowest of uint8,
int16 and int32. A convolution takes with it the addition and the activation that follow, so that its accumulators are
never stored unless somebody else reads them. A flatten disappears: a linear map behind it becomes a convolution whose
kernel is the whole map.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from maqd.errors import EngineError
from maqd.graph import (
    Activation,
    Add,
    Concat,
    Conv,
    FixedPoint,
    Flatten,
    GlobalSum,
    Graph,
    Input,
    Linear,
    MaxPool,
    Node,
    Output,
    Storage,
    TensorType,
    Thresholds,
    Weighted,
    Window,
    channel_interval,
)
from maqd.numerics.fixedpoint import FixedAffine, affine_thresholds
from maqd.numerics.limits import INT32_LIMIT
from maqd.numerics.packing import PackedCodes
from maqd.plan.arena import Arena, Lifetime, place
from maqd.plan.steps import (
    STAGE_BYTES,
    AddStep,
    Axis,
    Buffer,
    ConcatStep,
    ConvStep,
    Element,
    Links,
    Plan,
    PoolStep,
    Quantization,
    QuantizeStep,
    Stage,
    Step,
    SumStep,
    TransposeStep,
)


def make_plan(graph: Graph, *, fuse: bool = True, keep: bool = False) -> Plan:
    """Plan a valid graph.

    Args:
        graph: What to compute.
        fuse: Whether convolutions take additions and activations with them.
        keep: Whether every storage lasts to the end, so that all tensors can be read afterwards.

    Raises:
        EngineError: An activation's input can reach the very largest int32.
    """
    return _Planner(graph, fuse=fuse).plan(keep=keep)


def channels_first(array: NDArray[np.int32], shape: tuple[int, ...]) -> NDArray[np.int32]:
    """N x elements as they are stored, channels last, in the shape of the graph."""
    if len(shape) == 1 or prod(shape[1:]) == 1 or shape[0] == 1:
        return array.reshape(len(array), *shape)
    return np.ascontiguousarray(np.moveaxis(array.reshape(len(array), *shape[1:], shape[0]), -1, 1))


class _Planner:
    """Walks the nodes once; a node that another takes with it is skipped when its turn comes."""

    def __init__(self, graph: Graph, *, fuse: bool) -> None:
        self.graph = graph
        self.fuse = fuse
        self.types = graph.types
        self.nodes = {node.name: node for node in graph.nodes}
        self.consumers: dict[str, list[Node]] = {name: [] for name in self.nodes}
        for node in graph.nodes:
            for name in node.inputs:
                self.consumers[name].append(node)
        self.order = {name: place for place, name in enumerate(self.nodes)}
        self.sizes: list[int] = []
        self.steps: list[Step] = []
        self.buffers: dict[str, Buffer] = {}
        self.taken: set[str] = set()

    def plan(self, *, keep: bool) -> Plan:
        for node in self.graph.nodes:
            if node.name not in self.taken:
                self.visit(node)
        ends = [len(self.steps)] if keep else self.stage_ends()
        stage_of = self.stage_of(ends)
        lifetimes = self.lifetimes(keep=keep)
        return Plan(
            inputs=tuple(self.buffers[node.name] for node in self.graph.inputs),
            outputs=tuple(self.buffers[node.name] for node in self.graph.outputs),
            steps=tuple(self.steps),
            stages=tuple(
                Stage(
                    end=end,
                    moves=max(map(_moves, self.steps[begin:end]), default=0),
                    arena=_place(lifetimes, [one == at for one in stage_of]),
                )
                for at, (begin, end) in enumerate(zip([0, *ends], ends, strict=False))
            ),
            stage_of=tuple(stage_of),
            tensors={name: (buffer, self.types[name].shape) for name, buffer in self.buffers.items()},
        )

    def stage_ends(self) -> list[int]:
        """Where stages end; none is empty unless there are no steps."""
        moves = [_moves(step) for step in self.steps]
        ends = {max((at + 1 for at, size in enumerate(moves) if size > limit), default=0) for limit in STAGE_BYTES}
        return sorted((ends - {0}) | {len(self.steps)})

    def stage_of(self, ends: list[int]) -> list[int]:
        """For each storage, the last stage that uses it; the last of all for who wants the result."""
        stages = [0] * len(self.sizes)
        for at, step in enumerate(self.steps):
            for buffer in (*step.links.inputs, *step.links.outputs):
                stages[buffer.storage] = max(stages[buffer.storage], bisect_right(ends, at))
        for node in self.graph.outputs:
            stages[self.buffers[node.name].storage] = len(ends) - 1
        return stages

    def lifetimes(self, *, keep: bool) -> list[Lifetime]:
        end = len(self.steps)
        first, last = [end] * len(self.sizes), [0] * len(self.sizes)
        for node in self.graph.inputs:
            first[self.buffers[node.name].storage] = 0
        for at, step in enumerate(self.steps):
            for buffer in step.links.outputs:
                first[buffer.storage] = min(first[buffer.storage], at)
                last[buffer.storage] = max(last[buffer.storage], at)
            for buffer in step.links.inputs:
                last[buffer.storage] = max(last[buffer.storage], at)
        for node in self.graph.outputs:
            last[self.buffers[node.name].storage] = end
        return [
            Lifetime(size=size, first=min(first[s], end), last=end if keep else max(last[s], first[s]))
            for s, size in enumerate(self.sizes)
        ]

    # ---- buffers ----------------------------------------------------------------------------------------------------

    def buffer(self, name: str) -> Buffer:
        """A new buffer for a tensor of the graph, remembered under its name."""
        made = self.stored(self.types[name], _extent(self.types[name].shape))
        self.buffers[name] = made
        return made

    def stored(self, kind: TensorType, extent: tuple[int, int, int], *, zero: int | None = None) -> Buffer:
        """A new buffer for a tensor's values in another shape; bytes with this zero, if one is given."""
        low, high = kind.interval.lowest, kind.interval.highest
        if zero is not None:
            element = Element.U8
        elif high - min(low, 0) <= 255 and low >= -255:
            element, zero = Element.U8, max(0, -low)
        else:
            element, zero = (Element.I16 if low >= -(2**15) and high < 2**15 else Element.I32), 0
        rows, columns, channels = extent
        self.sizes.append(rows * columns * channels * element.size)
        return Buffer(
            storage=len(self.sizes) - 1,
            rows=rows,
            columns=columns,
            channels=channels,
            element=element,
            zero=zero,
            lowest=low + zero,
            highest=high + zero,
        )

    def only_consumer(self, name: str) -> Node | None:
        found = self.consumers[name]
        return found[0] if len(found) == 1 else None

    # ---- nodes ------------------------------------------------------------------------------------------------------

    def visit(self, node: Node) -> None:
        match node:
            case Input():
                kind = self.types[node.name]
                # Bytes stay as they come.
                zero = node.zero if node.storage is Storage.U8 else None
                self.buffers[node.name] = self.stored(kind, _extent(kind.shape), zero=zero)
            case Conv():
                self.weighted(node)
            case Linear():
                self.linear(node)
            case Activation():
                links, output = self.single(node.name, self.buffers[node.inputs[0]])
                axis = _axis(self.types[node.name].shape, node.axis)
                self.steps.append(QuantizeStep(links=links, quantization=self.quantization(node, output), axis=axis))
            case Window():
                links, _ = self.single(node.name, self.buffers[node.inputs[0]])
                self.steps.append(
                    PoolStep(
                        links=links,
                        maximum=isinstance(node, MaxPool),
                        kernel=_pair(node.kernel, 1),
                        stride=_pair(node.stride, 1),
                        padding=_pair(node.padding, 0),
                    )
                )
            case GlobalSum():
                links, _ = self.single(node.name, self.buffers[node.inputs[0]])
                self.steps.append(SumStep(links=links))
            case Add():
                links, _ = self.single(node.name, *(self.buffers[name] for name in node.inputs))
                self.steps.append(AddStep(links=links, shifts=node.shifts))
            case Concat():
                links, _ = self.single(node.name, *(self.buffers[name] for name in node.inputs))
                axes = tuple(_axis(self.types[name].shape, node.axis) for name in node.inputs)
                self.steps.append(ConcatStep(links=links, shifts=node.shifts, axes=axes))
            case Flatten():
                self.flatten(node)
            case Output():
                self.buffers[node.name] = self.buffers[node.inputs[0]]
            case _:
                raise EngineError(f"the engine does not know {node.operation} node {node.name!r}")

    def single(self, name: str, *inputs: Buffer) -> tuple[Links, Buffer]:
        """The links of a step that computes one node, and its output."""
        output = self.buffer(name)
        return Links(nodes=(name,), inputs=inputs, outputs=(output,)), output

    def quantization(self, node: Activation, output: Buffer) -> Quantization:
        """Thresholds on the integers of the channel, whatever form the graph has."""
        interval, affine = channel_interval(self.types[node.inputs[0]], node.axis), None
        if max(-interval.lowest, interval.highest) >= INT32_LIMIT:
            raise EngineError(
                f"activation {node.name!r}: its input can reach {INT32_LIMIT}, and thresholds must be able to exceed "
                "it; use the numpy engine"
            )
        if isinstance(node, Thresholds):
            rising = node.signs > 0
            first = np.where(rising, interval.low, -interval.high)
            last = np.where(rising, interval.high, -interval.low)
            cuts, signs = np.clip(node.thresholds.astype(np.int64), first, last + 1), node.signs
        elif isinstance(node, FixedPoint):
            affine = FixedAffine(
                multiplier=node.multiplier.astype(np.int64), offset=node.offset.astype(np.int64), shift=node.shift
            )
            cuts, signs = affine_thresholds(affine, node.states.count, interval.low, interval.high)
        else:
            raise EngineError(f"the engine does not know {node.operation} node {node.name!r}")
        return Quantization(
            thresholds=np.ascontiguousarray(cuts, np.int32),
            signs=signs,
            spacing=node.states.spacing,
            base=node.states.low + output.zero,
            affine=affine,
        )

    def flatten(self, node: Flatten) -> None:
        """Order of the elements changes only if there are several channels at several positions."""
        x, kind = self.buffers[node.inputs[0]], self.types[node.name]
        if x.channels == 1 or x.rows * x.columns == 1:
            self.buffers[node.name] = replace(x, rows=1, columns=1, channels=kind.size)
            return
        reader = self.only_consumer(node.name)
        if self.fuse and isinstance(reader, Linear) and len(self.types[node.inputs[0]].shape) <= 3:
            return  # the linear map reads the input of the flatten
        links, _ = self.single(node.name, x)
        self.steps.append(TransposeStep(links=links, height=x.rows * x.columns, width=x.channels))

    def linear(self, node: Linear) -> None:
        source = node.inputs[0]
        if source not in self.buffers:  # a flatten
            before = self.nodes[source].inputs[0]
            x = self.buffers[before]
            weight = node.weight.reshaped(node.weight.shape[0], x.channels, x.rows, x.columns)
            self.convolution(node, x, weight, ones=True)
            return
        kind, x = self.types[source], self.buffers[source]
        outputs, inputs = node.weight.shape
        weight = node.weight.reshaped(outputs, inputs, 1, 1)
        if len(kind.shape) == 1:
            self.convolution(node, x, weight, ones=True)
            return
        # The last dimension of the graph must become the innermost one, and the first one again afterwards.
        turned = self.stored(kind, (1, kind.size // inputs, inputs))
        self.turn(x, turned, kind.size // kind.shape[0])
        out = self.types[node.name]
        product = self.stored(out, (1, out.size // outputs, outputs))
        self.steps.append(
            ConvStep(
                links=Links(nodes=(node.name,), inputs=(turned,), outputs=(product,)),
                weight=weight,
                bias=_bias(node),
                stride=(1, 1),
                padding=(0, 0),
                dilation=(1, 1),
                groups=1,
                reach=_reach(out),
                raw=product,
            )
        )
        self.turn(product, self.buffer(node.name), kind.shape[0])

    def turn(self, x: Buffer, output: Buffer, height: int) -> None:
        """Transpose a matrix of so many rows into a buffer."""
        links = Links(nodes=(), inputs=(x,), outputs=(output,))
        self.steps.append(TransposeStep(links=links, height=height, width=x.size // height))

    def weighted(self, node: Conv) -> None:
        shape = node.weight.shape if len(node.weight.shape) == 4 else (*node.weight.shape[:2], 1, node.weight.shape[2])
        weight = node.weight.reshaped(*shape)
        self.convolution(node, self.buffers[node.inputs[0]], weight, ones=False)

    def convolution(self, node: Conv | Linear, x: Buffer, weight: PackedCodes, *, ones: bool) -> None:
        """A convolution with what follows it."""
        result: Node = node
        inputs, shift, addend_shift = [x], 0, 0
        following = self.only_consumer(node.name) if self.fuse else None
        if isinstance(following, Add) and len(following.inputs) == 2 and self.completes(following, node.name):
            mine = following.inputs.index(node.name)
            inputs.append(self.buffers[following.inputs[1 - mine]])
            shift, addend_shift = following.shifts[mine], following.shifts[1 - mine]
            result = following
        readers = self.consumers[result.name]
        act = next((r for r in readers if isinstance(r, Activation) and r.axis == 0 and _byte(r)), None)
        if not self.fuse:
            act = None
        raw = self.buffer(result.name) if act is None or len(readers) > 1 else None
        codes = None if act is None else self.buffer(act.name)
        names = tuple(dict.fromkeys(n.name for n in (node, result, act) if n is not None))
        self.taken.update(names)
        conv = node if isinstance(node, Conv) and not ones else None
        self.steps.append(
            ConvStep(
                links=Links(nodes=names, inputs=tuple(inputs), outputs=tuple(b for b in (raw, codes) if b is not None)),
                weight=weight,
                bias=_bias(node),
                stride=(1, 1) if conv is None else _pair(conv.stride, 1),
                padding=(0, 0) if conv is None else _pair(conv.padding, 0),
                dilation=(1, 1) if conv is None else _pair(conv.dilation, 1),
                groups=1 if conv is None else conv.groups,
                reach=_reach(self.types[result.name]),
                shift=shift,
                addend_shift=addend_shift,
                raw=raw,
                codes=codes,
                quantization=None if act is None or codes is None else self.quantization(act, codes),
            )
        )

    def completes(self, add: Add, name: str) -> bool:
        """Whether the other term of the sum is there before."""
        first, second = add.inputs
        other = second if first == name else first
        return other != name and other in self.buffers


def _byte(node: Activation) -> bool:
    """Whether codes are stored as bytes."""
    return node.states.high - node.states.low <= 255


def _moves(step: Step) -> int:
    """Bytes of a sample that a step reads and writes."""
    return sum(buffer.size * buffer.element.size for buffer in (*step.links.inputs, *step.links.outputs))


def _place(lifetimes: list[Lifetime], here: list[bool]) -> Arena:
    """An arena for some of the storages."""
    return place([replace(one, size=one.size if mine else 0) for one, mine in zip(lifetimes, here, strict=True)])


def _reach(kind: TensorType) -> int:
    return max(-kind.interval.lowest, kind.interval.highest)


def _bias(node: Weighted) -> NDArray[np.int32] | None:
    return None if node.bias is None else np.ascontiguousarray(node.bias, np.int32)


def _pair(values: Sequence[int], missing: int) -> tuple[int, int]:
    return (values[0], values[1]) if len(values) == 2 else (missing, values[0])


def _extent(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Rows, columns and channels of a shape with the channels first."""
    channels, *space = shape
    return (prod(space[:-1]), space[-1], channels) if space else (1, 1, channels)


def _axis(shape: tuple[int, ...], axis: int) -> Axis:
    """A dimension of a shape with the channels first, in memory, where they are last."""
    stored = (*shape[1:], shape[0])
    place = len(shape) - 1 if axis == 0 else axis - 1
    return Axis(outer=prod(stored[:place]), channels=stored[place], inner=prod(stored[place + 1 :]))
