"""What all kinds of nodes share."""

import enum
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from maqd.errors import GraphError
from maqd.graph.types import TensorType
from maqd.numerics.limits import MAX_WINDOW

Codes = NDArray[np.int64]
"""Codes of N samples, N x the tensor's shape."""


class Stored(enum.Enum):
    """How a field of a node is stored in a file."""

    INTEGER = enum.auto()
    INTEGERS = enum.auto()
    TEXT = enum.auto()
    GRID = enum.auto()
    STORAGE = enum.auto()
    BORDER = enum.auto()
    """Shift and axis in the description, multipliers and offsets as tensors; or nothing."""
    STATES = enum.auto()
    WEIGHT = enum.auto()
    """Packed codes: states and shape in the description, bytes as a tensor."""
    ARRAY = enum.auto()
    """A tensor of signed integers."""
    OPTIONAL_ARRAY = enum.auto()
    """The same, or nothing."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Node(ABC):
    """An operation of the graph.

    Args:
        name: Its name and that of its output.
        inputs: Names of the nodes whose outputs it takes.
    """

    name: str
    inputs: tuple[str, ...]

    operation: ClassVar[str]
    """Name of the kind of node, in files and in text."""
    arity: ClassVar[tuple[int, int]] = (1, 1)
    """Fewest and most inputs."""
    stored: ClassVar[dict[str, Stored]] = {}
    """The fields of the kind, as a file has them, beside name, inputs and output type."""

    @abstractmethod
    def infer(self, *inputs: TensorType) -> TensorType:
        """The type of the output.

        Raises:
            GraphError: The node is inconsistent in itself or with its inputs.
        """

    @abstractmethod
    def compute(self, *inputs: Codes) -> Codes:
        """The output for N samples: clear rather than fast, the oracle that every engine is compared with."""

    def describe(self) -> str:
        """What the node does beyond its operation, in words."""
        return ""

    def require(self, condition: bool, message: str) -> None:
        """Raises GraphError with the node's name unless the condition holds."""
        if not condition:
            raise GraphError(f"{self.operation} node {self.name!r}: {message}")


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Windows over the spatial dimensions of a tensor; every tuple has one entry a dimension.

    Args:
        kernel: Positions of a window.
        stride: From window to window.
        padding: Positions that are added in front.
        trailing: Positions that are added at the end.
        dilation: From position to position of a window.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    trailing: tuple[int, ...]
    dilation: tuple[int, ...]

    def shape(self, node: Node, x: TensorType) -> tuple[int, ...]:
        """How many windows fit in each dimension of the node's input.

        Raises:
            GraphError: An argument is out of range, or not even one window fits.
        """
        rank = len(self.kernel)
        node.require(1 <= rank <= 3, f"needs one to three spatial dimensions, got a kernel of {self.kernel}")
        node.require(len(x.shape) == rank + 1, f"takes channels and {rank} dimensions, got {x.shape}")
        checks: list[tuple[str, tuple[int, ...], int]] = [
            ("kernel", self.kernel, 1), ("stride", self.stride, 1), ("padding", self.padding, 0),
            ("padding at the end", self.trailing, 0), ("dilation", self.dilation, 1),
        ]  # fmt: skip
        for what, values, least in checks:
            node.require(
                len(values) == rank and all(least <= value <= MAX_WINDOW for value in values),
                f"needs {rank} numbers in {least} .. {MAX_WINDOW} for its {what}, got {values}",
            )
        sizes = []
        for size, k, s, p, t, d in zip(
            x.shape[1:], self.kernel, self.stride, self.padding, self.trailing, self.dilation, strict=True
        ):
            room = size + p + t - d * (k - 1) - 1
            node.require(
                room >= 0,
                f"a window of {self.kernel} dilated by {self.dilation} does not fit {x.shape[1:]} padded by "
                f"{self.padding} and {self.trailing}",
            )
            sizes.append(room // s + 1)
        return tuple(sizes)

    def views(self, x: Codes, fill: int) -> Iterator[tuple[tuple[int, ...], Codes]]:
        """For each position of the kernel, what all windows have there: N x C x windows.

        Args:
            x: N x C x space.
            fill: The code of padded positions.
        """
        pads = [(0, 0), (0, 0), *zip(self.padding, self.trailing, strict=True)]
        padded = np.pad(x, pads, constant_values=fill)
        geometry = list(zip(padded.shape[2:], self.kernel, self.stride, self.dilation, strict=True))
        space = [(size - d * (k - 1) - 1) // s + 1 for size, k, s, d in geometry]
        for place in np.ndindex(*self.kernel):
            reach = [
                slice(at * d, at * d + (n - 1) * s + 1, s)
                for at, n, (_, _, s, d) in zip(place, space, geometry, strict=True)
            ]
            yield place, padded[:, :, *reach]

    def describe(self) -> str:
        """Stride and padding, and what is not usual of the rest."""
        parts = [f"stride {self.stride}", f"padding {self.padding}"]
        if self.trailing != self.padding:
            parts.append(f"{self.trailing} at the end")
        if set(self.dilation) != {1}:
            parts.append(f"dilation {self.dilation}")
        return ", ".join(parts)
