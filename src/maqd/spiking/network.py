"""A graph as populations of integrate-and-fire neurons with linear connections between them.

An activation with M states becomes one neuron an element. The number of its spikes is the index of the state, so that
code = low + spacing * count, with at most M-1 spikes. What lies between activations is linear and passes spikes on in
the step in which they come.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maqd.errors import SpikingError
from maqd.graph import (
    Activation,
    Add,
    Concat,
    Conv,
    Flatten,
    Gather,
    GlobalSum,
    Graph,
    Input,
    Linear,
    MaxPool,
    Multiply,
    Node,
    Output,
    Permute,
    Reshape,
    SumPool,
    TensorType,
    Thresholds,
    channel_interval,
)
from maqd.graph.rules import Refused, Rules, Table
from maqd.numerics.bounds import magnitude
from maqd.numerics.states import FEW_STATES

Integers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Population:
    """The neurons of an activation: index = clip(floor((gain[c] * x + offset[c]) / 2**shift), 0, steps).

    Args:
        node: The activation.
        gain, offset: int64, one a channel, with dimensions of 1 so that they fit N x the tensor's shape.
        shift: The threshold is 2**shift.
        reach: No |gain * x + offset| is larger, whatever the spikes.
        start: First step in which it fires if it integrates a whole window first.
    """

    node: Activation
    gain: Integers
    offset: Integers
    shift: int
    reach: int
    start: int

    @property
    def steps(self) -> int:
        """M-1: the most spikes of a neuron, and the steps that it takes to send them."""
        return self.node.states.count - 1

    @property
    def stop(self) -> int:
        """The step after the last one in which it fires if it integrates a whole window first."""
        return self.start + self.steps

    @property
    def threshold(self) -> int:
        """Of a neuron that integrates a whole window first."""
        return 1 << self.shift

    def charge(self, x: Integers) -> Integers:
        """What codes, N x the tensor's shape, add to the potentials, with the offset."""
        return self.gain * x + self.offset


@dataclass(frozen=True, kw_only=True)
class Pulses:
    """A tensor each of whose elements is the output of one neuron, or the first spikes of several.

    Args:
        low: Its code if no neuron fires.
        spacing: What a spike adds.
        start: First step in which the neurons fire if they integrate a whole window first.
    """

    low: int
    spacing: int
    start: int


@dataclass(frozen=True, kw_only=True)
class Flow:
    """What is known of a tensor in time.

    Args:
        constant: Whether it does not depend on spikes.
        end: Step from which on all of it has arrived, if neurons integrate a whole window first.
        pulses: What its spikes are, if each element is a neuron's output.
    """

    constant: bool = False
    end: int = 0
    pulses: Pulses | None = None


class SpikingNetwork:
    """A graph as a spiking network.

    Args:
        graph: A valid graph.

    Raises:
        SpikingError: A node cannot be computed with spikes; the message names it.
    """

    def __init__(self, graph: Graph) -> None:
        graph.validate()
        if graph.metadata.memories:
            keys = ", ".join(memory.input for memory in graph.metadata.memories)
            raise SpikingError(
                f"the graph remembers {keys} from frame to frame: its neurons have potentials of their own, and states "
                "are not windows of spikes; run it frame by frame with maqd.runtime.Session"
            )
        self.graph = graph
        self.populations: dict[str, Population] = {}
        self.flows: dict[str, Flow] = {}
        self.still: dict[str, Integers] = {}
        """For each linear node its output where all its inputs are zero, 1 x the tensor's shape."""
        for node in graph.nodes:
            given = [self.flows[name] for name in node.inputs]
            if all(flow.constant for flow in given) and not isinstance(node, Activation):
                self.flows[node.name] = Flow(constant=True)
                continue
            self.flows[node.name] = SPIKING.find(node, f"{node.operation} node {node.name!r}")(self, node, given)
            if not isinstance(node, Activation):
                zeros = [np.zeros((1, *graph.types[name].shape), np.int64) for name in node.inputs]
                self.still[node.name] = node.compute(*zeros)

    @property
    def latency(self) -> int:
        """Steps until the last neuron has fired, if neurons integrate a whole window first."""
        return max((population.stop for population in self.populations.values()), default=0)

    @property
    def schedule(self) -> str:
        """Which neurons fire in which steps, if neurons integrate a whole window first; one line an activation."""
        width = max((len(name) for name in self.populations), default=0)
        lines = [
            f"{name:<{width}}  steps {one.start:>4} .. {one.stop - 1:<4}  {self.graph.types[name].size:,} neurons, "
            f"at most {one.steps} spikes each"
            for name, one in self.populations.items()
        ]
        return "\n".join([*lines, f"{self.latency} steps a sample"])


def _join(given: Sequence[Flow], pulses: Pulses | None = None) -> Flow:
    return Flow(end=max(flow.end for flow in given), pulses=pulses)


def _linear(_: SpikingNetwork, node: Node, given: Sequence[Flow]) -> Flow:
    return _join(given)


def _moved(_: SpikingNetwork, node: Node, given: Sequence[Flow]) -> Flow:
    return _join(given, given[0].pulses)


def _gather(_: SpikingNetwork, node: Gather, given: Sequence[Flow]) -> Flow:
    pulses = given[0].pulses
    silent = not node.filled or (pulses is not None and node.fill == pulses.low)
    return _join(given, pulses if silent else None)


def _concat(_: SpikingNetwork, node: Concat, given: Sequence[Flow]) -> Flow:
    found = {
        None
        if flow.pulses is None
        else Pulses(low=flow.pulses.low << shift, spacing=flow.pulses.spacing << shift, start=flow.pulses.start)
        for flow, shift in zip(given, node.shifts, strict=True)
    }
    return _join(given, found.pop() if len(found) == 1 else None)


def _max_pool(_: SpikingNetwork, node: MaxPool, given: Sequence[Flow]) -> Flow:
    if given[0].pulses is None:
        raise SpikingError(
            f"max_pool node {node.name!r} takes maxima of what is not the spikes of one activation; "
            "pool the output of each activation by itself, before sums and concatenations"
        )
    return _join(given, given[0].pulses)


def _activation(network: SpikingNetwork, node: Activation, given: Sequence[Flow]) -> Flow:
    if not node.states.few:
        raise SpikingError(
            f"{node.operation} node {node.name!r} has {node.states.count} states, and a neuron sends a spike for each "
            f"but one; use at most {FEW_STATES} states"
        )
    kind = network.graph.types[node.inputs[0]]
    column = (1, *(-1 if d == node.axis else 1 for d in range(len(kind.shape))))
    gain, offset, shift = _affine(node, kind)
    population = Population(
        node=node,
        gain=gain.reshape(column),
        offset=offset.reshape(column),
        shift=shift,
        reach=magnitude(gain) * kind.interval.magnitude + magnitude(offset),
        start=given[0].end,
    )
    if population.reach >= 2**63:
        raise SpikingError(
            f"{node.operation} node {node.name!r}: potentials can reach {population.reach}, which does not fit "
            "64 bits; use fewer states"
        )
    network.populations[node.name] = population
    pulses = Pulses(low=node.states.low, spacing=node.states.spacing, start=population.start)
    return Flow(end=population.stop, pulses=pulses)


def _affine(node: Activation, kind: TensorType) -> tuple[Integers, Integers, int]:
    """Gain, offset and shift: one number a channel, and one for all."""
    if isinstance(node, Thresholds) and node.states.count == 2:
        return node.signs.astype(np.int64), 1 - node.thresholds[0].astype(np.int64), 0
    found = node.affine(channel_interval(kind, node.axis))
    if found is None:
        raise SpikingError(
            f"thresholds node {node.name!r}: neurons have one threshold, and no gain and offset give its "
            f"{node.states.count - 1}; use 2 states, or a quantizer with equal steps"
        )
    return found.multiplier, found.offset, found.shift


_TABLE: Table = {
    Input: _linear,
    **dict.fromkeys((Conv, Linear, SumPool, GlobalSum, Add), _linear),
    **dict.fromkeys((Flatten, Reshape, Permute, Output), _moved),
    Gather: _gather,
    Concat: _concat,
    MaxPool: _max_pool,
    Activation: _activation,
    Multiply: Refused(
        reason="a product of two tensors is not a sum over spikes",
        remedy="use a gate of two states before a convolution, or a network without products",
    ),
}
SPIKING = Rules("the spiking engine", SpikingError, _TABLE)
"""What each kind of node becomes; nodes that no spikes reach are computed as they are."""
