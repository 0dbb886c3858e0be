"""The same codes in another shape, order or place."""

from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from maqd.graph.nodes.base import Codes, Node, Stored
from maqd.graph.types import TensorType
from maqd.numerics.bounds import Interval, compact
from maqd.numerics.limits import INT32_LIMIT, MAX_BOUNDS


@dataclass(frozen=True, kw_only=True, eq=False)
class Flatten(Node):
    """All elements of a sample in one dimension, the last index fastest."""

    operation = "flatten"

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        return TensorType(shape=(x.size,), exponent=x.exponent, interval=_reshaped(x, (x.size,)))

    def compute(self, *inputs: Codes) -> Codes:
        (x,) = inputs
        return x.reshape(len(x), prod(x.shape[1:]))


@dataclass(frozen=True, kw_only=True, eq=False)
class Reshape(Node):
    """All elements of a sample in another shape, the last index fastest.

    Args:
        shape: Of a sample afterwards.
    """

    shape: tuple[int, ...]

    operation = "reshape"
    stored: ClassVar[dict[str, Stored]] = {"shape": Stored.INTEGERS}

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        self.require(
            len(self.shape) >= 1 and min(self.shape) >= 1 and prod(self.shape) == x.size,
            f"a shape of {self.shape} does not hold the {x.size} elements of {x.shape}",
        )
        return TensorType(shape=self.shape, exponent=x.exponent, interval=_reshaped(x, self.shape))

    def compute(self, *inputs: Codes) -> Codes:
        (x,) = inputs
        return x.reshape(len(x), *self.shape)

    def describe(self) -> str:
        return f"to {self.shape}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Permute(Node):
    """The dimensions of a sample in another order.

    Args:
        order: For each dimension of the output, which one of the input it is.
    """

    order: tuple[int, ...]

    operation = "permute"
    stored: ClassVar[dict[str, Stored]] = {"order": Stored.INTEGERS}

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        self.require(
            sorted(self.order) == list(range(len(x.shape))),
            f"order {self.order} does not name each of the dimensions of {x.shape} once",
        )
        bounds = (x.interval.low, x.interval.high)
        return TensorType(
            shape=tuple(x.shape[d] for d in self.order),
            exponent=x.exponent,
            interval=Interval(*(bound.transpose(self.order) for bound in bounds)),
        )

    def compute(self, *inputs: Codes) -> Codes:
        return inputs[0].transpose(0, *(d + 1 for d in self.order))

    def describe(self) -> str:
        return f"to the order {self.order}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Gather(Node):
    """Elements along one dimension by their indices, or a constant code.

    Slices, padding, upsampling to the nearest neighbour, shuffled channels and the zeros that a transposed convolution
    puts between its inputs are all of this kind.

    Args:
        axis: The dimension of a sample.
        indices: Signed integers, one an element of the output along the dimension; -1 stands for `fill`.
        fill: A code.
    """

    axis: int
    indices: NDArray[np.signedinteger]
    fill: int = 0

    operation = "gather"
    stored: ClassVar[dict[str, Stored]] = {"axis": Stored.INTEGER, "indices": Stored.ARRAY, "fill": Stored.INTEGER}

    @property
    def filled(self) -> bool:
        """Whether any element is the constant code."""
        return bool((self.indices < 0).any())

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        axis, size = self.axis, len(self.indices)
        self.require(0 <= axis < len(x.shape), f"axis {axis} is none of the dimensions of {x.shape}")
        self.require(
            self.indices.ndim == 1
            and size >= 1
            and np.issubdtype(self.indices.dtype, np.signedinteger)
            and int(self.indices.min()) >= -1
            and int(self.indices.max()) < x.shape[axis],
            f"needs a list of indices in -1 .. {x.shape[axis] - 1}, got {self.indices.dtype} of shape "
            f"{self.indices.shape}",
        )
        self.require(abs(self.fill) <= INT32_LIMIT, f"code {self.fill} does not fit 32 bits")
        shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
        return TensorType(shape=shape, exponent=x.exponent, interval=self._bounds(x))

    def _bounds(self, x: TensorType) -> Interval:
        bounds, axis = (x.interval.low, x.interval.high), self.axis
        if bounds[0].shape[axis] == 1 and not self.filled:
            return x.interval
        if bounds[0].size * x.shape[axis] > MAX_BOUNDS or bounds[0].size * len(self.indices) > MAX_BOUNDS:
            ends = (self.fill,) if self.filled else ()
            return Interval.of(min(x.interval.lowest, *ends), max(x.interval.highest, *ends), len(x.shape))
        wide = tuple(x.shape[axis] if d == axis else n for d, n in enumerate(bounds[0].shape))
        return compact(*(self.compute(np.broadcast_to(bound, wide)[None])[0] for bound in bounds))

    def compute(self, *inputs: Codes) -> Codes:
        axis = self.axis + 1
        taken = inputs[0].take(np.maximum(self.indices, 0), axis)
        column = (-1, *[1] * (taken.ndim - axis - 1))
        return np.where(self.indices.reshape(column) < 0, np.int64(self.fill), taken)

    def describe(self) -> str:
        fill = f", {np.count_nonzero(self.indices < 0)} of them code {self.fill}" if self.filled else ""
        return f"{len(self.indices)} elements of dimension {self.axis}{fill}"


def _reshaped(x: TensorType, shape: tuple[int, ...]) -> Interval:
    if x.interval.low.size == 1 or x.size > MAX_BOUNDS:
        return Interval.of(x.interval.lowest, x.interval.highest, len(shape))
    low, high = (np.broadcast_to(bound, x.shape).reshape(shape) for bound in (x.interval.low, x.interval.high))
    return compact(low, high)
