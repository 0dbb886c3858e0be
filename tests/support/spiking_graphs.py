"""Random graphs as spiking networks have them: activations of few equal steps, and no products."""

from dataclasses import replace
from functools import cache

import numpy as np
from random_graphs import random_graphs

from maqd.errors import GraphError, SpikingError
from maqd.graph import Activation, FixedPoint, Graph, Node, Thresholds, channel_interval
from maqd.numerics.states import States
from maqd.spiking import SpikingNetwork

SIZE = 4000
"""Elements of the largest tensor."""


@cache
def spiking_graphs(count: int) -> tuple[SpikingNetwork, ...]:
    """Those of some random graphs that have a spiking network, small ones only."""
    found = []
    for seed, graph in enumerate(random_graphs(count)):
        if max(kind.size for kind in graph.types.values()) > SIZE:
            continue
        try:
            small = few_states(graph, np.random.default_rng(seed))
            small.validate()
            network = SpikingNetwork(small)
        except (GraphError, SpikingError):
            continue
        if network.populations:
            found.append(network)
    return tuple(found)


def few_states(graph: Graph, random: np.random.Generator) -> Graph:
    """The graph with at most 6 states, and fixed-point maps that use them in place of thresholds of any distance."""
    nodes: list[Node] = []
    for node in graph.nodes:
        if isinstance(node, Activation):
            count = 2 + node.states.count % 5
            if isinstance(node, Thresholds) and count == 2:
                nodes.append(replace(node, states=replace(node.states, count=2), thresholds=node.thresholds[:1]))
                continue
            kind = graph.types[node.inputs[0]]
            interval = channel_interval(kind, node.axis)
            reach = np.maximum(1, np.maximum(-interval.low, interval.high))
            channels = len(reach)
            nodes.append(
                FixedPoint(
                    name=node.name,
                    inputs=node.inputs,
                    axis=node.axis,
                    states=States(count=count, signed=node.states.signed),
                    step_exponent=node.step_exponent,
                    multiplier=random.integers(-40, 41, channels) * (2**20 // reach),
                    offset=random.integers(-(2**22), 2**23, channels),
                    shift=21,
                )
            )
            continue
        nodes.append(node)
    return Graph(nodes=tuple(nodes))
