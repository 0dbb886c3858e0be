"""What all kinds of nodes share."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from maqd.errors import GraphError
from maqd.graph.types import TensorType
from maqd.numerics.limits import MAX_WINDOW


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

    @abstractmethod
    def infer(self, *inputs: TensorType) -> TensorType:
        """The type of the output.

        Raises:
            GraphError: The node is inconsistent in itself or with its inputs.
        """

    def describe(self) -> str:
        """What the node does beyond its operation, for people."""
        return ""

    def require(self, condition: bool, message: str) -> None:
        """Raises GraphError with the node's name unless the condition holds."""
        if not condition:
            raise GraphError(f"{self.operation} node {self.name!r}: {message}")


def window_shape(
    node: Node,
    space: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
) -> tuple[int, ...]:
    """How many windows fit in each dimension.

    Raises:
        GraphError: An argument is out of range, or not even one window fits.
    """
    checks: list[tuple[str, tuple[int, ...], int]] = [
        ("kernel", kernel, 1), ("stride", stride, 1), ("padding", padding, 0), ("dilation", dilation, 1)
    ]  # fmt: skip
    for what, values, least in checks:
        node.require(
            len(values) == len(space) and all(least <= value <= MAX_WINDOW for value in values),
            f"needs {len(space)} numbers in {least} .. {MAX_WINDOW} for its {what}, got {values}",
        )
    sizes = []
    for size, k, s, p, d in zip(space, kernel, stride, padding, dilation, strict=True):
        room = size + 2 * p - d * (k - 1) - 1
        node.require(room >= 0, f"a window of {kernel} dilated by {dilation} does not fit {space} padded by {padding}")
        sizes.append(room // s + 1)
    return tuple(sizes)
