"""Where a graph begins and ends."""

from dataclasses import dataclass

from maqd.graph.nodes.base import Node
from maqd.graph.types import TensorType
from maqd.numerics.bounds import Interval
from maqd.numerics.states import PIXELS


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
