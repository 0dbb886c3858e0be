"""The integer graph: what a lowered network computes, node by node, in integers alone.

A tensor is an array of integers, its *codes*; code 1 stands for 2**exponent. Shapes are those of one sample, channels
first, without the batch. Every node has one output, which carries the node's name. docs/numerics.md has the formulas.
"""

from dataclasses import dataclass
from functools import cached_property

from maqd.errors import GraphError
from maqd.graph.nodes import Input, Logits, Node, Weighted
from maqd.graph.types import TensorType
from maqd.numerics.limits import INT32_LIMIT, MAX_ELEMENTS, MAX_EXPONENT


@dataclass(frozen=True, kw_only=True, eq=False)
class Graph:
    """A network of integers.

    Args:
        nodes: In an order in which they can be computed: one `Input` first, one `Logits` last.
    """

    nodes: tuple[Node, ...]

    @cached_property
    def types(self) -> dict[str, TensorType]:
        """The type of every tensor by the name of its node.

        Raises:
            GraphError: The graph is inconsistent, or an integer might not fit 32 bits.
        """
        found: dict[str, TensorType] = {}
        for place, node in enumerate(self.nodes):
            node.require(bool(node.name) and node.name not in found, "needs a name of its own")
            node.require((place == 0) == isinstance(node, Input), "an input must be the first node and the only input")
            last = place == len(self.nodes) - 1
            node.require(last == isinstance(node, Logits), "logits must be the last node, and the last node logits")
            fewest, most = node.arity
            node.require(fewest <= len(node.inputs) <= most, f"takes {fewest} to {most} inputs, got {len(node.inputs)}")
            for name in node.inputs:
                node.require(name in found, f"input {name!r} is no node before it")
            found[node.name] = _checked(node, node.infer(*(found[name] for name in node.inputs)))
        return found

    def validate(self) -> None:
        """Check everything: names, order, shapes, parameters, units, and that every integer fits.

        Raises:
            GraphError: The first thing that is wrong; the message names the node.
        """
        if not self.nodes:
            raise GraphError("a graph needs at least an input and logits, got no node")
        types = self.types
        used = {name for node in self.nodes for name in node.inputs} | {self.nodes[-1].name}
        for name in types:
            if name not in used:
                raise GraphError(f"node {name!r} is used by no other; remove it")

    @property
    def input(self) -> Input:
        """The first node."""
        first = self.nodes[0]
        if not isinstance(first, Input):
            raise GraphError(f"the first node must be an input, got {first.operation} node {first.name!r}")
        return first

    @property
    def logits(self) -> Logits:
        """The last node."""
        last = self.nodes[-1]
        if not isinstance(last, Logits):
            raise GraphError(f"the last node must be logits, got {last.operation} node {last.name!r}")
        return last

    def macs(self, name: str) -> int:
        """Multiplications and additions that a plain implementation of a node needs for one sample."""
        node = self[name]
        return node.multiplications * self.types[name].size if isinstance(node, Weighted) else 0

    def __getitem__(self, name: str) -> Node:
        """The node of that name."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    def __str__(self) -> str:
        """One line a node: name, type of the output, operation, inputs."""
        rows = [
            (node.name, str(self.types[node.name]), node.operation, ", ".join(node.inputs), node.describe())
            for node in self.nodes
        ]
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        return "\n".join(
            f"{name:<{widths[0]}}  {kind:<{widths[1]}}  {operation}({inputs})  {details}".rstrip()
            for name, kind, operation, inputs, details in rows
        )


def _checked(node: Node, kind: TensorType) -> TensorType:
    low, high = kind.interval.lowest, kind.interval.highest
    node.require(
        low >= -INT32_LIMIT and high <= INT32_LIMIT,
        f"its integers can reach {low} .. {high}, which does not fit 32 bits; use fewer states or a smaller fan-in",
    )
    node.require(kind.size <= MAX_ELEMENTS, f"a tensor of shape {kind.shape} has more than {MAX_ELEMENTS} elements")
    node.require(abs(kind.exponent) <= MAX_EXPONENT, f"exponent {kind.exponent} is not within +-{MAX_EXPONENT}")
    return kind
