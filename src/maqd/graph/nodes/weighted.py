"""Sums of weights times inputs: convolutions and linear maps."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maqd.graph.nodes.base import Node, window_shape
from maqd.graph.types import TensorType
from maqd.numerics.bounds import Interval, product_sums
from maqd.numerics.limits import INT32_LIMIT
from maqd.numerics.packing import PackedCodes


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
