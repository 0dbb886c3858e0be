"""Maxima and sums over windows."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from maqd.graph.nodes.base import Codes, Geometry, Node, Stored
from maqd.graph.types import TensorType, per_channel
from maqd.numerics.bounds import Interval
from maqd.numerics.limits import MAX_WINDOW


@dataclass(frozen=True, kw_only=True, eq=False)
class Window(Node):
    """Pooling over windows of one to three dimensions.

    Args:
        kernel, stride: One number per spatial dimension.
        padding: Positions in front of each dimension.
        trailing: Positions at the end of each dimension; () if they are as many as in front.
        dilation: From position to position of a window; () for 1.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    trailing: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()

    stored: ClassVar[dict[str, Stored]] = dict.fromkeys(
        ("kernel", "stride", "padding", "trailing", "dilation"), Stored.INTEGERS
    )

    @property
    def geometry(self) -> Geometry:
        """The windows."""
        return Geometry(
            kernel=self.kernel,
            stride=self.stride,
            padding=self.padding,
            trailing=self.trailing or self.padding,
            dilation=self.dilation or (1,) * len(self.kernel),
        )

    def describe(self) -> str:
        return f"kernel {self.kernel}, {self.geometry.describe()}"


@dataclass(frozen=True, kw_only=True, eq=False)
class MaxPool(Window):
    """Maxima over windows; padded positions never win."""

    operation = "max_pool"

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        shape = self.geometry.shape(self, x)
        self.require(
            all(
                self._filled(axis, size, count)
                for axis, (size, count) in enumerate(zip(x.shape[1:], shape, strict=True))
            ),
            f"padding {self.padding} and {self.geometry.trailing} must leave a position of the input in every window",
        )
        return TensorType(shape=(x.shape[0], *shape), exponent=x.exponent, interval=per_channel(x))

    def _filled(self, axis: int, size: int, count: int) -> bool:
        """Whether each of `count` windows along a dimension has a position of the input."""
        g = self.geometry
        # Only windows that reach into the padding, near both ends, can have none.
        ends = {*range(min(count, MAX_WINDOW + 1)), *range(max(count - 2 * MAX_WINDOW, 0), count)}
        begin = np.array(sorted(ends)) * g.stride[axis] - g.padding[axis]
        first = -(np.minimum(begin, 0) // g.dilation[axis])  # the first position of each window that is not in front
        return bool(((first < g.kernel[axis]) & (begin + first * g.dilation[axis] < size)).all())

    def compute(self, *inputs: Codes) -> Codes:
        views = [view for _, view in self.geometry.views(inputs[0], np.iinfo(np.int64).min)]
        return np.maximum.reduce(views)


@dataclass(frozen=True, kw_only=True, eq=False)
class SumPool(Window):
    """Sums over windows, times 2**-shift: an average up to the power of two. Padded positions count as 0.

    Args:
        shift: Lowers the exponent; the codes are the plain sums.
    """

    shift: int

    operation = "sum_pool"
    stored: ClassVar[dict[str, Stored]] = {**Window.stored, "shift": Stored.INTEGER}

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        shape = self.geometry.shape(self, x)
        inside = per_channel(x)
        if any(self.geometry.padding) or any(self.geometry.trailing):
            inside = Interval(np.minimum(inside.low, 0), np.maximum(inside.high, 0))
        positions = math.prod(self.kernel)
        return TensorType(
            shape=(x.shape[0], *shape),
            exponent=x.exponent - self.shift,
            interval=Interval(inside.low * positions, inside.high * positions),
        )

    def compute(self, *inputs: Codes) -> Codes:
        return sum((view for _, view in self.geometry.views(inputs[0], 0)), np.zeros((), np.int64))

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
    stored: ClassVar[dict[str, Stored]] = {"shift": Stored.INTEGER}

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        self.require(len(x.shape) >= 2, f"takes channels and at least one more dimension, got {x.shape}")
        inside, positions = per_channel(x), math.prod(x.shape[1:])
        return TensorType(
            shape=x.shape[:1],
            exponent=x.exponent - self.shift,
            interval=Interval((inside.low * positions).reshape(-1), (inside.high * positions).reshape(-1)),
        )

    def compute(self, *inputs: Codes) -> Codes:
        return inputs[0].sum(tuple(range(2, inputs[0].ndim)))

    def describe(self) -> str:
        return f"times 2^-{self.shift}"
