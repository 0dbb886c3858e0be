"""The same codes in another shape or order."""

from dataclasses import dataclass

import numpy as np

from maqd.graph.nodes.base import Node
from maqd.graph.types import TensorType
from maqd.numerics.bounds import Interval
from maqd.numerics.limits import MAX_BOUNDS


@dataclass(frozen=True, kw_only=True, eq=False)
class Flatten(Node):
    """All elements of a sample in one dimension, the last index fastest."""

    operation = "flatten"

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        if x.interval.low.size == 1 or x.size > MAX_BOUNDS:
            interval = Interval.of(x.interval.lowest, x.interval.highest, 1)
        else:
            bounds = (x.interval.low, x.interval.high)
            interval = Interval(*(np.broadcast_to(bound, x.shape).reshape(-1) for bound in bounds))
        return TensorType(shape=(x.size,), exponent=x.exponent, interval=interval)
