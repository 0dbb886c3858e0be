"""What a neuromorphic chip must offer for a graph: bits, neurons and connections, to be held against its data sheet."""

import enum
import math
from dataclasses import dataclass

import numpy as np

from maqd.errors import SpikingError
from maqd.graph import (
    Activation,
    Add,
    Concat,
    GlobalSum,
    Graph,
    Input,
    MaxPool,
    Node,
    Output,
    SumPool,
    Weighted,
)
from maqd.spiking.network import Population, SpikingNetwork


class Hardware(enum.Enum):
    """Which chip to think of."""

    GENERIC = "generic"
    """Integrate-and-fire neurons with integer potentials that subtract their threshold; no limits."""


@dataclass(frozen=True, kw_only=True)
class LayerDemand:
    """Neurons of an activation, or the potentials that are an output.

    Args:
        name: Of the node.
        neurons: How many.
        fan_in: Connections into each, at most; those of weight 0 are counted.
        weight_bits: Bits of a weight, 0 where the connections have none.
        bias_bits: Bits of a signed bias: where a potential starts before spikes arrive and inputs are added.
        state_bits: Bits of a signed potential that never overflows, whatever the order of the spikes.
        thresholds: How many different thresholds and signs a chip with one bias a neuron needs; 0 for an output.
        threshold: V, 2**K; 0 for an output.
        spikes: At most, of each neuron and sample.
        start, stop: Steps in which they fire.
    """

    name: str
    neurons: int
    fan_in: int
    weight_bits: int
    bias_bits: int
    state_bits: int
    thresholds: int
    threshold: int
    spikes: int
    start: int
    stop: int

    @property
    def connections(self) -> int:
        """Into all of them, if each has a weight of its own."""
        return self.neurons * self.fan_in


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What a graph needs of a chip.

    Args:
        layers: One an activation and an output, in the graph's order.
        pools: Maxima of spikes: ORs, which chips without them make of neurons; operations and how many neurons.
        steps: Of a sample, if neurons integrate a whole window first.
    """

    layers: tuple[LayerDemand, ...]
    pools: int
    steps: int

    @property
    def neurons(self) -> int:
        """All that fire."""
        return sum(layer.neurons for layer in self.layers if layer.spikes)


def demands(graph: Graph) -> Demand:
    """What a chip must offer for a graph.

    Raises:
        SpikingError: The graph has no spiking network; the message names the node.
    """
    network = SpikingNetwork(graph)
    rest = _at_rest(network)
    layers: list[LayerDemand] = []
    for node in graph.nodes:
        one = network.populations.get(node.name)
        if one is None and not isinstance(node, Output):
            continue
        (source,) = node.inputs
        weight_bits, start = _weights(graph, source), network.flows[node.name].end
        if one is not None:
            layers.append(_population(network, one, rest, weight_bits))
            continue
        kind = graph.types[node.name]
        layers.append(
            LayerDemand(
                name=node.name, neurons=kind.size, fan_in=_fan_in(graph, source), weight_bits=weight_bits,
                bias_bits=_bits(_largest(rest[source])), state_bits=_bits(kind.interval.magnitude),
                thresholds=0, threshold=0, spikes=0, start=start, stop=start,
            )
        )  # fmt: skip
    pools = [node for node in graph.nodes if isinstance(node, MaxPool) and not network.flows[node.name].constant]
    if not network.populations:
        raise SpikingError("the graph has no activation, and so no neurons; lower a network with activations")
    return Demand(layers=tuple(layers), pools=sum(graph.types[node.name].size for node in pools), steps=network.latency)


def _population(network: SpikingNetwork, one: Population, rest: dict[str, np.ndarray], weight_bits: int) -> LayerDemand:
    (source,) = one.node.inputs
    borders = {(int(a), int(b)) for a, b in zip(one.gain.reshape(-1), one.offset.reshape(-1), strict=True)}
    # A gain other than 1 or -1 is part of the weights of a chip.
    gain_bits = max(abs(int(a)) for a in one.gain.reshape(-1)).bit_length() - 1
    return LayerDemand(
        name=one.node.name,
        neurons=network.graph.types[one.node.name].size,
        fan_in=_fan_in(network.graph, source),
        weight_bits=weight_bits + max(gain_bits, 0),
        bias_bits=_bits(_largest(one.charge(rest[source]))),
        state_bits=_bits(one.reach),
        thresholds=len(borders),
        threshold=one.threshold,
        spikes=one.steps,
        start=one.start,
        stop=one.stop,
    )


def _at_rest(network: SpikingNetwork) -> dict[str, np.ndarray]:
    """Every tensor of one sample whose inputs are 0 and whose neurons are silent."""
    rest: dict[str, np.ndarray] = {}
    for node in network.graph.nodes:
        shape = (1, *network.graph.types[node.name].shape)
        if isinstance(node, Input):
            rest[node.name] = np.zeros(shape, np.int64)
        elif isinstance(node, Activation):
            rest[node.name] = np.full(shape, node.states.low, np.int64)
        else:
            rest[node.name] = node.compute(*(rest[name] for name in node.inputs))
    return rest


def _fan_in(graph: Graph, name: str) -> int:
    """Sources that reach an element of a tensor, counted once a path."""
    node = graph[name]
    if isinstance(node, Input | Activation | MaxPool):
        return 1
    below = [_fan_in(graph, source) for source in node.inputs]
    if isinstance(node, Add):
        return sum(below)
    if isinstance(node, Concat):
        return max(below)
    return below[0] * _positions(graph, node)


def _positions(graph: Graph, node: Node) -> int:
    if isinstance(node, Weighted):
        return node.multiplications
    if isinstance(node, SumPool):
        return math.prod(node.kernel)
    if isinstance(node, GlobalSum):
        return math.prod(graph.types[node.inputs[0]].shape[1:])
    return 1


def _weights(graph: Graph, name: str) -> int:
    """Bits of the largest product of weight codes on the way to a tensor; 0 without weights."""
    node = graph[name]
    if isinstance(node, Input | Activation | MaxPool):
        return 0
    above = max(_weights(graph, source) for source in node.inputs)
    if not isinstance(node, Weighted):
        return above
    own = max(1, math.ceil(math.log2(node.weight.states.count)))
    return own if not above else own + above - 1


def _bits(largest: int) -> int:
    """Of a signed integer with that magnitude."""
    return largest.bit_length() + 1


def _largest(values: np.ndarray) -> int:
    return int(np.abs(values).max())
