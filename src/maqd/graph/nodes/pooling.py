"""Maxima and sums over windows."""

import math
from dataclasses import dataclass

import numpy as np

from maqd.graph.nodes.base import Node, window_shape
from maqd.graph.types import TensorType, per_channel
from maqd.numerics.bounds import Interval


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
