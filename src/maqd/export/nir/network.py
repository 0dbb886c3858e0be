"""A graph of two states as convolutions and neurons that fire at most once: what NIR can say and all importers read."""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from maqd.errors import ExportError
from maqd.export.nir.dense import Dense, Layout, convolution, identity, pointwise, whole, windows
from maqd.graph import (
    Activation,
    Add,
    Concat,
    Conv,
    FixedPoint,
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

Integers = NDArray[np.int64]

MOST = 2**22
"""Largest threshold: potentials stay below twice that, and floats of 32 bits hold halves up to 2**23."""


INPUT, OUTPUT = "input", "output"
"""Names of the ends of the spiking network."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Term:
    """What one source adds to a tensor.

    Args:
        source: A node of the spiking network.
        dense: What its output goes through; None for nothing.
    """

    source: str
    dense: Dense | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Traced:
    """A tensor of the graph as a sum of what nodes of the spiking network send.

    Args:
        layout: Its layout there; the elements are in the order of the graph's.
        terms: What is added up.
    """

    layout: Layout
    terms: tuple[Term, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Synapses:
    """A convolution, and the node that it reads."""

    source: str
    dense: Dense
    layout: Layout
    """Of its input."""
    charged: bool
    """Whether 1/2 and the threshold of all neurons are to be added to its bias."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Neurons:
    """Neurons of two states: they fire if their input is at the threshold of the network or above."""

    sources: tuple[str, ...]
    layout: Layout


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """Where a tensor of the graph is found: code = sign * (sum of the nodes' outputs - offset - threshold).

    Args:
        nodes: Nodes of the spiking network.
        sign: 1 or -1, one a channel.
        offset: One a channel, in wholes and halves; the potential of a sum of 0.
        charged: Whether the threshold is part of the potential.
    """

    nodes: tuple[str, ...]
    sign: Integers
    offset: NDArray[np.floating]
    charged: bool


@dataclass(kw_only=True, eq=False)
class Network:
    """The spiking network of a graph as it is built; `threshold` is known at the end.

    Args:
        graph: A valid graph.
    """

    graph: Graph
    traced: dict[str, Traced] = field(default_factory=dict)
    synapses: dict[str, Synapses] = field(default_factory=dict)
    neurons: dict[str, Neurons] = field(default_factory=dict)
    readings: dict[str, Reading] = field(default_factory=dict)
    input_layout: Layout = (1, 1, 1)
    outputs: tuple[str, ...] = ()
    output_layout: Layout = (1, 1, 1)
    reach: int = 1
    """No potential is further from the threshold than this."""
    furthest: str = ""
    """The node where it is so far."""

    @property
    def threshold(self) -> int:
        """One for all neurons, larger than any sum that reaches them."""
        return 1 << self.reach.bit_length()

    def name(self, base: str, suffix: str) -> str:
        """A name that no other node has, of letters, digits and underscores."""
        clean = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in base)
        name = wanted = f"{clean if clean[:1].isalpha() else 'node_' + clean}_{suffix}"
        number = 2
        while name in self.synapses or name in self.neurons:
            name, number = f"{wanted}_{number}", number + 1
        return name

    def connect(
        self, node: Node, traced: Traced, factors: Integers | int = 1, offset: Integers | None = None
    ) -> tuple[str, ...]:
        """Convolutions that add up to factors * tensor + offset + 1/2 + threshold, or to the tensor.

        Args:
            node: The node that reads them, for names and messages.
            traced: The tensor.
            factors: One a channel.
            offset: One a channel; None for nothing, not even the half and the threshold.
        """
        names: list[str] = []
        reach = np.zeros(traced.layout[0], np.int64)
        for place, term in enumerate(traced.terms):
            dense = (identity(traced.layout[0]) if term.dense is None else term.dense).scaled(factors)
            charged = offset is not None and place == 0
            if offset is not None and place == 0:
                dense = replace(dense, bias=dense.bias + offset)
            names.append(self.emit(node, term.source, dense, charged=charged))
            reach = reach + dense.reach(self._largest(term.source))
        self._extend(node, int(reach.max()) + 1)
        return tuple(names)

    def emit(self, node: Node, source: str, dense: Dense, *, charged: bool) -> str:
        """A convolution of its own."""
        layout = self.layout(source)
        squared = dense.squared(layout)
        if squared is None:
            rows, columns = dense.weight.shape[2:]
            raise ExportError(
                f"{node.operation} node {node.name!r}: a kernel of {rows} x {columns} cannot be made square, and NIR's "
                "check of shapes takes square ones only; use sides that are both odd or both even"
            )
        self._extend(node, int(dense.reach(self._largest(source)).max()) + 1)
        name = self.name(node.name, "synapses")
        self.synapses[name] = Synapses(source=source, dense=squared, layout=layout, charged=charged)
        return name

    def layout(self, source: str) -> Layout:
        """The layout of what a node of the spiking network sends."""
        if source in self.neurons:
            return self.neurons[source].layout
        if source in self.synapses:
            one = self.synapses[source]
            return one.dense.output(one.layout)
        return self.input_layout

    def _largest(self, source: str) -> int:
        """No output of a node of the spiking network is larger."""
        if source in self.neurons:
            return 1
        if source in self.synapses:
            one = self.synapses[source]
            return int(one.dense.reach(self._largest(one.source)).max())
        return self.graph.types[self.graph.input.name].interval.magnitude

    def _extend(self, node: Node, reach: int) -> None:
        if reach > self.reach:
            self.reach, self.furthest = reach, node.name
        if self.threshold > MOST:
            raise ExportError(
                f"{node.operation} node {node.name!r}: potentials can be {reach} away from their threshold, and "
                f"simulators with floats of 32 bits are exact up to {MOST}; use fewer states or a smaller fan-in"
            )

    def fire(self, node: Node, traced: Traced, sign: Integers, threshold: Integers) -> None:
        """Neurons that fire where sign * tensor >= threshold, one of both a channel."""
        sources = self.connect(node, traced, sign, -threshold)
        name = self.name(node.name, "neurons")
        self.neurons[name] = Neurons(sources=sources, layout=traced.layout)
        self.traced[node.name] = Traced(layout=traced.layout, terms=(Term(source=name, dense=None),))
        channels = traced.layout[0]
        self.readings[node.name] = Reading(
            nodes=(name,), sign=np.ones(channels, np.int64), offset=np.zeros(channels), charged=False
        )
        if isinstance(node, Activation):
            found = Reading(nodes=sources, sign=sign, offset=0.5 - threshold, charged=True)
            self.readings.setdefault(node.inputs[0], found)


def build(graph: Graph) -> Network:
    """The spiking network of a graph.

    Raises:
        ExportError: The graph has several inputs or outputs, or a node that cannot be expressed; the message names it.
    """
    graph.validate()
    if graph.metadata.memories:
        keys = ", ".join(memory.input for memory in graph.metadata.memories)
        raise ExportError(
            f"the graph remembers {keys} from frame to frame, and neurons of NIR do not clip potentials; export it to "
            "C99 or ONNX, where potentials are inputs and outputs"
        )
    for what, found in (("input", graph.inputs), ("output", graph.outputs)):
        if len(found) != 1:
            keys = ", ".join(node.key for node in found)
            raise ExportError(f"importers of NIR take one {what}, and the graph has {keys}; export a graph with one")
    network = Network(graph=graph)
    for node in graph.nodes:
        NIR.find(node, f"{node.operation} node {node.name!r}")(network, node)
    return network


def _canonical(node: Node, shape: tuple[int, ...]) -> Layout:
    if len(shape) > 3:
        raise ExportError(
            f"{node.operation} node {node.name!r}: a tensor of shape {shape} has more dimensions than channels, rows "
            "and columns; use a network of at most two dimensions"
        )
    sizes = list(shape)
    while len(sizes) < 3:
        sizes.insert(1, 1)
    return sizes[0], sizes[1], sizes[2]


def _input(network: Network, node: Input) -> None:
    network.input_layout = _canonical(node, node.shape)
    network.traced[node.name] = Traced(layout=network.input_layout, terms=(Term(source=INPUT, dense=None),))


def _ordered(network: Network, node: Node, source: str) -> Traced:
    """An input of a node that needs channels, rows and columns as the graph has them."""
    traced = network.traced[source]
    shape = network.graph.types[source].shape
    if traced.layout != _canonical(node, shape):
        raise ExportError(
            f"{node.operation} node {node.name!r}: its input of shape {shape} is a reshaped tensor of "
            f"{' x '.join(map(str, traced.layout))}; only a linear layer can read one"
        )
    return traced


def _apply(network: Network, node: Node, traced: Traced, dense: Dense) -> None:
    """A linear map of a tensor; the bias counts once."""
    terms = []
    for place, term in enumerate(traced.terms):
        here = dense if place == 0 else replace(dense, bias=np.zeros_like(dense.bias))
        joined = here if term.dense is None else here.after(term.dense)
        if joined is None and term.dense is not None:
            source = network.emit(node, term.source, term.dense, charged=False)
            terms.append(Term(source=source, dense=here))
        else:
            terms.append(Term(source=term.source, dense=joined))
    network.traced[node.name] = Traced(layout=dense.output(traced.layout), terms=tuple(terms))


def _conv(network: Network, node: Conv) -> None:
    traced = _ordered(network, node, node.inputs[0])
    weight = node.weight.unpack().astype(np.int64)
    _apply(network, node, traced, convolution(weight, node.bias, node.geometry, node.groups))


def _linear(network: Network, node: Linear) -> None:
    (source,) = node.inputs
    shape, traced = network.graph.types[source].shape, network.traced[source]
    if len(shape) != 1:
        raise ExportError(
            f"linear node {node.name!r} maps the last dimension of {shape}; use a convolution with a kernel of 1, "
            "channels first"
        )
    weight = node.weight.unpack().astype(np.int64).reshape(-1, *traced.layout)
    _apply(network, node, traced, whole(weight, None if node.bias is None else node.bias.astype(np.int64)))


def _sum_pool(network: Network, node: SumPool) -> None:
    traced = _ordered(network, node, node.inputs[0])
    _apply(network, node, traced, windows(traced.layout[0], node.geometry))


def _global_sum(network: Network, node: GlobalSum) -> None:
    traced = _ordered(network, node, node.inputs[0])
    channels, *space = traced.layout
    kernel = np.multiply.outer(np.eye(channels, dtype=np.int64), np.ones(space, np.int64))
    _apply(network, node, traced, whole(kernel, None))


def _shifted(terms: tuple[Term, ...], channels: int, shift: int) -> list[Term]:
    if not shift:
        return list(terms)
    return [
        Term(
            source=term.source,
            dense=(identity(channels) if term.dense is None else term.dense).scaled(1 << shift),
        )
        for term in terms
    ]


def _add(network: Network, node: Add) -> None:
    given = [network.traced[name] for name in node.inputs]
    if len({traced.layout for traced in given}) != 1:
        layouts = ", ".join(" x ".join(map(str, traced.layout)) for traced in given)
        raise ExportError(f"add node {node.name!r} adds tensors that are {layouts} before they are reshaped; add first")
    terms = [
        term
        for traced, shift in zip(given, node.shifts, strict=True)
        for term in _shifted(traced.terms, traced.layout[0], shift)
    ]
    network.traced[node.name] = Traced(layout=given[0].layout, terms=tuple(terms))


def _concat(network: Network, node: Concat) -> None:
    given = [_ordered(network, node, name) for name in node.inputs]
    if node.axis != 0:
        raise ExportError(f"concat node {node.name!r} joins dimension {node.axis}; NIR joins channels only")
    total = sum(traced.layout[0] for traced in given)
    terms: list[Term] = []
    first = 0
    for traced, shift in zip(given, node.shifts, strict=True):
        channels = traced.layout[0]
        place = np.zeros((total, channels), np.int64)
        place[first : first + channels] = np.eye(channels, dtype=np.int64) << shift
        first += channels
        dense = pointwise(place)
        for term in traced.terms:
            joined = dense if term.dense is None else dense.after(term.dense)
            if joined is None:
                raise ExportError(f"concat node {node.name!r} has no form as a convolution; concatenate activations")
            terms.append(Term(source=term.source, dense=joined))
    network.traced[node.name] = Traced(layout=(total, *given[0].layout[1:]), terms=tuple(terms))


def _gather(network: Network, node: Gather) -> None:
    traced = _ordered(network, node, node.inputs[0])
    if node.axis != 0:
        raise ExportError(
            f"gather node {node.name!r} takes places of dimension {node.axis}; NIR selects channels only: pad in the "
            "convolution, and slice nothing but channels"
        )
    matrix = (np.arange(traced.layout[0]) == node.indices[:, None]).astype(np.int64)
    _apply(network, node, traced, pointwise(matrix, np.where(node.indices < 0, node.fill, 0).astype(np.int64)))


def _same(network: Network, node: Node) -> None:
    network.traced[node.name] = network.traced[node.inputs[0]]


def _max_pool(network: Network, node: MaxPool) -> None:
    grid = network.graph.types[node.inputs[0]].grid
    if grid.low < 0 or grid.high > 1:
        raise ExportError(
            f"max_pool node {node.name!r} takes maxima of codes {grid.low} .. {grid.high}; in NIR a maximum is a sum "
            "that reaches 1, of codes 0 and 1 only: pool activations of 2 states, or use average pooling"
        )
    traced = _ordered(network, node, node.inputs[0])
    sums = windows(traced.layout[0], node.geometry)
    _apply(network, node, traced, sums)
    ones = np.ones(traced.layout[0], np.int64)
    network.fire(node, network.traced[node.name], ones, ones)


def _activation(network: Network, node: Activation) -> None:
    states = node.states
    if (states.count, states.low) != (2, 0):
        signed = "signed " if states.signed else ""
        raise ExportError(
            f"{node.operation} node {node.name!r} has {states.count} {signed}states; NIR has neurons of codes 0 and 1: "
            "train with 2 unsigned states, or use maqd.spiking.to_spikingjelly or to_snntorch, which take any number"
        )
    (source,) = node.inputs
    kind = network.graph.types[source]
    traced = network.traced[source]
    if node.axis != 0 or traced.layout[0] != kind.shape[0]:
        raise ExportError(
            f"{node.operation} node {node.name!r}: its channels are dimension {node.axis} of {kind.shape}, and in NIR "
            f"those of {' x '.join(map(str, traced.layout))}; put it before what reshapes its input"
        )
    network.fire(node, traced, *_border(node, kind))


def _border(node: Activation, kind: TensorType) -> tuple[Integers, Integers]:
    """Sign and threshold of each channel, no further out than the sums go."""
    interval = channel_interval(kind, 0)
    if isinstance(node, FixedPoint):
        gain, offset = node.multiplier.astype(np.int64), node.offset.astype(np.int64)
        sign = np.where(gain < 0, -1, 1)
        size = np.maximum(np.abs(gain), 1)
        needed = (1 << node.shift) - offset
        never = np.where(needed > 0, np.iinfo(np.int32).max, -np.iinfo(np.int32).max)
        threshold = np.where(gain == 0, never, -(-needed // size))
    elif isinstance(node, Thresholds):
        sign, threshold = node.signs.astype(np.int64), node.thresholds[0].astype(np.int64)
    else:
        raise ExportError(f"{node.operation} node {node.name!r} has no form as neurons; use thresholds")
    low = np.where(sign > 0, interval.low, -interval.high)
    high = np.where(sign > 0, interval.high, -interval.low)
    return sign, np.clip(threshold, low, high + 1)


def _output(network: Network, node: Output) -> None:
    traced = network.traced[node.inputs[0]]
    network.output_layout = traced.layout
    only = traced.terms[0]
    if len(traced.terms) == 1 and only.dense is None:
        network.outputs = (only.source,)
    else:
        network.outputs = network.connect(node, traced)
    channels = traced.layout[0]
    network.readings[node.name] = Reading(
        nodes=network.outputs, sign=np.ones(channels, np.int64), offset=np.zeros(channels), charged=False
    )


_TABLE: Table = {
    Input: _input,
    Conv: _conv,
    Linear: _linear,
    SumPool: _sum_pool,
    GlobalSum: _global_sum,
    Add: _add,
    Concat: _concat,
    Gather: _gather,
    **dict.fromkeys((Flatten, Reshape), _same),
    MaxPool: _max_pool,
    Activation: _activation,
    Output: _output,
    Permute: Refused(
        reason="NIR has no other order of dimensions",
        remedy="keep channels first from the input to the head",
    ),
    Multiply: Refused(
        reason="a product of two tensors is not a sum over spikes",
        remedy="use a network without products",
    ),
}
NIR = Rules("the NIR export", ExportError, _TABLE)
"""What each kind of node becomes."""
