"""Several tensors in one: sums, products and concatenations."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from maqd.graph.nodes.base import Codes, Node, Stored
from maqd.graph.types import TensorType
from maqd.numerics.bounds import Interval
from maqd.numerics.limits import INT32_LIMIT, MAX_BOUNDS


@dataclass(frozen=True, kw_only=True, eq=False)
class Aligned(Node):
    """What takes several tensors, shifted left to one unit.

    Args:
        shifts: For each input, how far its codes are shifted left.
    """

    shifts: tuple[int, ...]

    arity = (2, 64)
    stored: ClassVar[dict[str, Stored]] = {"shifts": Stored.INTEGERS}

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

    def aligned(self, inputs: Sequence[Codes]) -> list[Codes]:
        """The shifted codes."""
        return [x << shift for x, shift in zip(inputs, self.shifts, strict=True)]

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
        if math.prod(np.broadcast_shapes(*(bounds.low.shape for bounds in intervals))) > MAX_BOUNDS:
            intervals = [bounds.whole for bounds in intervals]
        low, high = intervals[0].low, intervals[0].high
        for other in intervals[1:]:
            low, high = low + other.low, high + other.high
        return TensorType(shape=shape, exponent=exponent, interval=Interval(low, high))

    def compute(self, *inputs: Codes) -> Codes:
        return sum(self.aligned(inputs), np.zeros((), np.int64))


@dataclass(frozen=True, kw_only=True, eq=False)
class Concat(Aligned):
    """Tensors side by side.

    Args:
        axis: The dimension of one sample along which they are put.
    """

    axis: int

    operation = "concat"
    stored: ClassVar[dict[str, Stored]] = {**Aligned.stored, "axis": Stored.INTEGER}

    def infer(self, *inputs: TensorType) -> TensorType:
        exponent, intervals = self.align(inputs)
        rank, axis = len(inputs[0].shape), self.axis
        self.require(0 <= axis < rank, f"axis {axis} is none of the dimensions of {inputs[0].shape}")
        rests = {(*x.shape[:axis], *x.shape[axis + 1 :]) for x in inputs}
        self.require(
            len(rests) == 1 and all(len(x.shape) == rank for x in inputs),
            f"needs equal shapes but for axis {axis}, got {', '.join(str(x.shape) for x in inputs)}",
        )
        total = sum(x.shape[axis] for x in inputs)
        # Bounds along the axis of concatenation only: other dimensions rarely have any, and it keeps them few.
        others = tuple(d for d in range(rank) if d != axis) if total <= MAX_BOUNDS else tuple(range(rank))
        lows, highs = [], []
        for x, bounds in zip(inputs, intervals, strict=True):
            size = tuple(1 if d in others else s for d, s in enumerate(x.shape))
            lows.append(np.broadcast_to(bounds.low.min(others, keepdims=True), size))
            highs.append(np.broadcast_to(bounds.high.max(others, keepdims=True), size))
        interval = Interval(np.concatenate(lows, axis), np.concatenate(highs, axis))
        return TensorType(
            shape=tuple(total if d == axis else s for d, s in enumerate(inputs[0].shape)),
            exponent=exponent,
            interval=interval if total <= MAX_BOUNDS else interval.whole,
        )

    def compute(self, *inputs: Codes) -> Codes:
        return np.concatenate(self.aligned(inputs), self.axis + 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Multiply(Node):
    """Product of two tensors, element by element; a dimension of size 1 is repeated: a gate for each channel."""

    operation = "multiply"
    arity = (2, 2)

    def infer(self, *inputs: TensorType) -> TensorType:
        a, b = inputs
        self.require(
            len(a.shape) == len(b.shape) and all(m == n or 1 in (m, n) for m, n in zip(a.shape, b.shape, strict=True)),
            f"needs shapes that are equal where neither is 1, got {a.shape} and {b.shape}",
        )
        first, second = a.interval, b.interval
        if math.prod(np.broadcast_shapes(first.low.shape, second.low.shape)) > MAX_BOUNDS:
            first, second = first.whole, second.whole
        ends = [x * y for x in (first.low, first.high) for y in (second.low, second.high)]
        return TensorType(
            shape=tuple(max(m, n) for m, n in zip(a.shape, b.shape, strict=True)),
            exponent=a.exponent + b.exponent,
            interval=Interval(np.minimum.reduce(ends), np.maximum.reduce(ends)),
        )

    def compute(self, *inputs: Codes) -> Codes:
        return inputs[0] * inputs[1]
