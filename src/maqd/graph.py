"""The integer graph: what a lowered network computes, node by node, in integers alone.

A tensor is an array of integers, its *codes*; code 1 stands for 2**exponent. Shapes are those of one sample, channels
first, without the batch. Every node has one output, which carries the node's name. docs/numerics.md has the formulas.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from maqd.bounds import Interval, narrowest, product_sums
from maqd.errors import GraphError
from maqd.packing import PackedCodes
from maqd.states import PIXELS, Grid, States

INT32_LIMIT = 2**31 - 1
"""No integer of a tensor is larger in magnitude."""

MAX_ELEMENTS = 2**28
"""No tensor of one sample has more elements: a damaged shape must not lead to wild allocations."""

MAX_WINDOW = 2**15
"""No kernel, stride, padding or dilation is larger."""

MAX_EXPONENT = 512
"""No unit is further from 1 than this power of two: values stay normal in float64."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TensorType:
    """What is known of a tensor without running the network.

    Args:
        shape: Of one sample.
        exponent: Value of code 1 is 2**exponent.
        interval: Bounds of the codes; its arrays can be broadcast to `shape` and have the same rank.
    """

    shape: tuple[int, ...]
    exponent: int
    interval: Interval

    @property
    def grid(self) -> Grid:
        """Bounds of all codes, and their unit."""
        return Grid(low=self.interval.lowest, high=self.interval.highest, exponent=self.exponent)

    @property
    def size(self) -> int:
        """Elements of one sample."""
        return math.prod(self.shape)

    @property
    def dtype(self) -> np.dtype[np.signedinteger]:
        """The narrowest signed integer type that holds every code: the narrowest safe accumulator."""
        return narrowest(self.interval.lowest, self.interval.highest)

    def __str__(self) -> str:
        grid = self.grid
        return f"{self.dtype}[{','.join(map(str, self.shape))}] {grid.low}..{grid.high} * 2^{grid.exponent}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Node(ABC):
    """An operation of the graph.

    Args:
        name: Its name and that of its output.
        inputs: Names of the nodes whose outputs it takes.
    """

    name: str
    inputs: tuple[str, ...]

    operation: ClassVar[str]
    """Name of the kind of node, in files and in text."""
    arity: ClassVar[tuple[int, int]] = (1, 1)
    """Fewest and most inputs."""

    @abstractmethod
    def infer(self, *inputs: TensorType) -> TensorType:
        """The type of the output.

        Raises:
            GraphError: The node is inconsistent in itself or with its inputs.
        """

    def describe(self) -> str:
        """What the node does beyond its operation, for people."""
        return ""

    def require(self, condition: bool, message: str) -> None:
        """Raises GraphError with the node's name unless the condition holds."""
        if not condition:
            raise GraphError(f"{self.operation} node {self.name!r}: {message}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Input(Node):
    """uint8 samples: code = pixel - 128.

    Args:
        shape: Of one sample, channels first.
        exponent: Of the unit.
    """

    shape: tuple[int, ...]
    exponent: int = PIXELS.exponent

    operation = "input"
    arity = (0, 0)

    def infer(self, *inputs: TensorType) -> TensorType:
        self.require(len(self.shape) >= 1 and min(self.shape) >= 1, f"needs positive sizes, got {self.shape}")
        return TensorType(
            shape=self.shape,
            exponent=self.exponent,
            interval=Interval.of(PIXELS.low, PIXELS.high, len(self.shape)),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Weighted(Node):
    """What convolutions and linear maps share: sums of weight codes times codes, plus a bias.

    Args:
        weight: Codes, outputs first, then the fan-in.
        exponent: Value of weight code 1 is 2**exponent; the output's exponent is the sum of both.
        bias: int32, one an output, in units of the output; None for none.
    """

    weight: PackedCodes
    exponent: int
    bias: NDArray[np.signedinteger] | None = None

    def accumulators(self, x: TensorType) -> Interval:
        """Bounds of the output, one entry a channel."""
        outputs, magnitude = self.weight.shape[0], max(-self.weight.states.low, self.weight.states.high)
        self.require(
            self.weight.length * magnitude <= INT32_LIMIT,
            f"{self.weight.length} inputs with codes up to {magnitude} do not fit 32 bits",
        )
        if self.bias is not None:
            self.require(
                self.bias.shape == (outputs,) and np.issubdtype(self.bias.dtype, np.signedinteger),
                f"needs a bias of {outputs} signed integers, got {self.bias.dtype} of shape {self.bias.shape}",
            )
        return product_sums(self.weight, x.interval.lowest, x.interval.highest, self.bias)

    @property
    def multiplications(self) -> int:
        """Products in each output element."""
        return self.weight.length

    def describe(self) -> str:
        bias = "" if self.bias is None else " + bias"
        return f"{self.weight.states.count} states {' x '.join(map(str, self.weight.shape))}{bias}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Conv(Weighted):
    """Cross-correlation in one or two dimensions, as in PyTorch and ONNX; padding is code 0.

    Args:
        weight: O x I/groups x kernel.
        stride, padding, dilation: One number per spatial dimension; padding on both sides.
        groups: Divides I and O.
    """

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1

    operation = "conv"

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        outputs, fan_in, *kernel = self.weight.shape
        self.require(len(kernel) in (1, 2), f"needs one or two spatial dimensions, got a weight of {self.weight.shape}")
        self.require(len(x.shape) == len(kernel) + 1, f"takes channels and {len(kernel)} dimensions, got {x.shape}")
        self.require(
            self.groups >= 1 and outputs % self.groups == 0 and x.shape[0] == fan_in * self.groups,
            f"{self.groups} groups of {fan_in} input channels and {outputs} outputs do not fit {x.shape[0]} channels",
        )
        space = window_shape(self, x.shape[1:], tuple(kernel), self.stride, self.padding, self.dilation)
        interval = self.accumulators(x)
        column = (outputs, *[1] * len(kernel))
        return TensorType(
            shape=(outputs, *space),
            exponent=x.exponent + self.exponent,
            interval=Interval(interval.low.reshape(column), interval.high.reshape(column)),
        )

    def describe(self) -> str:
        parts = [super().describe(), f"stride {self.stride}", f"padding {self.padding}"]
        if set(self.dilation) != {1}:
            parts.append(f"dilation {self.dilation}")
        if self.groups > 1:
            parts.append(f"{self.groups} groups")
        return ", ".join(parts)


@dataclass(frozen=True, kw_only=True, eq=False)
class Linear(Weighted):
    """A matrix on the last dimension: ... x I -> ... x O.

    Args:
        weight: O x I.
    """

    operation = "linear"

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        self.require(
            len(self.weight.shape) == 2 and x.shape[-1] == self.weight.shape[1],
            f"a weight of {self.weight.shape} does not fit {x.shape}; the last dimensions must agree",
        )
        interval = self.accumulators(x)
        row = (*[1] * (len(x.shape) - 1), -1)
        return TensorType(
            shape=(*x.shape[:-1], self.weight.shape[0]),
            exponent=x.exponent + self.exponent,
            interval=Interval(interval.low.reshape(row), interval.high.reshape(row)),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Activation(Node):
    """Normalization and quantizer in one: a monotone step function of the code, channel by channel.

    Args:
        axis: Dimension of the channels in one sample.
        states: Of the output.
        step_exponent: Neighbouring states differ by 2**step_exponent.
    """

    axis: int
    states: States
    step_exponent: int

    @abstractmethod
    def index(self, x: NDArray[np.integer], channel: slice = slice(None)) -> NDArray[np.integer]:
        """Index of the state, 0 .. M-1.

        Args:
            x: Codes, channels x ..., int32 or int64.
            channel: Which channels those are, if not all.
        """

    def codes(self, x: NDArray[np.integer], channel: slice = slice(None)) -> NDArray[np.integer]:
        """The output's codes; arguments as in `index`."""
        return self.index(x, channel) * self.states.spacing + self.states.low

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        self.require(0 <= self.axis < len(x.shape), f"axis {self.axis} is none of the dimensions of {x.shape}")
        self.check(x.shape[self.axis], x)
        grid = self.states.grid(self.step_exponent)
        return TensorType(
            shape=x.shape, exponent=grid.exponent, interval=Interval.of(grid.low, grid.high, len(x.shape))
        )

    @abstractmethod
    def check(self, channels: int, x: TensorType) -> None:
        """Raises GraphError unless the parameters fit so many channels and the input."""

    def describe(self) -> str:
        return f"{self.states.count} {'signed ' if self.states.signed else ''}states"


@dataclass(frozen=True, kw_only=True, eq=False)
class Thresholds(Activation):
    """index = #{k: signs[c] * x >= thresholds[k, c]}, code = low + spacing * index.

    Args:
        thresholds: Signed integers, (M-1) x C, ascending along the first dimension.
        signs: int8, C, each 1 or -1.
    """

    thresholds: NDArray[np.signedinteger]
    signs: NDArray[np.int8]

    operation = "thresholds"

    def index(self, x: NDArray[np.integer], channel: slice = slice(None)) -> NDArray[np.integer]:
        column = (-1, *[1] * (x.ndim - 1))
        signed = x * self.signs[channel].reshape(column).astype(x.dtype)
        count = np.zeros(x.shape, np.int16)
        for row in self.thresholds:
            count += signed >= row[channel].reshape(column)
        return count

    def check(self, channels: int, x: TensorType) -> None:
        expected = (self.states.count - 1, channels)
        self.require(
            self.thresholds.shape == expected and np.issubdtype(self.thresholds.dtype, np.signedinteger),
            f"needs signed integer thresholds of shape {expected}, got {self.thresholds.dtype} of shape "
            f"{self.thresholds.shape}",
        )
        self.require(bool((np.diff(self.thresholds.astype(np.int64), axis=0) >= 0).all()), "thresholds must ascend")
        self.require(
            self.signs.shape == (channels,) and self.signs.dtype == np.int8 and bool((abs(self.signs) == 1).all()),
            f"needs {channels} signs of 1 or -1 in int8",
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class FixedPoint(Activation):
    """index = clip(floor((A[c] * x + B[c]) / 2**shift), 0, M-1), code = low + spacing * index (arXiv 2008.13128).

    Args:
        multiplier: A, signed integers, C.
        offset: B, signed integers, C.
        shift: K, 0 .. 62.
    """

    multiplier: NDArray[np.signedinteger]
    offset: NDArray[np.signedinteger]
    shift: int

    operation = "fixed_point"

    def index(self, x: NDArray[np.integer], channel: slice = slice(None)) -> NDArray[np.integer]:
        column = (-1, *[1] * (x.ndim - 1))
        a, b = (value[channel].astype(np.int64).reshape(column) for value in (self.multiplier, self.offset))
        return np.clip((a * x + b) >> self.shift, 0, self.states.count - 1)  # >> rounds down, for negative numbers too

    def check(self, channels: int, x: TensorType) -> None:
        for what, values in (("multipliers A", self.multiplier), ("offsets B", self.offset)):
            self.require(
                values.shape == (channels,) and np.issubdtype(values.dtype, np.signedinteger),
                f"needs {channels} signed integer {what}, got {values.dtype} of shape {values.shape}",
            )
        self.require(0 <= self.shift <= 62, f"shift K must be in 0 .. 62, got {self.shift}")
        reach = self.reach(x)
        self.require(reach < 2**63, f"A * x + B can reach {reach}, which does not fit 64 bits")

    def reach(self, x: TensorType) -> int:
        """No |A * x + B| is larger."""
        largest = max(-x.interval.lowest, x.interval.highest)
        a, b = (max(-int(values.min()), int(values.max())) for values in (self.multiplier, self.offset))
        return a * largest + b

    def describe(self) -> str:
        return f"{super().describe()}, shift {self.shift}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Window(Node):
    """Pooling over windows.

    Args:
        kernel, stride, padding: One number per spatial dimension; padding on both sides.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]

    def output_shape(self, x: TensorType) -> tuple[int, ...]:
        """Channels and the number of windows."""
        self.require(len(self.kernel) in (1, 2), f"needs one or two spatial dimensions, got a kernel of {self.kernel}")
        self.require(
            len(x.shape) == len(self.kernel) + 1, f"takes channels and {len(self.kernel)} dimensions, got {x.shape}"
        )
        ones = (1,) * len(self.kernel)
        return (x.shape[0], *window_shape(self, x.shape[1:], self.kernel, self.stride, self.padding, ones))

    def describe(self) -> str:
        return f"kernel {self.kernel}, stride {self.stride}, padding {self.padding}"


@dataclass(frozen=True, kw_only=True, eq=False)
class MaxPool(Window):
    """Maxima over windows; padded positions never win."""

    operation = "max_pool"

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        shape = self.output_shape(x)
        self.require(
            all(2 * pad <= size for pad, size in zip(self.padding, self.kernel, strict=True)),
            f"padding {self.padding} must not exceed half the kernel {self.kernel}: windows would be empty",
        )
        return TensorType(shape=shape, exponent=x.exponent, interval=per_channel(x))


@dataclass(frozen=True, kw_only=True, eq=False)
class SumPool(Window):
    """Sums over windows, times 2**-shift: an average up to the power of two. Padded positions count as 0.

    Args:
        shift: Lowers the exponent; the codes are the plain sums.
    """

    shift: int

    operation = "sum_pool"

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        shape = self.output_shape(x)
        inside = per_channel(x)
        if any(self.padding):
            inside = Interval(np.minimum(inside.low, 0), np.maximum(inside.high, 0))
        positions = math.prod(self.kernel)
        return TensorType(
            shape=shape,
            exponent=x.exponent - self.shift,
            interval=Interval(inside.low * positions, inside.high * positions),
        )

    def describe(self) -> str:
        return f"{super().describe()}, times 2^-{self.shift}"


@dataclass(frozen=True, kw_only=True, eq=False)
class GlobalSum(Node):
    """Sums over all positions, times 2**-shift: C x ... -> C.

    Args:
        shift: Lowers the exponent; the codes are the plain sums.
    """

    shift: int

    operation = "global_sum"

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        self.require(len(x.shape) >= 2, f"takes channels and at least one more dimension, got {x.shape}")
        inside, positions = per_channel(x), math.prod(x.shape[1:])
        return TensorType(
            shape=x.shape[:1],
            exponent=x.exponent - self.shift,
            interval=Interval((inside.low * positions).reshape(-1), (inside.high * positions).reshape(-1)),
        )

    def describe(self) -> str:
        return f"times 2^-{self.shift}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Aligned(Node):
    """What takes several tensors, shifted left to one unit.

    Args:
        shifts: For each input, how far its codes are shifted left.
    """

    shifts: tuple[int, ...]

    arity = (2, 64)

    def align(self, inputs: Sequence[TensorType]) -> tuple[int, list[Interval]]:
        """The common exponent and the shifted bounds."""
        self.require(
            len(self.shifts) == len(inputs) and all(0 <= shift <= 31 for shift in self.shifts),
            f"needs a shift in 0 .. 31 for each of {len(inputs)} inputs, got {self.shifts}",
        )
        exponents = {x.exponent - shift for x, shift in zip(inputs, self.shifts, strict=True)}
        self.require(len(exponents) == 1, f"shifts {self.shifts} do not bring its inputs to one unit: {exponents}")
        intervals = [
            Interval(x.interval.low << shift, x.interval.high << shift)
            for x, shift in zip(inputs, self.shifts, strict=True)
        ]
        self.require(
            all(bounds.lowest >= -INT32_LIMIT and bounds.highest <= INT32_LIMIT for bounds in intervals),
            f"its inputs shifted by {self.shifts} do not fit 32 bits",
        )
        return exponents.pop(), intervals

    def describe(self) -> str:
        return f"shifts {self.shifts}" if any(self.shifts) else ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Add(Aligned):
    """Sum of tensors of one shape."""

    operation = "add"

    def infer(self, *inputs: TensorType) -> TensorType:
        exponent, intervals = self.align(inputs)
        shape = inputs[0].shape
        self.require(
            all(x.shape == shape for x in inputs), f"needs equal shapes, got {', '.join(str(x.shape) for x in inputs)}"
        )
        low, high = intervals[0].low, intervals[0].high
        for other in intervals[1:]:
            low, high = low + other.low, high + other.high
        return TensorType(shape=shape, exponent=exponent, interval=Interval(low, high))


@dataclass(frozen=True, kw_only=True, eq=False)
class Concat(Aligned):
    """Tensors side by side.

    Args:
        axis: The dimension of one sample along which they are put.
    """

    axis: int

    operation = "concat"

    def infer(self, *inputs: TensorType) -> TensorType:
        exponent, intervals = self.align(inputs)
        rank, axis = len(inputs[0].shape), self.axis
        self.require(0 <= axis < rank, f"axis {axis} is none of the dimensions of {inputs[0].shape}")
        rests = {(*x.shape[:axis], *x.shape[axis + 1 :]) for x in inputs}
        self.require(
            len(rests) == 1 and all(len(x.shape) == rank for x in inputs),
            f"needs equal shapes but for axis {axis}, got {', '.join(str(x.shape) for x in inputs)}",
        )
        # Bounds along the axis of concatenation only: other dimensions rarely have any, and it keeps them small.
        others = tuple(d for d in range(rank) if d != axis)
        lows, highs = [], []
        for x, bounds in zip(inputs, intervals, strict=True):
            size = tuple(x.shape[axis] if d == axis else 1 for d in range(rank))
            lows.append(np.broadcast_to(bounds.low.min(others, keepdims=True), size))
            highs.append(np.broadcast_to(bounds.high.max(others, keepdims=True), size))
        return TensorType(
            shape=tuple(sum(x.shape[axis] for x in inputs) if d == axis else s for d, s in enumerate(inputs[0].shape)),
            exponent=exponent,
            interval=Interval(np.concatenate(lows, axis), np.concatenate(highs, axis)),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Flatten(Node):
    """All elements of a sample in one dimension, the last index fastest."""

    operation = "flatten"

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        if x.interval.low.size == 1:
            interval = Interval.of(x.interval.lowest, x.interval.highest, 1)
        else:
            bounds = (x.interval.low, x.interval.high)
            interval = Interval(*(np.broadcast_to(bound, x.shape).reshape(-1) for bound in bounds))
        return TensorType(shape=(x.size,), exponent=x.exponent, interval=interval)


@dataclass(frozen=True, kw_only=True, eq=False)
class Logits(Node):
    """The result, unchanged, as int32: a score is code * 2**exponent.

    Args:
        labels: Names of the classes, or nothing.
    """

    labels: tuple[str, ...] = ()

    operation = "logits"

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        self.require(
            not self.labels or x.shape == (len(self.labels),),
            f"{len(self.labels)} labels do not fit an output of shape {x.shape}",
        )
        return x


NODES: tuple[type[Node], ...] = (
    Input, Conv, Linear, Thresholds, FixedPoint, MaxPool, SumPool, GlobalSum, Add, Concat, Flatten, Logits,
)  # fmt: skip
"""Every kind of node."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Graph:
    """A network of integers.

    Args:
        nodes: In an order in which they can be computed: one `Input` first, one `Logits` last.
    """

    nodes: tuple[Node, ...]

    @cached_property
    def types(self) -> dict[str, TensorType]:
        """The type of every tensor by the name of its node.

        Raises:
            GraphError: The graph is inconsistent, or an integer might not fit 32 bits.
        """
        found: dict[str, TensorType] = {}
        for place, node in enumerate(self.nodes):
            node.require(bool(node.name) and node.name not in found, "needs a name of its own")
            node.require((place == 0) == isinstance(node, Input), "an input must be the first node and the only input")
            last = place == len(self.nodes) - 1
            node.require(last == isinstance(node, Logits), "logits must be the last node, and the last node logits")
            fewest, most = node.arity
            node.require(fewest <= len(node.inputs) <= most, f"takes {fewest} to {most} inputs, got {len(node.inputs)}")
            for name in node.inputs:
                node.require(name in found, f"input {name!r} is no node before it")
            found[node.name] = _checked(node, node.infer(*(found[name] for name in node.inputs)))
        return found

    def validate(self) -> None:
        """Check everything: names, order, shapes, parameters, units, and that every integer fits.

        Raises:
            GraphError: The first thing that is wrong; the message names the node.
        """
        if not self.nodes:
            raise GraphError("a graph needs at least an input and logits, got no node")
        types = self.types
        used = {name for node in self.nodes for name in node.inputs} | {self.nodes[-1].name}
        for name in types:
            if name not in used:
                raise GraphError(f"node {name!r} is used by no other; remove it")

    @property
    def input(self) -> Input:
        """The first node."""
        first = self.nodes[0]
        if not isinstance(first, Input):
            raise GraphError(f"the first node must be an input, got {first.operation} node {first.name!r}")
        return first

    @property
    def logits(self) -> Logits:
        """The last node."""
        last = self.nodes[-1]
        if not isinstance(last, Logits):
            raise GraphError(f"the last node must be logits, got {last.operation} node {last.name!r}")
        return last

    def macs(self, name: str) -> int:
        """Multiplications and additions that a plain implementation of a node needs for one sample."""
        node = self[name]
        return node.multiplications * self.types[name].size if isinstance(node, Weighted) else 0

    def __getitem__(self, name: str) -> Node:
        """The node of that name."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    def __str__(self) -> str:
        """One line a node: name, type of the output, operation, inputs."""
        rows = [
            (node.name, str(self.types[node.name]), node.operation, ", ".join(node.inputs), node.describe())
            for node in self.nodes
        ]
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        return "\n".join(
            f"{name:<{widths[0]}}  {kind:<{widths[1]}}  {operation}({inputs})  {details}".rstrip()
            for name, kind, operation, inputs, details in rows
        )


def _checked(node: Node, kind: TensorType) -> TensorType:
    low, high = kind.interval.lowest, kind.interval.highest
    node.require(
        low >= -INT32_LIMIT and high <= INT32_LIMIT,
        f"its integers can reach {low} .. {high}, which does not fit 32 bits; use fewer states or a smaller fan-in",
    )
    node.require(kind.size <= MAX_ELEMENTS, f"a tensor of shape {kind.shape} has more than {MAX_ELEMENTS} elements")
    node.require(abs(kind.exponent) <= MAX_EXPONENT, f"exponent {kind.exponent} is not within +-{MAX_EXPONENT}")
    return kind


def per_channel(x: TensorType) -> Interval:
    """Bounds that hold at every position: one entry a channel, or one for all."""
    space = tuple(range(1, len(x.shape)))
    return Interval(x.interval.low.min(space, keepdims=True), x.interval.high.max(space, keepdims=True))


def channel_interval(kind: TensorType, axis: int) -> Interval:
    """Bounds of each channel of a tensor, one entry a channel."""
    others = tuple(d for d in range(len(kind.shape)) if d != axis)
    low, high = kind.interval.low.min(others), kind.interval.high.max(others)
    return Interval(*(np.broadcast_to(bound, (kind.shape[axis],)).copy() for bound in (low, high)))


def window_shape(
    node: Node,
    space: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
) -> tuple[int, ...]:
    """How many windows fit in each dimension.

    Raises:
        GraphError: An argument is out of range, or not even one window fits.
    """
    checks: list[tuple[str, tuple[int, ...], int]] = [
        ("kernel", kernel, 1), ("stride", stride, 1), ("padding", padding, 0), ("dilation", dilation, 1)
    ]  # fmt: skip
    for what, values, least in checks:
        node.require(
            len(values) == len(space) and all(least <= value <= MAX_WINDOW for value in values),
            f"needs {len(space)} numbers in {least} .. {MAX_WINDOW} for its {what}, got {values}",
        )
    sizes = []
    for size, k, s, p, d in zip(space, kernel, stride, padding, dilation, strict=True):
        room = size + 2 * p - d * (k - 1) - 1
        node.require(room >= 0, f"a window of {kernel} dilated by {dilation} does not fit {space} padded by {padding}")
        sizes.append(room // s + 1)
    return tuple(sizes)
