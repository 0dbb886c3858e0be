"""The integer graph: what a lowered network computes, node by node, in integers alone.

A tensor is an array of integers, its *codes*; code 1 stands for 2**exponent. Shapes are those of one sample, channels
first, without the batch. Every node has one output, which carries the node's name. docs/numerics.md has the formulas.
"""

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property

from maqd.errors import GraphError
from maqd.graph.nodes import Input, Node, Output, Weighted
from maqd.graph.types import TensorType
from maqd.numerics.limits import INT32_LIMIT, MAX_BOUNDS, MAX_ELEMENTS, MAX_EXPONENT


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Names of the classes of an output.

    Args:
        output: The output's key.
        names: One a class.
    """

    output: str
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Memory:
    """An output that is an input of the next frame.

    Args:
        input: Key of the input.
        output: Key of the output; its codes are the input's codes in the next frame.
        initial: The input's code in the first frame.
    """

    input: str
    output: str
    initial: int = 0


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What is known of a network beside its integers; nothing here changes them.

    Args:
        labels: Of outputs that are lists of classes.
        image_size: Rows and columns that pictures are resized to, or nothing.
        channel_order: Order of the colours, "RGB" for example, or nothing.
        float_accuracy: Share of right answers of the float network, 0 .. 1, or None.
        licence: Of the weights.
        provenance: Where they come from: a configuration, a revision.
        memories: What goes from a frame into the next one; a graph itself computes one frame and keeps nothing.
    """

    labels: tuple[Labels, ...] = ()
    image_size: tuple[int, ...] = ()
    channel_order: str = ""
    float_accuracy: float | None = None
    licence: str = ""
    provenance: str = ""
    memories: tuple[Memory, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Graph:
    """A network of integers.

    Args:
        nodes: In an order in which they can be computed: every `Input` first, every `Output` last.
        metadata: What is known beside the integers.
    """

    nodes: tuple[Node, ...]
    metadata: Metadata = Metadata()

    @cached_property
    def types(self) -> dict[str, TensorType]:
        """The type of every tensor by the name of its node.

        Raises:
            GraphError: The graph is inconsistent, or an integer might not fit 32 bits.
        """
        found: dict[str, TensorType] = {}
        inside = ended = False
        for node in self.nodes:
            node.require(bool(node.name) and node.name not in found, "needs a name of its own")
            node.require(not isinstance(node, Input) or not inside, "inputs must be the first nodes")
            node.require(isinstance(node, Output) or not ended, "outputs must be the last nodes")
            inside, ended = inside or not isinstance(node, Input), ended or isinstance(node, Output)
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
        types = self.types
        for what, found in (("input", self.inputs), ("output", self.outputs)):
            if not found:
                raise GraphError(f"a graph needs at least one {what}, got {len(self.nodes)} other nodes")
            keys = Counter(node.key for node in found)
            for node in found:
                node.require(keys[node.key] == 1, f"its key {node.key!r} belongs to another {what}, too")
        used = {name for node in self.nodes for name in node.inputs} | {node.name for node in self.outputs}
        for name in types:
            if name not in used:
                raise GraphError(f"node {name!r} is used by no other; remove it")
        shapes = {node.key: types[node.name].shape for node in self.outputs}
        for labels in self.metadata.labels:
            shape = shapes.get(labels.output)
            if shape is None or len(shape) != 1 or shape[0] != len(labels.names):
                raise GraphError(f"{len(labels.names)} labels do not fit output {labels.output!r} of shape {shape}")
        self._check_memories()
        self._check_metadata()

    def _check_memories(self) -> None:
        """Every memory is an output that fits an input of integers, and no input has two."""
        inputs, outputs = {node.key: node for node in self.inputs}, {node.key: node for node in self.outputs}
        for memory in self.metadata.memories:
            into, out = inputs.get(memory.input), outputs.get(memory.output)
            what = f"memory from output {memory.output!r} to input {memory.input!r}"
            if into is None or out is None:
                raise GraphError(f"{what}: the graph has the inputs {sorted(inputs)} and outputs {sorted(outputs)}")
            given, taken = self.types[out.name].grid, into.grid
            fits = taken.low <= given.low and given.high <= taken.high and given.exponent == taken.exponent
            if not fits or self.types[out.name].shape != into.shape or out.divisor != 1 or into.border is not None:
                raise GraphError(
                    f"{what}: {self.types[out.name]} does not fit {into.storage.value} {list(into.shape)} of codes "
                    f"{taken.low} .. {taken.high} * 2^{taken.exponent}"
                )
            if not taken.low <= memory.initial <= taken.high:
                raise GraphError(f"{what} begins with {memory.initial}, which is not in {taken.low} .. {taken.high}")
        if len({memory.input for memory in self.metadata.memories}) != len(self.metadata.memories):
            raise GraphError("an input has several memories; each input takes one output of the frame before")

    def _check_metadata(self) -> None:
        """Whether a file can hold what is known beside the integers, and every name."""
        known = self.metadata
        texts = [(f"labels of {labels.output!a}", name) for labels in known.labels for name in labels.names]
        texts += [(f"name of a {node.operation} node", node.name) for node in self.nodes]
        texts += [(f"key of node {node.name!a}", node.key) for node in (*self.inputs, *self.outputs)]
        texts += [(what, getattr(known, what)) for what in ("channel_order", "licence", "provenance")]
        for what, text in texts:
            if not isinstance(text, str) or not _fits_utf8(text):
                raise GraphError(f"{what} must be a text that UTF-8 can hold, got {text!a}; use another")
        outputs = [labels.output for labels in known.labels]
        if len(set(outputs)) != len(outputs):
            raise GraphError(f"an output has labels once, got them for {', '.join(outputs)}; keep one list of each")
        if not all(type(size) is int for size in known.image_size):
            raise GraphError(f"image_size must be integers, got {known.image_size!r}; pass rows and columns")
        accuracy = known.float_accuracy
        if accuracy is not None and not (type(accuracy) is float and 0 <= accuracy <= 1):
            raise GraphError(f"float_accuracy must be a float in 0.0 .. 1.0, got {accuracy!r}; pass a share")

    @cached_property
    def inputs(self) -> tuple[Input, ...]:
        """The inputs, in order."""
        return tuple(node for node in self.nodes if isinstance(node, Input))

    @cached_property
    def outputs(self) -> tuple[Output, ...]:
        """The outputs, in order."""
        return tuple(node for node in self.nodes if isinstance(node, Output))

    @cached_property
    def readers(self) -> dict[str, tuple[Node, ...]]:
        """For every tensor the nodes that read it, in order; a node that reads it twice is there twice."""
        found: dict[str, list[Node]] = {node.name: [] for node in self.nodes}
        for node in self.nodes:
            for name in node.inputs:
                found[name].append(node)
        return {name: tuple(nodes) for name, nodes in found.items()}

    @property
    def input(self) -> Input:
        """The only input.

        Raises:
            GraphError: There are several.
        """
        if len(self.inputs) != 1:
            raise GraphError(f"one input is wanted, and the graph has {', '.join(node.key for node in self.inputs)}")
        return self.inputs[0]

    @property
    def output(self) -> Output:
        """The only output.

        Raises:
            GraphError: There are several.
        """
        if len(self.outputs) != 1:
            raise GraphError(f"one output is wanted, and the graph has {', '.join(node.key for node in self.outputs)}")
        return self.outputs[0]

    def labels(self, output: str) -> tuple[str, ...]:
        """Names of the classes of the output with that key, or nothing."""
        return next((labels.names for labels in self.metadata.labels if labels.output == output), ())

    def macs(self, name: str) -> int:
        """Multiplications and additions that a plain implementation of a node needs for one sample."""
        node = self[name]
        return node.multiplications * self.types[name].size if isinstance(node, Weighted) else 0

    @cached_property
    def _by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    def __getitem__(self, name: str) -> Node:
        """The node of that name."""
        return self._by_name[name]

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


def _fits_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a part of a surrogate pair, as names of files have that are not UTF-8
        return False
    return True


def _checked(node: Node, kind: TensorType) -> TensorType:
    low, high = kind.interval.lowest, kind.interval.highest
    node.require(
        low >= -INT32_LIMIT and high <= INT32_LIMIT,
        f"its integers can reach {low} .. {high}, which does not fit 32 bits; use fewer states or a smaller fan-in",
    )
    node.require(kind.size <= MAX_ELEMENTS, f"a tensor of shape {kind.shape} has more than {MAX_ELEMENTS} elements")
    node.require(abs(kind.exponent) <= MAX_EXPONENT, f"exponent {kind.exponent} is not within +-{MAX_EXPONENT}")
    return kind if kind.interval.low.size <= MAX_BOUNDS else replace(kind, interval=kind.interval.whole)
