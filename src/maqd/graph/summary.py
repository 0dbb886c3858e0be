"""What a graph is made of: layers, states, bytes, multiplications."""

import math
from dataclasses import dataclass

from maqd.graph import Activation, FixedPoint, Graph, Node, Thresholds, Weighted


@dataclass(frozen=True, kw_only=True)
class LayerSummary:
    """A node of a graph.

    Args:
        name: Of the node.
        operation: Kind of node.
        shape: Of the output of one sample.
        low, high: Bounds of the output's codes.
        accumulator: Narrowest signed integer type that holds them.
        weight_states: M_w, where there are weights.
        act_states: M_a of an activation.
        weights: Number of weights.
        nonzero: How many of them are not zero.
        bytes: Of weights, bias, thresholds, A and B as they are stored.
        macs: Multiplications and additions for one sample.
    """

    name: str
    operation: str
    shape: tuple[int, ...]
    low: int
    high: int
    accumulator: str
    weight_states: int | None
    act_states: int | None
    weights: int
    nonzero: int
    bytes: int
    macs: int


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A graph.

    Args:
        layers: Its nodes.
        weight_bound: Bytes of information in the weights, the sum of n log2(M_w) / 8.
        weight_bytes: Bytes of the packed weights.
        threshold_bytes: Bytes of thresholds, signs, A and B.
        bias_bytes: Bytes of biases.
    """

    layers: tuple[LayerSummary, ...]
    weight_bound: float
    weight_bytes: int
    threshold_bytes: int
    bias_bytes: int

    @property
    def weights(self) -> int:
        """Number of weights."""
        return sum(layer.weights for layer in self.layers)

    @property
    def nonzero_ratio(self) -> float:
        """R_w, the ratio of weights that are not zero."""
        return sum(layer.nonzero for layer in self.layers) / self.weights if self.weights else 0.0

    @property
    def macs(self) -> int:
        """Multiplications and additions for one sample."""
        return sum(layer.macs for layer in self.layers)


def summarize(graph: Graph) -> Summary:
    """The summary of a valid graph."""
    weighted = [node for node in graph.nodes if isinstance(node, Weighted)]
    return Summary(
        layers=tuple(_layer(graph, node) for node in graph.nodes),
        weight_bound=sum(node.weight.size * math.log2(node.weight.states.count) / 8 for node in weighted),
        weight_bytes=sum(node.weight.data.nbytes for node in weighted),
        threshold_bytes=sum(activation_bytes(node) for node in graph.nodes if isinstance(node, Activation)),
        bias_bytes=sum(node.bias.nbytes for node in weighted if node.bias is not None),
    )


def activation_bytes(node: Activation) -> int:
    """Bytes of an activation's parameters."""
    if isinstance(node, Thresholds):
        return node.thresholds.nbytes + node.signs.nbytes
    return node.multiplier.nbytes + node.offset.nbytes if isinstance(node, FixedPoint) else 0


def _layer(graph: Graph, node: Node) -> LayerSummary:
    kind = graph.types[node.name]
    weight = node.weight if isinstance(node, Weighted) else None
    stored = activation_bytes(node) if isinstance(node, Activation) else 0
    if isinstance(node, Weighted):
        stored += node.weight.data.nbytes + (0 if node.bias is None else node.bias.nbytes)
    return LayerSummary(
        name=node.name,
        operation=node.operation,
        shape=kind.shape,
        low=kind.grid.low,
        high=kind.grid.high,
        accumulator=str(kind.dtype),
        weight_states=None if weight is None else weight.states.count,
        act_states=node.states.count if isinstance(node, Activation) else None,
        weights=0 if weight is None else weight.size,
        nonzero=0 if weight is None else weight.nonzero(),
        bytes=stored,
        macs=graph.macs(node.name),
    )
