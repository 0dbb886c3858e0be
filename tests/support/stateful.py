"""Random networks of neurons with memory, and what they do in exact arithmetic."""

from dataclasses import dataclass, field

import numpy as np
from graphs import weight

from maqd.graph import Conv, Flatten, Graph, Input, Linear, Memory, Metadata, Node, Output
from maqd.graph.memory import Cell, cell
from maqd.numerics.neuron import LIMIT, Neuron, Reset


@dataclass
class Stack:
    """Nodes of a graph as it grows: inputs first, outputs last."""

    inputs: list[Input]
    nodes: list[Node] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    memories: list[Memory] = field(default_factory=list)
    neurons: dict[str, tuple[str, Neuron]] = field(default_factory=dict)

    def add(self, node: Node) -> str:
        self.nodes.append(node)
        return node.name

    def fire(self, name: str, source: str, neuron: Neuron) -> str:
        kind = Graph(nodes=(*self.inputs, *self.nodes)).types[source]
        made: Cell = cell(name, source, kind, neuron)
        self.inputs.append(made.before)
        self.nodes += made.nodes
        self.outputs.append(made.after)
        self.memories.append(made.memory)
        self.neurons[name] = source, neuron
        return name

    def graph(self) -> Graph:
        nodes = (*self.inputs, *self.nodes, *self.outputs)
        return Graph(nodes=nodes, metadata=Metadata(memories=tuple(self.memories)))


def neuron(random: np.random.Generator, reach: int) -> Neuron:
    return Neuron(
        threshold=int(random.integers(1, min(reach, LIMIT) + 1)),
        leak=None if random.integers(3) == 0 else int(random.integers(1, 7)),
        reset=(Reset.SOFT, Reset.HARD)[int(random.integers(2))],
        initial=int(random.integers(-reach, reach + 1)) if random.integers(2) else 0,
    )


def stateful_network(seed: int) -> Stack:
    """One or two layers of neurons behind convolutions, and a linear head."""
    random = np.random.default_rng(seed)
    size, channels = int(random.integers(3, 6)), int(random.integers(1, 3))
    stack = Stack(inputs=[Input(name="x", inputs=(), shape=(channels, size, size))])
    source = "x"
    for layer in range(int(random.integers(1, 3))):
        outputs = int(random.integers(2, 5))
        conv = Conv(
            name=f"conv{layer}",
            inputs=(source,),
            weight=weight(random, 3, outputs, channels, 3, 3),
            exponent=int(random.integers(-3, 1)),
            stride=(1, 1),
            padding=(1, 1),
            dilation=(1, 1),
        )
        source = stack.fire(f"neurons{layer}", stack.add(conv), neuron(random, 500 if layer == 0 else 6))
        channels = outputs
    flat = stack.add(Flatten(name="flat", inputs=(source,)))
    matrix = weight(random, 5, 3, channels * size * size)
    stack.add(Linear(name="head", inputs=(flat,), weight=matrix, exponent=0))
    stack.outputs.insert(0, Output(name="logits", inputs=("head",)))
    return stack


def advance(potential: np.ndarray, x: np.ndarray, neuron: Neuron) -> tuple[np.ndarray, np.ndarray]:
    """Spikes of a frame and the potential after it, from the definition."""
    leak = potential >> neuron.leak if neuron.leak is not None else 0
    charged = np.clip(potential - leak + x, -LIMIT, LIMIT)
    fires = charged >= neuron.threshold
    after = np.where(fires, 0 if neuron.reset is Reset.HARD else charged - neuron.threshold, charged)
    return fires.astype(np.int64), after
