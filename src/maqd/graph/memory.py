"""Neurons that remember: nodes whose state goes out of a frame and into the next one.

A graph computes one frame and keeps nothing. A neuron with memory is made of ordinary nodes between an input, its
potential before the frame, and an output, the potential after it; `Metadata.memories` says that they belong together.
So every engine and export computes it, and every integer is compared like any other.
"""

from dataclasses import dataclass

import numpy as np

from maqd.graph.graph import Memory
from maqd.graph.nodes import Add, FixedPoint, Input, Multiply, Node, Output, Storage, Thresholds
from maqd.graph.types import TensorType
from maqd.numerics.neuron import LIMIT, Neuron, Reset
from maqd.numerics.states import Grid, States


@dataclass(frozen=True, kw_only=True, eq=False)
class Cell:
    """Neurons as nodes of a graph: `before` among its inputs, `after` among its outputs, `nodes` behind their source.

    Args:
        before: The potentials before a frame.
        nodes: What computes a frame, in order; the node with the name of the neurons gives their spikes, 0 or 1.
        after: The potentials after it.
        memory: For the graph's metadata.
    """

    before: Input
    nodes: tuple[Node, ...]
    after: Output
    memory: Memory


def cell(name: str, source: str, kind: TensorType, neuron: Neuron) -> Cell:
    """The nodes of neurons, one an element of a tensor.

    Args:
        name: Of the neurons; other nodes have it with a suffix.
        source: The tensor that they integrate.
        kind: Its type.
        neuron: How they behave.
    """
    channels, shape, exponent = kind.shape[0], kind.shape, kind.exponent
    states = States(count=2 * LIMIT + 1, signed=True)

    def clipped(suffix: str, given: str, *, leak: int = 0, less: int = 0) -> FixedPoint:
        """X - (x >> leak) - less within the limits; x >> 0 counts as 0."""
        gain = (1 << leak) - 1 if leak else 1
        offset = ((LIMIT - less) << leak) + (gain if leak else 0)
        return FixedPoint(
            name=f"{name}.{suffix}", inputs=(given,), axis=0, states=states, step_exponent=exponent,
            multiplier=np.full(channels, gain), offset=np.full(channels, offset), shift=leak,
        )  # fmt: skip

    def compared(suffix: str, *, fires: bool, unit: int = 0) -> Thresholds:
        """1 where the potential is at the threshold or above (or is not), times 2**unit."""
        sign, cut = (1, neuron.threshold) if fires else (-1, 1 - neuron.threshold)
        return Thresholds(
            name=f"{name}{suffix}", inputs=(f"{name}.charged",), axis=0, states=States(count=2, signed=False),
            step_exponent=unit, thresholds=np.full((1, channels), cut), signs=np.full(channels, sign, np.int8),
        )  # fmt: skip

    before = Input(
        name=f"{name}.before", inputs=(), key=f"{name}.before", shape=shape, storage=Storage.I16, zero=0,
        grid=Grid(low=-LIMIT, high=LIMIT, exponent=exponent),
    )  # fmt: skip
    nodes: list[Node] = [] if neuron.leak is None else [clipped("kept", before.name, leak=neuron.leak)]
    kept = before.name if neuron.leak is None else nodes[-1].name
    nodes += [
        Add(name=f"{name}.sum", inputs=(kept, source), shifts=(0, 0)),
        clipped("charged", f"{name}.sum"),
        compared("", fires=True),
    ]
    if neuron.reset is Reset.HARD:
        nodes += [
            compared(".quiet", fires=False),
            Multiply(name=f"{name}.left", inputs=(f"{name}.charged", f"{name}.quiet")),
        ]
    else:  # v - threshold * fires = v + threshold * quiet - threshold
        bits = [bit for bit in range(neuron.threshold.bit_length()) if neuron.threshold >> bit & 1]
        quiet = [compared(f".quiet{bit}", fires=False, unit=exponent + bit) for bit in bits]
        parts = (f"{name}.charged", *(one.name for one in quiet))
        nodes += [
            *quiet,
            Add(name=f"{name}.lifted", inputs=parts, shifts=(0, *bits)),
            clipped("left", f"{name}.lifted", less=neuron.threshold),
        ]
    after = Output(name=f"{name}.after", inputs=(f"{name}.left",), key=f"{name}.after")
    memory = Memory(input=before.key, output=after.key, initial=neuron.initial)
    return Cell(before=before, nodes=tuple(nodes), after=after, memory=memory)
