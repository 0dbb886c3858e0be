"""Several tensors in one: sums and concatenations."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from maqd.graph.nodes.base import Node
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
        if math.prod(np.broadcast_shapes(*(bounds.low.shape for bounds in intervals))) > MAX_BOUNDS:
            intervals = [bounds.whole for bounds in intervals]
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
