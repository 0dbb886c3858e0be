"""Sums of weights times inputs: convolutions and linear maps."""

from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from maqd.graph.nodes.base import Codes, Geometry, Node, Stored
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

    stored: ClassVar[dict[str, Stored]] = {
        "weight": Stored.WEIGHT,
        "exponent": Stored.INTEGER,
        "bias": Stored.OPTIONAL_ARRAY,
    }

    def accumulators(self, x: TensorType) -> Interval:
        """Bounds of the output, one entry a channel."""
        outputs, magnitude = self.weight.shape[0], self.weight.states.magnitude
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

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The codes of the weight for exact products.

        Matrices of float64 multiply many times faster than int64 ones. Products and sums here are integers below 2**32,
        and float64 holds those up to 2**53: the results are exact in any order.
        """
        return self.weight.unpack().astype(np.float64)

    def biased(self, sums: NDArray[np.float64]) -> Codes:
        """Sums of products, N x O x ..., as integers with the bias."""
        exact = sums.astype(np.int64)
        return exact if self.bias is None else exact + self.bias.astype(np.int64).reshape(-1, *[1] * (sums.ndim - 2))

    def describe(self) -> str:
        bias = "" if self.bias is None else " + bias"
        return f"{self.weight.states.count} states {' x '.join(map(str, self.weight.shape))}{bias}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Conv(Weighted):
    """Cross-correlation in one to three dimensions, as in PyTorch and ONNX; padding is code 0.

    Args:
        weight: O x I/groups x kernel.
        stride, dilation: One number per spatial dimension.
        padding: Positions in front of each dimension.
        groups: Divides I and O.
        trailing: Positions at the end of each dimension; () if they are as many as in front.
    """

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1
    trailing: tuple[int, ...] = ()

    operation = "conv"
    stored: ClassVar[dict[str, Stored]] = {
        **Weighted.stored,
        **dict.fromkeys(("stride", "padding", "trailing", "dilation"), Stored.INTEGERS),
        "groups": Stored.INTEGER,
    }

    @property
    def geometry(self) -> Geometry:
        """The windows."""
        return Geometry(
            kernel=self.weight.shape[2:],
            stride=self.stride,
            padding=self.padding,
            trailing=self.trailing or self.padding,
            dilation=self.dilation,
        )

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        outputs, fan_in, *kernel = self.weight.shape
        space = self.geometry.shape(self, x)
        self.require(
            self.groups >= 1 and outputs % self.groups == 0 and x.shape[0] == fan_in * self.groups,
            f"{self.groups} groups of {fan_in} input channels and {outputs} outputs do not fit {x.shape[0]} channels",
        )
        interval = self.accumulators(x)
        column = (outputs, *[1] * len(kernel))
        return TensorType(
            shape=(outputs, *space),
            exponent=x.exponent + self.exponent,
            interval=Interval(interval.low.reshape(column), interval.high.reshape(column)),
        )

    def compute(self, *inputs: Codes) -> Codes:
        """One matrix product for each position of the kernel."""
        (x,) = inputs
        outputs, fan_in = self.weight.shape[:2]
        weight = self.matrix.reshape(self.groups, outputs // self.groups, fan_in, *self.geometry.kernel)
        sums, space = np.zeros(()), ()
        for place, view in self.geometry.views(x, 0):
            space = view.shape[2:]
            seen = view.astype(np.float64).reshape(len(x), self.groups, fan_in, prod(space))
            sums = sums + weight[:, :, :, *place] @ seen
        return self.biased(sums.reshape(len(x), outputs, *space))

    def describe(self) -> str:
        parts = [super().describe(), self.geometry.describe()]
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

    def compute(self, *inputs: Codes) -> Codes:
        # The last dimension, wherever it is, has the bias.
        sums = self.biased((inputs[0] @ self.matrix.T).reshape(-1, self.weight.shape[0]))
        return sums.reshape(*inputs[0].shape[:-1], self.weight.shape[0])
