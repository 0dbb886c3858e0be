"""Normalization and quantizer in one: monotone step functions."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from maqd.graph.nodes.base import Codes, Node, Stored
from maqd.graph.types import TensorType
from maqd.numerics.bounds import Interval, magnitude
from maqd.numerics.fixedpoint import FixedAffine, affine_thresholds, clip_thresholds, fixed_point_affine
from maqd.numerics.states import FEW_STATES, States

_COMMON = {"axis": Stored.INTEGER, "states": Stored.STATES, "step_exponent": Stored.INTEGER}


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

    @abstractmethod
    def cuts(self, interval: Interval) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
        """The same function as thresholds.

        Args:
            interval: Bounds of the input, one entry a channel.

        Returns:
            Thresholds, (M-1) x C, between the smallest value of signs * x and one more than the largest, and signs, C.
        """

    @abstractmethod
    def affine(self, interval: Interval) -> FixedAffine | None:
        """The same function as a fixed-point map; None if no map equals it. Arguments as in `cuts`."""

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        self.require(0 <= self.axis < len(x.shape), f"axis {self.axis} is none of the dimensions of {x.shape}")
        self.check(x.shape[self.axis], x)
        grid = self.states.grid(self.step_exponent)
        return TensorType(
            shape=x.shape, exponent=grid.exponent, interval=Interval.of(grid.low, grid.high, len(x.shape))
        )

    def compute(self, *inputs: Codes) -> Codes:
        channels_first = np.moveaxis(inputs[0], self.axis + 1, 0)
        return np.moveaxis(self.codes(channels_first), 0, self.axis + 1).astype(np.int64)

    @abstractmethod
    def check(self, channels: int, x: TensorType) -> None:
        """Raises GraphError unless the parameters fit the channels and the input."""

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
    stored: ClassVar[dict[str, Stored]] = {**_COMMON, "thresholds": Stored.ARRAY, "signs": Stored.ARRAY}

    def index(self, x: NDArray[np.integer], channel: slice = slice(None)) -> NDArray[np.integer]:
        column = (-1, *[1] * (x.ndim - 1))
        signed = x * self.signs[channel].reshape(column).astype(x.dtype)
        count = np.zeros(x.shape, np.int16)
        for row in self.thresholds:
            count += signed >= row[channel].reshape(column)
        return count

    def cuts(self, interval: Interval) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
        return clip_thresholds(self.thresholds, self.signs, interval.low, interval.high), self.signs

    def affine(self, interval: Interval) -> FixedAffine | None:
        return fixed_point_affine(self.thresholds, self.signs, interval.low, interval.high)

    def check(self, channels: int, x: TensorType) -> None:
        self.require(
            self.states.few, f"has at most {FEW_STATES} states, got {self.states.count}; use a fixed-point map"
        )
        expected = (self.states.count - 1, channels)
        self.require(
            self.thresholds.shape == expected and np.issubdtype(self.thresholds.dtype, np.signedinteger),
            f"needs signed integer thresholds of shape {expected}, got {self.thresholds.dtype} of shape "
            f"{self.thresholds.shape}",
        )
        self.require(bool((self.thresholds[1:] >= self.thresholds[:-1]).all()), "thresholds must ascend")
        self.require(
            self.signs.shape == (channels,) and self.signs.dtype == np.int8 and bool((abs(self.signs) == 1).all()),
            f"needs {channels} signs of 1 or -1 in int8",
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class FixedPoint(Activation):
    """index = clip(floor((A[c] * x + B[c]) / 2**shift), 0, M-1), code = low + spacing * index (arXiv 2008.13128).

    M may be up to 65,536: what is stored are then 16-bit codes.

    Args:
        multiplier: A, signed integers, C.
        offset: B, signed integers, C.
        shift: K, 0 .. 62.
    """

    multiplier: NDArray[np.signedinteger]
    offset: NDArray[np.signedinteger]
    shift: int

    operation = "fixed_point"
    stored: ClassVar[dict[str, Stored]] = {
        **_COMMON,
        "multiplier": Stored.ARRAY,
        "offset": Stored.ARRAY,
        "shift": Stored.INTEGER,
    }

    def index(self, x: NDArray[np.integer], channel: slice = slice(None)) -> NDArray[np.integer]:
        column = (-1, *[1] * (x.ndim - 1))
        a, b = (value[channel].astype(np.int64).reshape(column) for value in (self.multiplier, self.offset))
        return np.clip((a * x + b) >> self.shift, 0, self.states.count - 1)  # >> rounds down, for negative numbers too

    def cuts(self, interval: Interval) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
        return affine_thresholds(self.affine(interval), self.states.count, interval.low, interval.high)

    def affine(self, interval: Interval) -> FixedAffine:
        """The map itself, whatever the bounds."""
        a, b = self.multiplier.astype(np.int64), self.offset.astype(np.int64)
        return FixedAffine(multiplier=a, offset=b, shift=self.shift)

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
        largest = x.interval.magnitude
        return magnitude(self.multiplier) * largest + magnitude(self.offset)

    def describe(self) -> str:
        return f"{super().describe()}, shift {self.shift}"
