"""What is known of a tensor without running the network."""

import math
from dataclasses import dataclass

import numpy as np

from maqd.numerics.bounds import Interval, narrowest
from maqd.numerics.states import Grid


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


def per_channel(x: TensorType) -> Interval:
    """Bounds that hold at every position: one entry a channel, or one for all."""
    space = tuple(range(1, len(x.shape)))
    return Interval(x.interval.low.min(space, keepdims=True), x.interval.high.max(space, keepdims=True))


def channel_interval(kind: TensorType, axis: int) -> Interval:
    """Bounds of each channel of a tensor, one entry a channel."""
    others = tuple(d for d in range(len(kind.shape)) if d != axis)
    low, high = kind.interval.low.min(others), kind.interval.high.max(others)
    return Interval(*(np.broadcast_to(bound, (kind.shape[axis],)).copy() for bound in (low, high)))
